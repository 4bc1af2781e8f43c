"""All that can go wrong around the daemon at once: uevents without end, udevd gone, killed and killed.

What must hold is the same each time: all footage arrives once, and nothing stays mounted.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.cameras import CameraImage, files_on, footage, make_camera
from tests.e2e.dock import Dock
from tests.e2e.guest_disk import mounted_file_systems

KILLS = 20
LONGEST_LIFE = 40
"""How many events a life may see at most: enough for some lives to end in a wipe."""
QUIET_S = 5.0
"""After so long without that many, there is nothing more to be seen."""
LEAST_UEVENTS = 500
_STORM = "while :; do udevadm trigger --action=change -s block -s usb; sleep 0.2; done"


def test_a_storm_of_uevents_and_a_restarted_udevd_disturb_no_visit(
    dock: Dock, tmp_path: Path
) -> None:
    """INV-2, INV-8: an event is a hint only: however many come, or none, visits take their course."""
    cameras = [_camera(dock, tmp_path, f"CAM110{number}", 3, 1_000_000) for number in (1, 2, 3)]
    since = dock.mark()

    with _uevent_storm(dock) as uevents:
        _plug(dock, cameras, 1_000_000)
        for camera in cameras:
            dock.wait_state("ingesting", since=since, camera=camera.camera_id)
        dock.machine.check("systemctl restart systemd-udevd")
        for camera in cameras:
            dock.wait_state("ready", since=since, camera=camera.camera_id)
        assert uevents() > LEAST_UEVENTS

    for camera in cameras:
        assert len(dock.seen("visit.started", since=since, camera=camera.camera_id)) == 1
    _require_all_arrived_once(dock, cameras)


@pytest.mark.timeout(900, func_only=True)
def test_a_daemon_killed_twenty_times_loses_nothing(dock: Dock, tmp_path: Path) -> None:
    """INV-3: any instant can be the last; the visits go on each time and end as ever."""
    # Many recordings, and of each camera another number: each life ends somewhere else in each visit.
    cameras = [_camera(dock, tmp_path, f"CAM111{tens}", 10 * tens, 100_000) for tens in (1, 2, 3)]
    lives = random.Random(0)
    _plug(dock, cameras, 500_000)

    for _ in range(KILLS):
        started = dock.mark()
        dock.machine.check("systemctl kill --signal=KILL dockd")
        dock.wait("daemon.started", since=started)
        _wait_events(dock, started, lives.randrange(LONGEST_LIFE))

    for camera in cameras:
        dock.wait_state("ready", since=started, camera=camera.camera_id, within_s=300)
    _require_all_arrived_once(dock, cameras)


def _camera(dock: Dock, folder: Path, serial: str, count: int, size_bytes: int) -> CameraImage:
    return make_camera(dock.machine, folder, serial, footage(serial, count, size_bytes))


def _wait_events(dock: Dock, since: int, count: int) -> None:
    """Wait until the daemon and its helper have logged so much, or have nothing more to say."""
    deadline_s = time.monotonic() + QUIET_S
    while sum(1 for _ in dock.machine.journal.events(since)) < count:
        if time.monotonic() > deadline_s:
            return
        time.sleep(0.05)


def _plug(dock: Dock, cameras: Sequence[CameraImage], bytes_per_s: int) -> None:
    for bay, camera in enumerate(cameras, start=1):
        dock.plug(camera, str(bay), bytes_per_s=bytes_per_s)


@contextmanager
def _uevent_storm(dock: Dock) -> Iterator[Callable[[], int]]:
    """Have uevents come without end; yield what counts them."""

    def number() -> int:
        return int(dock.machine.check("cat /sys/kernel/uevent_seqnum"))

    before = number()
    dock.machine.check(f"systemd-run --unit=e2e-storm sh -c '{_STORM}'")
    try:
        yield lambda: number() - before
    finally:
        dock.machine.check("systemctl stop e2e-storm && udevadm settle")


def _require_all_arrived_once(dock: Dock, cameras: Sequence[CameraImage]) -> None:
    for camera in cameras:
        assert dock.store.held(camera.camera_id) == camera.recordings
        assert dock.store.manifests(camera.camera_id) == 1
    assert mounted_file_systems(dock.machine) == 0
    dock.check_custody()
    dock.machine.unplug_all()
    for camera in cameras:
        assert files_on(dock.machine, camera) == {}
