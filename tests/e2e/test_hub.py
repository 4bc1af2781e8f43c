"""A full dock: every bay of the hub has a camera, and all are plugged in at once."""

from collections.abc import Sequence
from pathlib import Path

from tests.e2e.cameras import CameraImage, FileSystem, files_on, footage, make_camera
from tests.e2e.dock import BAYS, Dock
from tests.e2e.journal import Entry

FILE_SYSTEMS: Sequence[FileSystem] = ("vfat", "exfat")


def test_eight_cameras_on_a_hub_at_once(dock: Dock, tmp_path: Path) -> None:
    """INV-1, INV-8: eight visits at the same time, each with its own camera's footage and no other's."""
    cameras = {bay: _camera(dock, tmp_path, bay) for bay in BAYS}
    since = dock.mark()

    plugged = [dock.plug(camera, bay) for bay, camera in cameras.items()]

    for bay, camera in cameras.items():
        dock.wait_state("ready", since=since, bay=bay, camera=camera.camera_id)
    states = dock.seen("bay.state", since=since)
    at_work = [entry["bay"] for entry in states[: _first(states, "ready")]]
    assert set(at_work) == set(BAYS), "the dock took one camera after the other"
    for bay, camera in cameras.items():
        [summary] = dock.seen("visit.finished", since=since, bay=bay, camera=camera.camera_id)
        assert summary["verdict"] == "wiped"
        assert summary["erased"] == len(camera.recordings)
        assert dock.store.held(camera.camera_id) == camera.recordings
    assert dock.seen("bay.attention", since=since) == []
    assert {bay: shown["state"] for bay, shown in dock.status().items()} == dict.fromkeys(
        BAYS, "ready"
    )
    assert dock.mounts() == []
    for name in plugged:
        dock.machine.unplug(name)
    for camera in cameras.values():
        assert files_on(dock.machine, camera) == {}


def _camera(dock: Dock, folder: Path, bay: str) -> CameraImage:
    serial = f"CAM020{bay}"
    file_system = FILE_SYSTEMS[int(bay) % 2]
    recordings = footage(serial, 2, 1_500_000)
    return make_camera(
        dock.machine, folder, serial, recordings, file_system=file_system, size_mib=40
    )


def _first(states: Sequence[Entry], state: str) -> int:
    return next(number for number, entry in enumerate(states) if entry["state"] == state)
