"""Cameras that are pulled out too early, whatever is being done to them; docked again, all is finished."""

from pathlib import Path

import pytest

from tests.e2e.cameras import FileSystem, files_on, folders_on, footage, make_camera
from tests.e2e.dock import Dock

BIG_BYTES = 8_000_000

REQUESTS_PER_S = 5
"""So slow a card takes seconds for the shortest way of erasing, and a minute for the longest."""

READ_FOR_SECONDS = 200_000
"""Bytes a second of a card that is still being read when it is made that slow."""


def test_pulled_while_it_is_read(dock: Dock, tmp_path: Path) -> None:
    """INV-3, INV-5: half a reading leaves nothing: no mount, no recording in the store, no bit changed."""
    recordings = footage("CAM0300", 2, 4_000_000)
    camera = make_camera(dock.machine, tmp_path, "CAM0300", recordings, file_system="vfat")
    untouched = camera.digest()
    since = dock.mark()
    plugged = dock.plug(camera, "1", bytes_per_s=500_000)
    dock.wait_state("ingesting", since=since)

    dock.machine.unplug(plugged)

    dock.wait_state("empty", since=since, cause="unplugged")
    summary = dock.wait("visit.finished", since=since)
    assert (summary["verdict"], summary["confirmed"], summary["pending"]) == ("interrupted", 0, 2)
    assert dock.mounts() == []
    assert camera.digest() == untouched

    again = dock.mark()
    plugged = dock.plug(camera, "1")
    dock.wait_state("ready", since=again)
    assert dock.store.held(camera.camera_id) == recordings
    dock.machine.unplug(plugged)
    assert files_on(dock.machine, camera) == {}


def test_pulled_while_it_is_sent(dock: Dock, tmp_path: Path) -> None:
    """INV-3: docked in another bay, sending goes on where it was; the first bytes are not sent again."""
    (big,) = footage("CAM0301", 1, BIG_BYTES).values()
    recordings = footage("CAM0301", 1, 300_000) | {b"DCIM/100MEDIA/MOV_0002.MP4": big}
    camera = make_camera(dock.machine, tmp_path, "CAM0301", recordings, file_system="exfat")
    earlier = dock.store.unfinished_bytes()
    since = dock.mark()
    plugged = dock.plug(camera, "1", bytes_per_s=1_500_000)
    dock.wait("recording.confirmed", since=since)
    dock.store.wait_unfinished(earlier + BIG_BYTES // 3)

    dock.machine.unplug(plugged)

    summary = dock.wait("visit.finished", since=since)
    assert (summary["verdict"], summary["confirmed"], summary["pending"]) == ("interrupted", 1, 1)
    dock.wait_state("empty", since=since, bay="1")
    arrived, sent = dock.store.unfinished_bytes() - earlier, dock.sent_bytes()

    again = dock.mark()
    plugged = dock.plug(camera, "2")
    dock.wait_state("ready", since=again, bay="2")
    assert dock.store.held(camera.camera_id) == recordings
    assert dock.sent_bytes() - sent < BIG_BYTES - arrived + 500_000
    dock.machine.unplug(plugged)
    assert files_on(dock.machine, camera) == {}


@pytest.mark.parametrize(
    ("serial", "file_system"),
    [("CAM0302", "vfat"), ("FORMAT0303", "exfat"), ("OVERWRITE0304", "vfat")],
    ids=["delete", "format", "overwrite"],
)
def test_pulled_while_it_is_erased(
    dock: Dock, tmp_path: Path, serial: str, file_system: FileSystem
) -> None:
    """INV-1, INV-3: what was permitted is finished at the next docking, whatever was left of the medium."""
    recordings = footage(serial, 2, 200_000)
    camera = make_camera(
        dock.machine, tmp_path, serial, recordings, file_system=file_system, size_mib=36
    )
    since = dock.mark()
    plugged = dock.plug(camera, "1", bytes_per_s=READ_FOR_SECONDS)
    dock.wait_state("ingesting", since=since)
    dock.machine.slow_down(plugged, REQUESTS_PER_S)
    dock.wait("helper.erasing", since=since, camera=camera.camera_id)

    dock.machine.unplug(plugged)

    dock.wait_state("empty", since=since, previous="wiping")
    summary = dock.wait("visit.finished", since=since)
    assert (summary["verdict"], summary["confirmed"], summary["erased"]) == ("interrupted", 2, 0)
    assert dock.seen("wipe.done", since=since, verified=True) == []

    again = dock.mark()
    plugged = dock.plug(camera, "1")
    dock.wait_state("ready", since=again, camera=camera.camera_id)
    assert dock.seen("bay.attention", since=since) == []
    assert dock.store.held(camera.camera_id) == recordings
    dock.check_custody()
    assert dock.mounts() == []
    dock.machine.unplug(plugged)
    assert files_on(dock.machine, camera) == {}
    assert {"DCIM", "DCIM/100MEDIA"} <= folders_on(dock.machine, camera)
