"""Files that look like footage to the dock: no two alike, and long since written."""

import os
from pathlib import Path

_BLOCK_BYTES = 1 << 20
_LONG_AGO_S = 1_700_000_000
"""Modification time of all files, so that none counts as still being written."""


def write_files(camera: Path, *, count: int, size_bytes: int) -> None:
    """Fill a camera's directory. Each file repeats a random block of its own."""
    camera.mkdir(parents=True)
    for number in range(count):
        path = camera / f"CLIP{number:05}.MP4"
        block = os.urandom(min(size_bytes, _BLOCK_BYTES))
        with path.open("wb") as file:
            for written in range(0, size_bytes, len(block)):
                file.write(block[: size_bytes - written])
        os.utime(path, (_LONG_AGO_S, _LONG_AGO_S))
