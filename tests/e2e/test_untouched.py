"""Where cameras are not to be erased, a visit leaves no trace on them."""

from pathlib import Path

from tests.e2e.cameras import FileSystem, footage, make_camera
from tests.e2e.dock import Dock

MEDIA: tuple[tuple[str, FileSystem, bool], ...] = (
    ("CAM0701", "vfat", False),
    ("CAM0702", "vfat", True),
    ("CAM0703", "exfat", False),
    ("CAM0704", "exfat", True),
)
"""Serial number, file system, and whether the camera went off without unmounting it."""


def test_a_full_visit_leaves_every_bit_of_a_camera_as_it_was(dock: Dock, tmp_path: Path) -> None:
    """INV-1, INV-5: all is copied and proved; nothing mends, mounts writable or stamps the medium."""
    dock.configure(wipe="never")
    cameras = []
    for serial, file_system, dirty in MEDIA:
        recordings = footage(serial, 2, 1_000_000)
        camera = make_camera(dock.machine, tmp_path, serial, recordings, file_system=file_system)
        if dirty:
            camera.mark_dirty()
        cameras.append(camera)
    before = {camera.serial: camera.digest() for camera in cameras}
    since = dock.mark()

    plugged = [dock.plug(camera, str(bay)) for bay, camera in enumerate(cameras, start=1)]

    for camera in cameras:
        summary = dock.wait("visit.finished", since=since, camera=camera.camera_id)
        assert summary["verdict"] == "kept"
        assert (summary["recordings"], summary["confirmed"], summary["erased"]) == (2, 2, 0)
        dock.wait_state("ready", since=since, camera=camera.camera_id)
        assert dock.store.held(camera.camera_id) == camera.recordings
        assert dock.store.manifests(camera.camera_id) == 1
    for name in plugged:
        dock.machine.unplug(name)
    assert {camera.serial: camera.digest() for camera in cameras} == before
