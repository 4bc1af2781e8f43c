"""Many small files, from the moment the camera is docked until the bay is ready."""

import os
import time
from pathlib import Path

from tests.bench.footage import write_files
from tests.bench.processes import running_field

FILES = 2000
FILE_BYTES = 20_000
WITHIN_S = 100.0


def through_dock_and_store(root: Path) -> float:
    """Return the seconds that it takes real daemons: receipts, manifest and journals included."""
    camera = root / "cameras" / "camera-1"
    write_files(camera, count=FILES, size_bytes=FILE_BYTES)
    with running_field(root, ["1"]) as field:
        began_s = field.dock_cameras({"1": camera})
        return field.wait_until_ready(["1"], WITHIN_S) - began_s


def onto_the_disk(root: Path) -> float:
    """Return the seconds that the disk alone takes: each file is created, written and synced in turn."""
    root.mkdir(parents=True)
    content = os.urandom(FILE_BYTES)
    began_s = time.monotonic()
    for number in range(FILES):
        descriptor = os.open(root / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return time.monotonic() - began_s
