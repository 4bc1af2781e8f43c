"""``dockd doctor``: each check with good and bad news, and the command as a whole."""

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd import __version__
from dockd.cameras import helper_protocol as protocol
from dockd.cameras.discovery import Disk, FileSystem, UsbDevice
from dockd.cameras.profiles import Match, Profile
from dockd.cameras.udev_rules import FILE_NAME, udev_rules
from dockd.cli.checks import Finding, Level, dock, machine, partners
from dockd.cli.doctor import examine, run_doctor
from dockd.config import Config, TargetConfig, load_config
from dockd.core.errors import HelperUnavailableError, JournalDamagedError, KeyFileError
from dockd.core.model import Confirm, CustodyEvent, TargetProperties
from dockd.daemon import StatePaths
from dockd.evidence.custody import seal
from dockd.evidence.keys import SigningKey, load_or_create_key, public_key_path
from dockd.journal.journal import SqliteJournal
from dockd.ops.status import StatusServer
from tests.simulated.proofs import ManualClock
from tests.simulated.store import SimulatedStore
from tests.simulated.wire import Wire
from tests.store.tus import running

NOW = datetime(2999, 1, 1, tzinfo=UTC)
SIGNS_NOTHING = TargetProperties(creation_with_upload=True, checksum_sha256=False, receipts=False)


