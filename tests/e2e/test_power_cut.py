"""The dock's power fails at the worst moments. When it is back, all is finished without anybody's help."""

from collections.abc import Sequence
from pathlib import Path

from tests.e2e.cameras import CameraImage, FileSystem, files_on, folders_on, footage, make_camera
from tests.e2e.dock import BAYS, Dock

REQUESTS_PER_S = 5
"""So slow a card takes seconds for the shortest way of erasing, and a minute for the longest."""

READ_FOR_SECONDS = 200_000
"""Bytes a second of a card that is still being read when it is made that slow."""


def test_power_cut_with_cameras_at_every_stage_of_their_visits(dock: Dock, tmp_path: Path) -> None:
    """INV-3: nothing is lost, nothing sent twice, and a camera docked in the dark is taken in as well."""
    finished, sending, opening, late = cameras = [
        _camera(dock, tmp_path, f"CAM040{number}", size_bytes)
        for number, size_bytes in enumerate((200_000, 6_000_000, 1_500_000, 400_000))
    ]
    since = dock.mark()
    dock.plug(finished, "1")
    dock.wait_state("ready", since=since, bay="1")
    dock.plug(sending, "2", bytes_per_s=1_500_000)
    dock.store.wait_unfinished(2_000_000)
    dock.plug(opening, "3", bytes_per_s=500_000)
    dock.wait_state("opening", since=since, bay="3")

    dock.machine.cut_power()
    again = dock.mark()
    dock.machine.switch_on()
    _plug_all(dock, cameras)
    dock.machine.wait_booted()

    _wait_ready(dock, cameras, again)
    assert _verdicts(dock, finished, again) == ["empty"]
    assert _verdicts(dock, sending, again) == ["interrupted", "wiped"]
    assert _verdicts(dock, opening, again) == ["interrupted", "wiped"]
    assert _verdicts(dock, late, again) == ["wiped"]
    _check_all_is_well(dock, cameras, again)


def test_power_cuts_in_every_kind_of_wipe(dock: Dock, tmp_path: Path) -> None:
    """INV-1, INV-3: begun erasings are finished, also when the power fails again while that is done."""
    deleted, formatted, overwritten = cameras = [
        _camera(dock, tmp_path, "CAM0410", 200_000, file_system="vfat", size_mib=36),
        _camera(dock, tmp_path, "FORMAT0411", 200_000, size_mib=8),
        _camera(dock, tmp_path, "OVERWRITE0412", 200_000, size_mib=8),
    ]
    since = dock.mark()
    # In this order, because the methods take the longer the later they come above.
    for bay, camera in (("3", overwritten), ("2", formatted), ("1", deleted)):
        plugged = dock.plug(camera, bay, bytes_per_s=READ_FOR_SECONDS)
        dock.wait_state("ingesting", since=since, bay=bay)
        dock.machine.slow_down(plugged, REQUESTS_PER_S)
        dock.wait("helper.erasing", since=since, bay=bay)
    assert dock.seen("helper.wiped", since=since) == []

    dock.machine.cut_power()
    again = dock.mark()
    dock.machine.switch_on()
    dock.plug(overwritten, "3", bytes_per_s=1_000_000)
    dock.machine.wait_booted()
    dock.wait("helper.erasing", since=again, bay="3", resumed=True)

    dock.machine.cut_power()
    assert dock.seen("helper.wiped", since=again) == []
    again = dock.mark()
    dock.machine.switch_on()
    _plug_all(dock, cameras)
    dock.machine.wait_booted()

    _wait_ready(dock, cameras, again)
    for camera in (formatted, overwritten):
        dock.wait("wipe.done", since=again, camera=camera.camera_id, resumed=True, verified=True)
        assert _verdicts(dock, camera, again)[-1] == "wiped"
    _check_all_is_well(dock, cameras, again)


def _camera(
    dock: Dock,
    folder: Path,
    serial: str,
    size_bytes: int,
    *,
    file_system: FileSystem = "exfat",
    size_mib: int = 16,
) -> CameraImage:
    recordings = footage(serial, 2, size_bytes)
    return make_camera(
        dock.machine, folder, serial, recordings, file_system=file_system, size_mib=size_mib
    )


def _plug_all(dock: Dock, cameras: Sequence[CameraImage]) -> None:
    for bay, camera in zip(BAYS, cameras, strict=False):
        dock.plug(camera, bay)


def _wait_ready(dock: Dock, cameras: Sequence[CameraImage], since: int) -> None:
    for bay, camera in zip(BAYS, cameras, strict=False):
        dock.wait_state("ready", since=since, bay=bay, camera=camera.camera_id)


def _verdicts(dock: Dock, camera: CameraImage, since: int) -> list[str]:
    finished = dock.seen("visit.finished", since=since, camera=camera.camera_id)
    return [summary["verdict"] for summary in finished]


def _check_all_is_well(dock: Dock, cameras: Sequence[CameraImage], since: int) -> None:
    assert dock.seen("bay.attention", since=since) == []
    for camera in cameras:
        assert dock.store.held(camera.camera_id) == camera.recordings
    dock.check_custody()
    assert dock.mounts() == []
    dock.machine.unplug_all()
    for camera in cameras:
        assert files_on(dock.machine, camera) == {}
        assert {"DCIM", "DCIM/100MEDIA"} <= folders_on(dock.machine, camera)
