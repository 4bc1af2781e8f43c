"""Peak memory of the daemon with eight bays busy at once."""

from pathlib import Path

from tests.bench.footage import write_files
from tests.bench.processes import running_field

BAYS = tuple("12345678")
RECORDING_BYTES = 200 * 1000 * 1000
AIM_BYTES = 100 << 20

WITHIN_S = 100.0


def peak_memory_bytes(root: Path) -> tuple[int, int]:
    """Return the peak memory of ``dockd run`` before any camera is docked, and with all bays at work."""
    cameras = {bay: root / "cameras" / f"camera-{bay}" for bay in BAYS}
    for camera in cameras.values():
        write_files(camera, count=1, size_bytes=RECORDING_BYTES)
    with running_field(root, BAYS) as field:
        idle = field.dock.peak_memory_bytes()
        field.dock_cameras(cameras)
        field.wait_until_ready(BAYS, WITHIN_S)
        return idle, field.dock.peak_memory_bytes()