def levels(findings: Iterable[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def one(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A dock of one USB bay, whose receipt key is ``tmp_path/key.pem``."""
    (tmp_path / "key.pem").write_bytes(SigningKey(Ed25519PrivateKey.generate()).public.pem())
    file = tmp_path / "dockd.toml"
    file.write_text(
        '[dock]\nname = "dock-1"\nstate_dir = "state"\n'
        '[target]\nurl = "http://127.0.0.1:9/files/"\nstore_id = "store-1"\nreceipt_key = "key.pem"\n'
        f'[helper]\nsocket = "{tmp_path}/helper.sock"\n'
        '[[bay]]\nname = "1"\nport = "1-1.4"\n'
    )
    return load_config(file)


@pytest.fixture
def paths(config: Config) -> StatePaths:
    config.dock.state_dir.mkdir(mode=0o700)
    return StatePaths(config.dock.state_dir)


async def begin_journal(paths: StatePaths, key: SigningKey) -> None:
    journal = await SqliteJournal.open(
        paths.journal,
        seal=lambda previous, seq, event: seal(key, "dock-1", previous, seq, NOW, event),
        key_id=key.key_id,
    )
    await journal.add_custody(CustodyEvent("something"))
    await journal.close()


# The dock itself


def test_a_sound_configuration(tmp_path: Path, config: Config) -> None:
    found, findings = dock.check_config(tmp_path / "dockd.toml")
    assert found == config
    assert levels(findings) == [Level.OK]


def test_every_problem_of_a_faulty_configuration(tmp_path: Path) -> None:
    (tmp_path / "dockd.toml").write_text("[dock]\nname = 1\n")
    found, findings = dock.check_config(tmp_path / "dockd.toml")
    assert found is None
    assert levels(findings) == [Level.FAIL, Level.FAIL]


def test_a_dock_still_to_be_set_up_is_told_what_is_next(tmp_path: Path) -> None:
    file = tmp_path / "dockd.toml"
    file.write_text('[dock]\nname = "new-dock"\nstate_dir = "state"\n')
    _, findings = dock.check_config(file)
    assert levels(findings) == [Level.WARN] * 3
    assert "dockd bays learn" in " ".join(finding.advice for finding in findings)


def test_a_dock_at_work_without_a_name_of_its_own(tmp_path: Path, config: Config) -> None:
    """INV-4: two docks of one name would share a custody log in the store."""
    file = tmp_path / "dockd.toml"
    file.write_text(file.read_text().replace("dock-1", dock.UNNAMED))
    assert levels(dock.check_config(file)[1]) == [Level.FAIL]


def test_the_state_directory_is_private_and_of_one_owner(paths: StatePaths) -> None:
    paths.key.write_text("")
    assert levels(dock.check_state_dir(paths.state_dir)) == [Level.OK]
    paths.state_dir.chmod(0o750)
    assert levels(dock.check_state_dir(paths.state_dir)) == [Level.OK]
    for mode in (0o770, 0o751, 0o704):
        paths.state_dir.chmod(mode)
        assert levels(dock.check_state_dir(paths.state_dir)) == [Level.FAIL]
    assert levels(dock.check_state_dir(paths.state_dir / "none")) == [Level.WARN]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_in_the_state_directory(paths: StatePaths) -> None:
    paths.key.write_text("")
    os.chown(paths.key, 12345, 12345)
    finding = one(dock.check_state_dir(paths.state_dir))
    assert finding.level is Level.FAIL
    assert finding.advice == f"chown -R 0 {paths.state_dir}"


async def test_journal_and_key_that_belong_together(paths: StatePaths) -> None:
    assert dock.check_journal(paths.journal).level is Level.OK
    assert dock.check_dock_key(paths.key, paths.journal).level is Level.OK
    key = load_or_create_key(paths.key)
    await begin_journal(paths, key)
    assert dock.check_journal(paths.journal).level is Level.OK
    finding = dock.check_dock_key(paths.key, paths.journal)
    assert (finding.level, finding.words) == (Level.OK, key.key_id)


async def test_a_damaged_journal(paths: StatePaths) -> None:
    await begin_journal(paths, load_or_create_key(paths.key))
    paths.journal.write_bytes(b"x" * 5000)
    with pytest.raises(JournalDamagedError):
        dock.check_journal(paths.journal)


async def test_a_key_that_is_lost_replaced_or_open_to_others(paths: StatePaths) -> None:
    """INV-4."""
    await begin_journal(paths, load_or_create_key(paths.key))
    paths.key.unlink()
    assert dock.check_dock_key(paths.key, paths.journal).level is Level.FAIL
    assert not paths.key.exists()
    load_or_create_key(paths.key)
    assert dock.check_dock_key(paths.key, paths.journal).level is Level.FAIL
    paths.key.chmod(0o644)
    with pytest.raises(KeyFileError):
        dock.check_dock_key(paths.key, paths.journal)


@pytest.mark.parametrize(
    ("free", "level"), [(10**10, Level.OK), (10**9, Level.WARN), (10**8, Level.FAIL)]
)
def test_disk_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: _Usage(place, free))
    assert dock.check_space(tmp_path / "not" / "there").level is level


class _Usage:
    def __init__(self, place: Path, free: int) -> None:
        assert place.exists()
        self.free = free


def test_bays_that_need_a_person_stand_out() -> None:
    def bay(name: str, state: str, camera: str | None) -> dict[str, object]:
        return {"bay": name, "state": state, "camera": camera, "reason": "why"}

    status = {"bays": [bay("1", "empty", None), bay("2", "attention", "c"), bay("3", "ready", "d")]}
    findings = list(dock.check_bays(status))
    assert levels(findings) == [Level.OK, Level.WARN, Level.OK]
    assert findings[1].words == "attention, camera c: why"


# The machine


@pytest.mark.parametrize(
    ("release", "dep", "loaded", "expected"),
    [
        ("6.1.0-9-amd64", "kernel/fs/fat/vfat.ko:\nkernel/fs/exfat/exfat.ko:", "ext4", "ok ok"),
        ("6.18", "", "nodev\tproc\n\tvfat\n\texfat\n", "ok ok"),
        ("5.10.0", "kernel/fs/exfat/exfat.ko.xz:", "vfat", "warn ok"),
        ("6.1.0", "kernel/fs/fat/vfat.ko:", "", "ok warn"),
    ],
)
def test_kernel_and_file_systems(
    tmp_path: Path, release: str, dep: str, loaded: str, expected: str
) -> None:
    (tmp_path / release).mkdir()
    (tmp_path / release / "modules.dep").write_text(dep)
    (tmp_path / "filesystems").write_text(loaded)
    findings = machine.check_kernel(release, tmp_path, tmp_path / "filesystems")
    assert " ".join(levels(findings)) == expected


def test_clock() -> None:
    assert machine.check_clock(NOW, synchronised=True).level is Level.OK
    assert machine.check_clock(NOW, synchronised=False).level is Level.WARN
    past = NOW.replace(year=1999)
    assert machine.check_clock(past, synchronised=True).level is Level.FAIL
    assert isinstance(machine.clock_is_synchronised(), bool)


CAMERA = UsbDevice(
    port="1-1.4", devnum=5, sys_path="/sys/x", vendor="1234", product="5678", serial="A7F3",
    model="", interface_classes=frozenset({8}), speed_mbps=480.0, authorized=True, tagged=True,
    complete=True,
    disks=(Disk("/dev/sdb", 10**9, True, (FileSystem("/dev/sdb", "vfat", "", "1-2"),)),),
)  # fmt: skip
KNOWN = Profile(name="ours", title="Ours", match=Match(vendor="1234"))


def test_udev_rules(tmp_path: Path) -> None:
    """INV-5: without them a desktop may mount a camera first."""
    directories, off = (tmp_path / "none", tmp_path), replace_profile(enabled=False)

    def check(profile: Profile, *, needed: bool) -> Level:
        return machine.check_rules(directories, [profile], tmp_path, needed=needed).level

    assert check(KNOWN, needed=False) is Level.WARN
    assert check(KNOWN, needed=True) is Level.FAIL
    (tmp_path / FILE_NAME).write_text(udev_rules([KNOWN]))
    assert check(KNOWN, needed=True) is Level.OK
    assert check(off, needed=True) is Level.FAIL
    (tmp_path / FILE_NAME).write_text(udev_rules([off]))
    assert check(off, needed=True) is Level.FAIL
    assert check(off, needed=False) is Level.OK


def test_what_makes_a_profile_count_is_said_and_written_line_by_line(tmp_path: Path) -> None:
    """A new dock knows no camera; the way from there is in the words that one can paste."""
    off = replace_profile(enabled=False)
    (tmp_path / FILE_NAME).write_text(udev_rules([off]))
    fresh = machine.check_rules([tmp_path], [off], Path("/etc/dockd/profiles.d"), needed=True)
    assert "set enabled = true" in fresh.advice
    assert "/etc/dockd/profiles.d" in fresh.advice
    stale = machine.check_rules([tmp_path], [KNOWN], tmp_path, needed=True)
    for advice in (fresh.advice, stale.advice):
        assert " && ".join(machine.WRITE_RULES) in advice
    docs = Path(__file__).parent.parent.parent / "docs"
    for page in ("operations.md", "profiles.md"):
        text = (docs / page).read_text(encoding="utf-8")
        lines = [line.strip() for line in text.splitlines()]
        start = lines.index(machine.WRITE_RULES[0])
        assert tuple(lines[start : start + len(machine.WRITE_RULES)]) == machine.WRITE_RULES


def replace_profile(**update: object) -> Profile:
    return KNOWN.model_copy(update=update)


def test_devices_by_port() -> None:
    bays = {"1-1.4": "1", "1-1.5": "2"}
    good = one(machine.check_devices([CAMERA], [KNOWN], bays))
    assert good.level is Level.OK
    assert "bay 1" in good.words
    untagged = one(machine.check_devices([replace(CAMERA, tagged=False)], [KNOWN], bays))
    assert untagged.level is Level.WARN
    unknown = one(machine.check_devices([CAMERA], [], bays))
    assert unknown.level is Level.WARN
    elsewhere = one(machine.check_devices([replace(CAMERA, port="2-1")], [KNOWN], bays))
    assert elsewhere.level is Level.OK
    mouse = replace(CAMERA, port="3-1", interface_classes=frozenset({3}), disks=())
    assert not list(machine.check_devices([mouse], [KNOWN], bays))


@pytest.mark.parametrize(
    ("properties", "level"),
    [
        ({"ActiveState": "active", "NRestarts": "0"}, Level.OK),
        ({"ActiveState": "active"}, Level.OK),
        ({"ActiveState": "active", "NRestarts": "3"}, Level.WARN),
        ({"ActiveState": "failed", "NRestarts": "3"}, Level.FAIL),
        ({"ActiveState": "activating", "NRestarts": "0"}, Level.FAIL),
        ({}, Level.FAIL),
    ],
)
def test_units(properties: Mapping[str, str], level: Level) -> None:
    assert machine.check_unit("dockd.service", properties).level is level


def test_no_systemd() -> None:
    assert levels(machine.check_units(["dockd.service"], running=False)) == [Level.WARN]


# The partners


async def test_the_daemon_answers(tmp_path: Path) -> None:
    place = tmp_path / "status.sock"
    status, finding = await asyncio.to_thread(partners.check_daemon, place)
    assert (status, finding.level) == (None, Level.FAIL)
    async with StatusServer(place, lambda: {"dock": "dock-1", "bays": []}):
        status, finding = await asyncio.to_thread(partners.check_daemon, place)
    assert status == {"dock": "dock-1", "bays": []}
    assert finding.level is Level.OK


async def test_the_store_that_is_pinned_and_another_one(tmp_path: Path, config: Config) -> None:
    """INV-1."""

    async def check(target: TargetConfig) -> Finding:
        return one(await asyncio.to_thread(lambda: list(partners.check_store(target))))

    assert config.target is not None
    assert (await check(config.target)).level is Level.FAIL
    async with running(tmp_path / "store") as tus:
        target = config.target.model_copy(update={"url": tus.store.url})
        other = await check(target)
        assert other.level is Level.FAIL
        assert f"{tus.store.store_id}, and store-1 is pinned" in other.words
        same = await check(target.model_copy(update={"store_id": tus.store.store_id}))
        assert same.level is Level.OK
        readback = {"confirm": Confirm.READBACK, "receipt_key": None}
        needless = await check(target.model_copy(update=readback))
        assert needless.level is Level.WARN
        assert "signs receipts" in needless.words
    foreign = Wire(SimulatedStore(ManualClock(), properties=SIGNS_NOTHING))
    async with foreign.served() as url:
        target = target.model_copy(update={"url": url})
        assert (await check(target)).level is Level.FAIL
        read_back = await check(target.model_copy(update=readback))
        assert read_back.level is Level.OK
        assert "is read back" in read_back.words


async def test_every_address_of_the_store_is_tried(tmp_path: Path, config: Config) -> None:
    """A fallback that leads nowhere is found out before it is needed."""
    assert config.target is not None
    async with running(tmp_path / "store") as tus:
        nobody = "http://127.0.0.1:1/files/"
        changes = {
            "url": tus.store.url,
            "store_id": tus.store.store_id,
            "fallback_urls": (nobody, tus.store.url.replace("127.0.0.1", "localhost")),
        }
        target = config.target.model_copy(update=changes)
        found = await asyncio.to_thread(lambda: list(partners.check_store(target)))
    assert [finding.level for finding in found] == [Level.OK, Level.FAIL, Level.OK]
    assert found[1].words.startswith(f"{nobody}: ")
    assert "no connection" in found[1].words


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Callable[[protocol.Alive], Path]]:
    """Start what answers one ping as the helper would; the function returns its socket."""
    threads: list[threading.Thread] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:

        def answer(alive: protocol.Alive) -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.send(alive.model_dump_json().encode())

        def start(alive: protocol.Alive) -> Path:
            listening.bind(str(tmp_path / "helper.sock"))
            listening.listen()
            threads.append(threading.Thread(target=answer, args=(alive,)))
            threads[0].start()
            return tmp_path / "helper.sock"

        yield start
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("version", "bays", "level"),
    [
        (__version__, ("1", "2"), Level.OK),
        (__version__, ("2",), Level.FAIL),
        ("0.0.0", ("1", "2"), Level.FAIL),
    ],
)
def test_the_helper_answers(
    helper: Callable[[protocol.Alive], Path], version: str, bays: tuple[str, ...], level: Level
) -> None:
    place = helper(protocol.Alive(version=version, bays=bays))
    assert partners.check_helper(place, ["1"]).level is level


def test_no_helper(tmp_path: Path) -> None:
    with pytest.raises(HelperUnavailableError):
        partners.check_helper(tmp_path / "none.sock", ["1"])


HELPER = """\
dock = "{dock}"
store_id = "{store_id}"
receipt_key = "{key}"
user = "root"
profiles_dir = "{profiles}"
[[bay]]
name = "1"
port = "{port}"
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"dock": "dock-2"}, ["the dock is dock-1, for the helper dock-2"]),
        ({"store_id": "s"}, ["the store is store-1, for the helper s"]),
        ({"port": "1-1.5"}, ["bay 1 is USB port 1-1.4, for the helper 1-1.5"]),
        ({"profiles": "/else"}, ["profiles are in /etc/dockd/profiles.d, for the helper /else"]),
        ({"key": "other.pem"}, ["the store's receipt key is"]),
    ],
)
def test_daemon_and_helper_agree(
    tmp_path: Path,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    words: list[str],
) -> None:
    """INV-1: a wipe needs both to mean the same store."""
    (tmp_path / "other.pem").write_bytes(SigningKey(Ed25519PrivateKey.generate()).public.pem())
    values = {"dock": "dock-1", "store_id": "store-1", "key": "key.pem", "port": "1-1.4"}
    values |= {"profiles": "/etc/dockd/profiles.d"} | change
    values["key"] = str(tmp_path / values["key"])
    (tmp_path / "helper.toml").write_text(HELPER.format_map(values))
    # Who owns the directories of a test is not what is looked at here.
    monkeypatch.setattr("dockd.helper.config.others_can_change", lambda _: ())
    findings = list(partners.check_helper_config(tmp_path / "helper.toml", config))
    assert levels(findings) == [Level.FAIL if words else Level.OK]
    assert all(
        finding.words.startswith(start) for finding, start in zip(findings, words, strict=False)
    )


