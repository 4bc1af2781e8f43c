"""The dock's side of one upload, in a process of its own: the very parts that the daemon sends with.

``python -m tests.bench.sender FILE URL [CA]`` prints the seconds taken and the CPU seconds used, as JSON.
What the interpreter needs to start is not in them: the daemon has started long before.
"""

import asyncio
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

from dockd.cameras.directory import DirectoryVolume, ListingLimits
from dockd.core.model import Recording, UploadKind, UploadSpec
from dockd.reader import RecordingReader
from dockd.target.connection import Connection
from dockd.target.tus import TusTarget
from dockd.target.uploader import Uploader
from dockd.worker import BayThread


async def send(file: Path, url: str, ca: Path | None) -> None:
    """Send one recording as a bay does."""
    volume = DirectoryVolume(os.open(file.parent, os.O_DIRECTORY), ListingLimits(), "camera")
    worker = BayThread("bay")
    try:
        path, stat = os.fsencode(file.name), file.stat()
        recording = Recording("visit", path, stat.st_size, stat.st_mtime_ns)
        spec = UploadSpec(
            key="key",
            kind=UploadKind.RECORDING,
            path=path,
            size_bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            dock="dock",
            camera="camera",
            visit="visit",
            custody_head="0" * 64,
        )
        reader = RecordingReader(volume, worker, recording)
        async with TusTarget(url, connection=Connection(ca_file=ca)) as target:
            await Uploader(target, rng=random.SystemRandom()).send(
                spec, reader, url=None, on_created=_created, on_progress=lambda _: None
            )
        await reader.check_unchanged()
        reader.close()
    finally:
        worker.close()
        volume.close()


async def _created(_url: str) -> None:
    """Where the daemon writes to its journal."""


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(file: str, url: str, ca: str | None = None) -> None:
    """Send, and print what it took."""
    cpu_s, began_s = _cpu_s(), time.monotonic()
    asyncio.run(send(Path(file), url, Path(ca) if ca is not None else None))
    took_s = time.monotonic() - began_s
    took = {"seconds": took_s, "cpu_seconds": _cpu_s() - cpu_s}
    sys.stdout.write(json.dumps(took) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
