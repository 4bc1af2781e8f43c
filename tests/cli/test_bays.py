"""``dockd bays``: the table, learning ports from a script of answers, and the rules."""

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.cameras.discovery import UsbDevice
from dockd.cli import bays
from dockd.cli.bays import bay_entries, bay_rows, learn_ports, require_without_bays
from dockd.config import load_config
from dockd.core.errors import ConfigError
from dockd.evidence.keys import SigningKey
from tests.simulated.usb import DEVICE

PROFILE = """
name = "camera"
title = "Camera"
[match]
vendor = "0603"
product = "8611"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/camera.toml").write_text(PROFILE)
    (tmp_path / "key.pem").write_bytes(SigningKey(Ed25519PrivateKey.generate()).public.pem())
    (tmp_path / "drop").mkdir()
    (tmp_path / "dockd.toml").write_text(
        '[dock]\nname = "d"\nstate_dir = "s"\n[cameras]\nprofiles_dir = "profiles"\n'
        '[target]\nurl = "http://[::1]/"\nstore_id = "c"\nreceipt_key = "key.pem"\n'
        '[[bay]]\nname = "1"\nport = "1-1"\n[[bay]]\nname = "2"\nport = "1-2"\n'
        '[[bay]]\nname = "3"\nfolder = "drop"\n'
    )
    return tmp_path


def rows(site: Path, *devices: UsbDevice) -> list[dict[str, object]]:
    found = bay_rows(load_config(site / "dockd.toml"), devices)
    return [{key: row[key] for key in ("bay", "port", "camera", "what_to_know")} for row in found]


def test_each_bay_has_a_row_and_storage_elsewhere_is_shown(site: Path) -> None:
    """INV-2: what is plugged in and not taken in is visible, with the reason."""
    stick = replace(DEVICE, port="1-4", vendor="0781", tagged=False)
    keyboard = replace(DEVICE, port="1-5", interface_classes=frozenset({3}), disks=())
    assert rows(site, DEVICE, stick, keyboard) == [
        {
            "bay": "1", "port": "1-1", "camera": "0603:8611:BWC0012345",
            "what_to_know": "profile camera",
        },
        {"bay": "2", "port": "1-2", "camera": None, "what_to_know": None},
        {"bay": "3", "port": None, "camera": None, "what_to_know": f"folder {site}/drop"},
        {
            "bay": None, "port": "1-4", "camera": None,
            "what_to_know": "this port is no bay: left alone",
        },
    ]  # fmt: skip


def test_refusals_clashes_and_slow_cables_are_in_the_table(site: Path) -> None:
    twin = replace(DEVICE, port="1-2", devnum=9)
    for row in rows(site, DEVICE, twin)[:2]:
        assert "another camera with the same id" in str(row["what_to_know"])
    stranger = replace(DEVICE, vendor="dead")
    assert "no profile knows" in str(rows(site, stranger)[0]["what_to_know"])
    slow = replace(DEVICE, speed_mbps=12.0)
    assert rows(site, slow)[0]["what_to_know"] == "slow (12 Mbit/s): replace the cable"


def test_the_list_is_printed_as_table_and_as_json(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = replace(DEVICE, model="[red]evil")
    monkeypatch.setattr(bays, "UsbBus", lambda: FakeBus([[hostile]]))
    monkeypatch.setenv("COLUMNS", "200")
    bays.list_bays(site / "dockd.toml", as_json=False)
    shown = capsys.readouterr().out
    assert "0603:8611:BWC0012345" in shown
    assert "[red]evil" in shown
    bays.list_bays(site / "dockd.toml", as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["camera"] == "0603:8611:BWC0012345"


class FakeBus:
    """Shows one state after the other, and then the last one for good."""

    def __init__(self, states: Sequence[Sequence[UsbDevice]]) -> None:
        self._states = list(states)

    def devices(self) -> Sequence[UsbDevice]:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]


def at(port: str, devnum: int) -> UsbDevice:
    return replace(DEVICE, port=port, devnum=devnum)


def learnt(
    answers: Sequence[str], *states: Sequence[UsbDevice]
) -> tuple[dict[str, str], list[str]]:
    said: list[str] = []
    script = iter(answers)

    def ask(question: str) -> str:
        said.append(question)
        return next(script)

    return learn_ports(FakeBus(states).devices, ask, said.append), said


BUILT_IN = replace(DEVICE, port="2-1", devnum=2)


def test_cameras_are_put_into_one_bay_after_the_other() -> None:
    ports, said = learnt(
        ["", "", "q"],
        [BUILT_IN],
        [BUILT_IN, at("1-1.4", 5)],
        [BUILT_IN, at("1-1.4", 5), at("1-1.3", 6)],
    )
    assert ports == {"1": "1-1.4", "2": "1-1.3"}
    assert said[0].startswith("Put a camera into bay 1 ")
    assert said[1] == "Bay 1 is USB port 1-1.4."
    assert said[-1].startswith("Put a camera into bay 3 ")


def test_one_camera_may_go_from_bay_to_bay() -> None:
    ports, _ = learnt(["", "", "q"], [], [at("1-1.4", 5)], [at("1-1.3", 6)])
    assert ports == {"1": "1-1.4", "2": "1-1.3"}


def test_what_is_not_clear_is_asked_again() -> None:
    ports, said = learnt(
        ["", "", "", "", "Q"],
        [],
        [],
        [at("1-1.1", 5), at("1-1.2", 6)],
        [at("1-1.1", 7)],
        [at("1-1.1", 8)],
    )
    assert ports == {"1": "1-1.1"}
    told = [line for line in said if not line.startswith("Put a camera")]
    assert [line.partition(":")[0] for line in told] == [
        "No new device",
        "More than one device is new",
        "Bay 1 is USB port 1-1.1.",
        "That is the port of bay 1 (1-1.1)",
    ]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def script(answers: Sequence[str], *states: Sequence[UsbDevice]) -> None:
        given = iter(answers)
        monkeypatch.setattr(bays, "UsbBus", lambda: FakeBus(states))
        monkeypatch.setattr("builtins.input", lambda _: next(given))

    return script


def test_learnt_bays_are_written_to_each_file(
    site: Path, scripted: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (site / "dockd.toml").read_text()
    dock, helper = site / "dockd.toml", site / "helper.toml"
    dock.write_text(text.partition("[[bay]]")[0])
    helper.write_text('dock = "d"')
    scripted(["", "", "q"], [], [at("1-1", 4)], [at("1-1", 4), at("1-10.2", 5)])
    bays.learn([dock, helper])
    assert [(bay.name, bay.port) for bay in load_config(dock).bays] == [
        ("1", "1-1"),
        ("2", "1-10.2"),
    ]
    assert tomllib.loads(helper.read_text())["bay"] == [
        {"name": "1", "port": "1-1"},
        {"name": "2", "port": "1-10.2"},
    ]
    assert capsys.readouterr().out.endswith(f"written to {dock}\nwritten to {helper}\n")


def test_without_a_file_the_entries_are_printed(
    scripted: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(["", "q"], [], [at("1-1.4", 5)])
    bays.learn(None)
    assert capsys.readouterr().out.endswith('[[bay]]\nname = "1"\nport = "1-1.4"\n\n')


def test_nothing_is_asked_when_a_file_cannot_be_written_to(
    site: Path, scripted: Callable[..., None]
) -> None:
    scripted([])
    with pytest.raises(ConfigError, match="there are bays already"):
        bays.learn([site / "dockd.toml"])
    with pytest.raises(ConfigError, match="cannot be read"):
        bays.learn([site / "none.toml"])
    (site / "broken.toml").write_text("[")
    with pytest.raises(ConfigError, match="is not TOML"):
        require_without_bays(site / "broken.toml")


def test_no_bay_is_no_entry() -> None:
    assert bay_entries({}) == ""


def test_the_rules_are_those_of_the_docks_profiles(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bays.rules(site / "dockd.toml")
    assert 'ATTR{idVendor}=="0603", ATTR{idProduct}=="8611", TAG+="dockd"' in (
        capsys.readouterr().out
    )
