"""Which device is in a bay, and what it needs before it shows its file system."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dockd.cameras.discovery import Disk, FileSystem, UsbDevice
from dockd.core.errors import CameraGoneError, DeviceRefusedError, HelperError
from dockd.helper import bays
from dockd.helper.bays import Bays
from dockd.helper.power import Port
from tests.helper import loops

DISK = Disk("/dev/none", 1 << 30, False, (FileSystem("/dev/none", "ext4", "L", "U"),))
CAMERA = UsbDevice(
    port="1-1.4",
    devnum=7,
    sys_path="/sys/none",
    vendor="1d6b",
    product="0104",
    serial="CAM-0007",
    model="test camera",
    interface_classes=frozenset({8}),
    speed_mbps=480.0,
    authorized=True,
    tagged=True,
    complete=True,
    disks=(DISK,),
)
ASLEEP = replace(CAMERA, authorized=False, interface_classes=frozenset(), disks=())
LOCKED = replace(CAMERA, disks=())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bays, "_POLL_S", 0.0)


def make(tmp_path: Path, find: Callable[[], list[UsbDevice]], **tables: Any) -> Bays:
    (tmp_path / "bus/usb/devices/1-1.4").mkdir(parents=True)
    (tmp_path / "bus/usb/devices/1-1.4/authorized").write_text("0\n")
    return Bays(
        {"1": "1-1.4"}, [loops.profile(**tables)], find, lambda port: Port(port, sysfs=tmp_path)
    )


def test_a_camera_is_found_at_the_port_of_its_bay(tmp_path: Path) -> None:
    other = replace(CAMERA, port="1-1.5", serial="CAM-0008")
    found = make(tmp_path, lambda: [other, CAMERA]).find("1")
    assert (found.camera.camera_id, found.disk, found.file_system) == (
        "1d6b:0104:CAM-0007", DISK, DISK.volumes[0],
    )  # fmt: skip


def test_an_empty_bay_is_no_camera(tmp_path: Path) -> None:
    with pytest.raises(CameraGoneError):
        make(tmp_path, list).find("1")


@pytest.mark.parametrize(
    "changes", [{"tagged": False}, {"vendor": "0000"}, {"disks": (DISK, DISK)}, {"disks": ()}]
)
def test_what_is_no_camera_of_ours_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    bays_ = make(tmp_path, lambda: [replace(CAMERA, **changes)])
    with pytest.raises(DeviceRefusedError):
        bays_.find("1")
    with pytest.raises(DeviceRefusedError):
        bays_.wake("1")


def test_data_that_charging_has_switched_off_is_switched_on(tmp_path: Path) -> None:
    switch = tmp_path / "bus/usb/devices/1-1.4/authorized"
    looks = 0

    def find() -> list[UsbDevice]:
        nonlocal looks
        looks += switch.read_text().strip() == "1"
        if looks == 0:
            return [ASLEEP]
        # Enumeration, SCSI probe and udev take their time.
        return [[LOCKED], [replace(LOCKED, complete=False)], [CAMERA]][min(looks, 3) - 1]

    assert make(tmp_path, find).wake("1").file_system == DISK.volumes[0]
    assert switch.read_text() == "1"


def test_a_stranger_whose_data_is_off_stays_so(tmp_path: Path) -> None:
    bays_ = make(tmp_path, lambda: [replace(ASLEEP, tagged=False, vendor="0000")])
    with pytest.raises(DeviceRefusedError):
        bays_.wake("1")
    assert (tmp_path / "bus/usb/devices/1-1.4/authorized").read_text() == "0\n"


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "unlock"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_camera_that_must_be_unlocked_is_unlocked_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = program(tmp_path, f'env >> {log}; echo "$@" >> {log}')
    tables = {"prepare": {"command": [command, "--key", "4711"]}}
    found = make(tmp_path, lambda: [CAMERA if log.exists() else LOCKED], **tables).wake("1")
    assert found.file_system == DISK.volumes[0]
    lines = log.read_text().splitlines()
    assert lines.count("--key 4711") == 1
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert names - {"PWD", "_", "OLDPWD", "SHLVL"} == {"PATH", "LC_ALL", "DOCKD_PORT"}
    assert "DOCKD_PORT=1-1.4" in lines


def test_a_camera_that_stays_locked_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bays, "READY_TIMEOUT_S", 0.05)
    tables = {"prepare": {"command": [program(tmp_path, "true")]}}
    with pytest.raises(DeviceRefusedError, match="before it is unlocked"):
        make(tmp_path, lambda: [LOCKED], **tables).wake("1")


@pytest.mark.parametrize(
    ("text", "words"), [("echo no; exit 3", "ended with 3: no"), ("sleep 20", "has not ended")]
)
def test_a_preparation_that_fails_is_named(tmp_path: Path, text: str, words: str) -> None:
    tables = {"prepare": {"command": [program(tmp_path, text)], "timeout_s": 0.5}}
    with pytest.raises(HelperError, match=words):
        make(tmp_path, lambda: [LOCKED], **tables).wake("1")


def test_a_device_without_a_tag_is_not_unlocked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tables = {"prepare": {"command": [program(tmp_path, f"touch {log}")]}}
    with pytest.raises(DeviceRefusedError):
        make(tmp_path, lambda: [replace(LOCKED, tagged=False)], **tables).wake("1")
    assert not log.exists()
