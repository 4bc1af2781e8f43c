"""Opens cameras, such that nothing stays open that nobody wants any more."""

import asyncio
from collections.abc import Iterable

from dockd.core.interfaces import CameraSource, Volume
from dockd.core.model import Listing, Presence
from dockd.worker import Worker


async def open_volume(source: CameraSource, worker: Worker, presence: Presence) -> Volume:
    """Open the camera; cancelled, it is closed as soon as it has opened. Raises as ``open_camera``."""
    opened: list[Volume] = []
    try:
        await worker.start(lambda: opened.append(source.open_camera(presence)))
    except asyncio.CancelledError:
        worker.start(lambda: _close_all(opened))
        raise
    return opened[0]


def list_once(source: CameraSource, presence: Presence) -> Listing:
    """Open the camera, list it, and let go of it. Blocking. Raises as ``open_camera``."""
    volume = source.open_camera(presence)
    try:
        return volume.list_files()
    finally:
        volume.close()


def _close_all(volumes: Iterable[Volume]) -> None:
    for volume in volumes:
        volume.close()