@pytest.mark.parametrize(
    ("dock", "helper", "words"),
    [
        ("readback", "readback", None),
        ("receipt", "readback", "footage is confirmed by receipt, for the helper by readback"),
        ("readback", "receipt", "footage is confirmed by readback, for the helper by receipt"),
        ("readback", "another", "the dock's key is"),
    ],
)
def test_daemon_and_helper_confirm_by_the_same(
    tmp_path: Path,
    config: Config,
    paths: StatePaths,
    monkeypatch: pytest.MonkeyPatch,
    dock: str,
    helper: str,
    words: str | None,
) -> None:
    """INV-1: what the one takes for proof, the other does, too, and by the same key."""
    load_or_create_key(paths.key)
    (tmp_path / "another.pem").write_bytes(SigningKey(Ed25519PrivateKey.generate()).public.pem())
    keys = {
        "receipt": f'receipt_key = "{tmp_path}/key.pem"',
        "readback": f'confirm = "readback"\ndock_key = "{public_key_path(paths.key)}"',
        "another": f'confirm = "readback"\ndock_key = "{tmp_path}/another.pem"',
    }
    text = HELPER.replace('receipt_key = "{key}"', keys[helper])
    places = {"profiles": "/etc/dockd/profiles.d", "port": "1-1.4"}
    (tmp_path / "helper.toml").write_text(
        text.format(dock="dock-1", store_id="store-1", key="", **places)
    )
    monkeypatch.setattr("dockd.helper.config.others_can_change", lambda _: ())
    assert config.target is not None
    if dock == "readback":
        chosen = {"confirm": Confirm.READBACK, "receipt_key": None}
        target = config.target.model_copy(update=chosen)
        config = config.model_copy(update={"target": target})
    (finding,) = partners.check_helper_config(tmp_path / "helper.toml", config)
    assert finding.level is (Level.FAIL if words else Level.OK)
    assert finding.words.startswith(words or str(tmp_path))


