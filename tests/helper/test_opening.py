"""Opening a camera: write-blocked, read-only, mounted nowhere, and gone when it is let go of.

Guards INV-5 and INV-6.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dockd.cameras.footage import FootageVolume
from dockd.cameras.helper_client import HelperClient
from dockd.core.errors import CameraGoneError, CameraUnreadableError, DeviceRefusedError
from dockd.core.model import SkipReason
from dockd.helper import block
from dockd.helper.erase import LIMITS
from tests.helper import loops
from tests.helper.conftest import BAY, Rig

Serve = Callable[[Any], HelperClient]


def never() -> bool:
    return False


def opened(rig: Rig) -> int:
    return rig.actions().open(BAY, loops.CAMERA, never)


def open_fds() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def read_all(fd: int) -> dict[bytes, bytes]:
    volume = FootageVolume(fd, LIMITS, "camera", loops.profile())
    try:
        found = {}
        for listed in volume.list_files().files:
            file = volume.open_file(listed.path)
            found[listed.path] = file.read(1 << 20)
            file.close()
        return found
    finally:
        volume.close()


def test_the_daemon_reads_through_the_descriptor_only(rig: Rig, serve: Serve) -> None:
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    fd = serve(rig.actions()).open_volume(BAY, loops.CAMERA)
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == mounts
    assert not loops.is_free(rig.camera.node)
    assert read_all(fd) == loops.CONTENTS
    assert loops.is_free(rig.camera.node), "with the descriptor the mount is gone"


def test_settings_are_listed_and_are_no_recordings(rig: Rig) -> None:
    volume = FootageVolume(opened(rig), LIMITS, "camera", loops.profile())
    skipped = volume.list_files().skipped
    volume.close()
    assert [(entry.path, entry.reason) for entry in skipped] == [
        (b"CONFIG/camera.ini", SkipReason.SETTINGS)
    ]


def test_an_unprivileged_process_in_another_mount_namespace_reads_it(rig: Rig) -> None:
    fd = opened(rig)
    script = (
        f"import os; fd = os.open('DCIM/100/MOV_0002.MP4', os.O_RDONLY, dir_fd={fd});"
        "print(os.getuid(), os.read(fd, 1000).decode())"
    )
    try:
        done = subprocess.run(
            ["unshare", "--mount", "setpriv", "--reuid=65534", "--clear-groups", "--no-new-privs",
             "--bounding-set=-all", sys.executable, "-c", script],
            pass_fds=[fd], capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
    finally:
        os.close(fd)
    assert done.stderr == ""
    assert done.stdout.strip() == "65534 " + loops.CONTENTS[b"DCIM/100/MOV_0002.MP4"].decode()


def test_not_even_root_can_write_to_an_opened_camera(rig: Rig) -> None:
    before = rig.camera.content()
    fd = opened(rig)
    try:
        with pytest.raises(OSError, match="Read-only") as through_mount:
            os.mkdir("x", dir_fd=fd)
        assert through_mount.value.errno == errno.EROFS
        with pytest.raises(PermissionError):
            loops.write_raw(rig.camera.node)
    finally:
        os.close(fd)
    assert rig.camera.content() == before


def test_the_write_block_holds_for_descriptors_that_were_open_before(rig: Rig) -> None:
    early = os.open(rig.camera.node, os.O_RDWR)
    try:
        os.close(opened(rig))
        with pytest.raises(PermissionError):
            os.pwrite(early, b"x" * 512, 0)
    finally:
        os.close(early)


def test_reading_a_camera_changes_no_byte_of_it(rig: Rig) -> None:
    before = rig.camera.content()
    assert read_all(opened(rig)) == loops.CONTENTS
    assert rig.camera.content() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tagged": False}, "udev"),
        ({"vendor": "ffff"}, "no profile"),
        ({"interface_classes": frozenset({3, 8})}, "keyboard"),
        ({"sys_path": "/sys/block/loop-control"}, "does not belong"),
    ],
)
def test_what_is_no_camera_of_ours_is_refused(
    rig: Rig, changes: dict[str, Any], words: str
) -> None:
    rig.camera.changes = changes
    with pytest.raises(DeviceRefusedError, match=words):
        opened(rig)
    assert loops.is_free(rig.camera.node)


def test_a_camera_in_a_port_that_is_no_bay_is_not_found(rig: Rig) -> None:
    rig.camera.port = "1-1.5"
    with pytest.raises(CameraGoneError, match="empty"):
        opened(rig)


def test_another_camera_than_was_asked_for_is_not_opened(rig: Rig) -> None:
    with pytest.raises(CameraGoneError, match="is in the bay"):
        rig.actions().open(BAY, "1d6b:0104:CAM-0008", never)
    assert loops.is_free(rig.camera.node)


def test_a_bay_that_does_not_exist_is_refused(rig: Rig) -> None:
    with pytest.raises(DeviceRefusedError, match="no bay"):
        rig.actions().open("4", loops.CAMERA, never)


def test_a_disk_that_somebody_else_has_mounted_is_refused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "RELEASE_TIMEOUT_S", 0.2)
    fd = opened(rig)
    try:
        with pytest.raises(DeviceRefusedError, match="another program uses the disk"):
            opened(rig)
    finally:
        os.close(fd)
    os.close(opened(rig))


def test_a_disk_of_a_name_that_is_not_a_disk_is_refused(rig: Rig) -> None:
    device = rig.camera.device()
    disk = replace(device.disks[0], node=str(rig.camera.image))
    rig.camera.changes = {"disks": (disk,)}
    with pytest.raises(DeviceRefusedError, match="not a block device"):
        opened(rig)


def test_a_file_system_that_the_kernel_refuses_is_unreadable(rig: Rig) -> None:
    volume = replace(rig.camera.device().disks[0].volumes[0], type="xfs")
    disk = replace(rig.camera.device().disks[0], volumes=(volume,))
    rig.camera.changes = {"disks": (disk,)}
    rig.tables = {"file_system": {"allowed": ["xfs"]}}
    with pytest.raises(CameraUnreadableError, match="not mountable"):
        opened(rig)
    assert loops.is_free(rig.camera.node)


def test_nothing_stays_open_behind_a_request(rig: Rig) -> None:
    actions = rig.actions()
    os.close(actions.open(BAY, loops.CAMERA, never))
    before = open_fds()
    os.close(actions.open(BAY, loops.CAMERA, never))
    with pytest.raises(CameraGoneError):
        actions.open(BAY, "another", never)
    assert open_fds() == before


def test_a_partition_is_opened_and_the_whole_disk_write_blocked(tmp_path: Path) -> None:
    if (why := loops.why_not_here()) is not None:
        pytest.skip(why)
    camera = loops.LoopCamera(tmp_path / "camera.img", partitioned=True)
    camera.make(loops.CONTENTS)
    before = camera.content()
    with camera.plugged():
        fd = opened(Rig(tmp_path, camera))
        for node in (camera.node, camera.volume):
            with pytest.raises(PermissionError):
                loops.write_raw(node)
        assert read_all(fd) == loops.CONTENTS
    assert camera.content() == before
