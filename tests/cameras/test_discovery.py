"""What discovery makes of recorded devices."""

import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import pyudev

from dockd.cameras import discovery
from dockd.cameras.discovery import Disk, FileSystem, UsbDevice, find_devices, port_order
from dockd.cameras.identify import Identified, identify_all
from tests.simulated.udev import HOST, RECORDINGS, Mocked, Testbed, mocked_system
from tests.simulated.usb import profile

GIB = 1 << 30


def test_an_ordinary_camera(mocked: Mocked) -> None:
    (camera,) = mocked.devices("ordinary-camera")
    assert (camera.port, camera.devnum) == ("1-1", 4)
    assert (camera.vendor, camera.product, camera.serial) == ("0603", "8611", "BWC0012345")
    assert camera.model == "NOVATEK NT96660"
    assert camera.interface_classes == {8}
    assert camera.speed_mbps == 480.0
    assert camera.stores
    assert camera.authorized
    assert camera.tagged
    assert camera.complete
    (disk,) = camera.disks
    assert disk == Disk(
        "/dev/sda",
        62333952 * 512,
        False,
        (FileSystem("/dev/sda1", "vfat", "CAM", "1A2B-3C4D", 1),),
        1,
    )


def test_hubs_are_no_devices_and_ports_are_counted_as_people_do(mocked: Mocked) -> None:
    devices = mocked.devices("hub-with-eight-cameras")
    assert [device.port for device in devices] == [f"1-3.{n}" for n in range(1, 9)]
    assert [device.serial for device in devices] == [f"BWC{n:07d}" for n in range(1, 9)]
    assert len({volume.node for one in devices for volume in one.disks[0].volumes}) == 8


def test_a_disk_without_partition_table_is_its_own_volume(mocked: Mocked) -> None:
    (camera,) = mocked.devices("camera-without-partition-table")
    (disk,) = camera.disks
    assert disk.partitions == 0
    assert disk.volumes == (FileSystem("/dev/sda", "vfat", "CAM", "1A2B-3C4D", None),)


def test_all_interfaces_of_a_composite_device_are_seen(mocked: Mocked) -> None:
    (camera,) = mocked.devices("camera-with-keyboard")
    assert camera.interface_classes == {3, 8}


def test_an_empty_card_reader_has_disks_without_size(mocked: Mocked) -> None:
    (reader,) = mocked.devices("empty-card-reader")
    assert [(disk.node, disk.size_bytes) for disk in reader.disks] == [
        ("/dev/sdb", 0),
        ("/dev/sdc", 0),
    ]
    assert reader.complete
    assert not reader.tagged


def test_every_logical_unit_is_a_disk(mocked: Mocked) -> None:
    (camera,) = mocked.devices("two-cards")
    assert [disk.volumes[0].label for disk in camera.disks] == ["INTERNAL", "CARD"]


def test_partitions_without_a_file_system_are_counted_but_are_no_volumes(mocked: Mocked) -> None:
    (camera,) = mocked.devices("several-partitions")
    (disk,) = camera.disks
    assert disk.partitions == 3
    assert [(volume.partition, volume.type, volume.label) for volume in disk.volumes] == [
        (1, "vfat", "SYSTEM"),
        (2, "exfat", "FOOTAGE"),
    ]


def test_a_corrupt_partition_table_leaves_a_disk_without_volumes(mocked: Mocked) -> None:
    (camera,) = mocked.devices("corrupt-partition-table")
    assert camera.complete
    assert camera.disks[0].size_bytes > 29 * GIB
    assert camera.disks[0].volumes == ()


@pytest.mark.parametrize("recording", ["starting-camera", "starting-disk"])
def test_a_camera_is_not_complete_before_udev_has_finished(mocked: Mocked, recording: str) -> None:
    (camera,) = mocked.devices(recording)
    assert camera.stores
    assert not camera.complete


def test_with_its_data_off_a_camera_is_still_there(mocked: Mocked) -> None:
    (camera,) = mocked.devices("data-switched-off")
    assert (camera.port, camera.devnum, camera.serial) == ("1-1", 4, "BWC0012345")
    assert not camera.authorized
    assert camera.interface_classes == frozenset()
    assert camera.disks == ()


def test_a_recording_as_umockdev_makes_it_is_of_a_camera_that_is_complete(mocked: Mocked) -> None:
    whole, recorded = mocked.run(_without_what_the_recorder_leaves_out)
    assert recorded == whole


def _without_what_the_recorder_leaves_out() -> tuple[list[UsbDevice], list[UsbDevice]]:
    text = (RECORDINGS / "ordinary-camera.umockdev").read_text()
    found = []
    for one in (text, re.sub(r"^E: USEC_INITIALIZED=.*\n", "", text, flags=re.MULTILINE)):
        with mocked_system() as bed:
            bed.add_text(one)
            found.append(find_devices(pyudev.Context()))
    return found[0], found[1]


