"""What a dock is for: cameras are docked, and their footage arrives, is proved, and is erased."""

from pathlib import Path

from tests.e2e.cameras import files_on, folders_on, footage, make_camera
from tests.e2e.dock import Dock


def test_one_camera_goes_from_docked_to_ready(dock: Dock, tmp_path: Path) -> None:
    """INV-1: the store's bytes are the camera's before anything is erased."""
    recordings = footage("CAM0100", 3, 5_000_000) | {"Straße/émpty.mp4".encode(): b""}
    camera = make_camera(dock.machine, tmp_path, "CAM0100", recordings)
    since = dock.mark()

    plugged = dock.plug(camera, "1")

    dock.wait_state("ready", since=since, camera=camera.camera_id)
    summary = dock.wait("visit.finished", since=since, camera=camera.camera_id)
    assert summary["verdict"] == "wiped"
    assert (summary["recordings"], summary["confirmed"], summary["erased"]) == (4, 4, 4)
    assert dock.store.held(camera.camera_id) == recordings
    assert dock.mounts() == []
    dock.machine.unplug(plugged)
    assert files_on(dock.machine, camera) == {}
    assert {"DCIM", "DCIM/100MEDIA"} <= folders_on(dock.machine, camera)