def test_a_helper_configuration_that_is_missing(tmp_path: Path, config: Config) -> None:
    findings = list(partners.check_helper_config(tmp_path / "none.toml", config))
    assert set(levels(findings)) == {Level.FAIL}


# The command


async def test_the_whole_of_a_broken_dock_is_looked_at(tmp_path: Path, paths: StatePaths) -> None:
    """What keeps one check from looking is a finding, and the others are made all the same."""
    await begin_journal(paths, load_or_create_key(paths.key))
    paths.journal.write_bytes(b"x" * 5000)
    file = tmp_path / "dockd.toml"
    findings = await asyncio.to_thread(lambda: list(examine(file)))
    by_check = {finding.check: finding.level for finding in findings}
    failing = {"journal", "dock key", "daemon", "store", "helper", "helper config", "udev rules"}
    assert {check for check, level in by_check.items() if level is Level.FAIL} >= failing
    assert by_check["configuration"] is Level.OK
    assert {"state", "disk space", "clock", "kernel"} <= set(by_check)


def test_table_json_and_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    findings = [Finding("a", Level.OK, "[odd]"), Finding("b", Level.WARN, "words", "do this")]
    monkeypatch.setattr("dockd.cli.doctor.examine", lambda _: iter(findings))
    assert run_doctor(tmp_path, as_json=False)
    table = capsys.readouterr().out
    assert "[odd]" in table
    assert "→ do this" in table
    findings.append(Finding("c", Level.FAIL, "broken"))
    assert not run_doctor(tmp_path, as_json=True)
    said: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert said[2] == {"check": "c", "level": "FAIL", "words": "broken", "advice": ""}