@pytest.mark.parametrize("recording", sorted(RECORDINGS.glob("*.umockdev")), ids=lambda r: r.stem)
def test_every_recording_is_of_devices_that_are_let_in_or_refused_with_words(
    mocked: Mocked, recording: Path
) -> None:
    """INV-2: whatever is plugged in ends as a camera or with a reason."""
    profiles = [profile(match={}), profile("novatek", match={"vendor": "0603"})]
    devices = mocked.devices(recording.stem)
    assert devices
    for found in identify_all(devices, profiles).values():
        assert isinstance(found, Identified) or found.words


def test_ports_are_ordered_by_number() -> None:
    ports = ["2-1", "1-1.10", "1-1.9", "1-1", "10-1"]
    assert sorted(ports, key=port_order) == ["1-1", "1-1.9", "1-1.10", "2-1", "10-1"]


def test_labels_are_exact_and_printable(mocked: Mocked) -> None:
    label = mocked.run(_label_of, r"A\x20B\x5cC\xc3\xa9\x0a\xff")
    assert label == r"A B\\Cé\n\xff"


def _label_of(encoded: str) -> str:
    text = (RECORDINGS / "ordinary-camera.umockdev").read_text()
    text = text.replace("ID_FS_LABEL_ENC=CAM", f"ID_FS_LABEL_ENC={encoded}")
    with mocked_system() as bed:
        bed.add_text(text)
        (camera,) = find_devices(pyudev.Context())
        return camera.disks[0].volumes[0].label


def test_a_device_may_vanish_at_any_file_that_is_read(mocked: Mocked) -> None:
    """INV-8: whatever is missing of one device, none of it raises, and the others are found.

    A disk that comes and goes, as it does while it is formatted, does not take its device along.
    """
    looks = mocked.run(_vanish_at_each_file)
    others = [f"1-3.{n}" for n in range(2, 9)]
    for missing, (ports, complete) in looks.items():
        assert ports[-7:] == others, missing
        if "/block/" in missing:
            assert ports[0] == "1-3.1", missing
        if missing.endswith(("/block/sda", "/sda/size")):
            assert not complete, missing
    assert sum(len(ports) == 7 for ports, _ in looks.values()) > 5


def _vanish_at_each_file() -> dict[str, tuple[list[str], bool]]:
    """Take each file of the first camera away; return the ports found, and whether it was whole."""
    looks = {}
    with mocked_system("hub-with-eight-cameras") as bed:
        device = bed.root / f"sys{HOST}/1-3/1-3.1"
        for path in [device, *sorted(device.rglob("*"))]:
            hidden = path.with_name(path.name + ".hidden")
            path.rename(hidden)
            devices = find_devices(pyudev.Context())
            looks[str(path)] = ([one.port for one in devices], devices[0].complete)
            hidden.rename(path)
    return looks


def test_data_may_be_switched_off_before_any_file_that_is_read(mocked: Mocked) -> None:
    """INV-3: a camera that is about to charge is never gone, and never whole without its disk."""
    looks = mocked.run(_switch_off_before_each_read)
    assert len(looks) > 5
    for look, found in enumerate(looks):
        assert [device.port for device in found] == ["1-1"], look
        (camera,) = found
        assert camera.disks or not camera.authorized or not camera.complete, look


def _switch_off_before_each_read() -> list[list[UsbDevice]]:
    """Look once for each file that is read, with the data switched off just before that one."""
    looks = []
    for last in itertools.count():
        with mocked_system("ordinary-camera") as bed:
            reads = _Reads(last, bed)
            with (
                patch.object(discovery, "open", reads.counted(open), create=True),
                patch("os.listdir", reads.counted(os.listdir)),
            ):
                found = find_devices(pyudev.Context())
        if reads.count <= last:
            break
        looks.append(found)
    return looks


class _Reads:
    """Counts what is read of the camera; just before the last reading its data is switched off."""

    def __init__(self, last: int, bed: Testbed) -> None:
        self.count = 0
        self._last = last
        self._bed = bed

    def counted(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def counting(path: Any, *args: Any, **options: Any) -> Any:
            if str(path).startswith(f"/sys{HOST}/1-1"):
                if self.count == self._last:
                    _switch_off(self._bed)
                self.count += 1
            return read(path, *args, **options)

        return counting


def _switch_off(bed: Testbed) -> None:
    """Do as the kernel does: say so first, and then take away what hangs on the device."""
    device = bed.root / f"sys{HOST}/1-1"
    (device / "authorized").write_text("0\n")
    shutil.rmtree(device / "1-1:1.0")
    for link in (bed.root / "sys/class/block").iterdir():
        link.unlink()
