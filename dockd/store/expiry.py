"""Ends unfinished uploads: those that a client terminates, and those for which nothing came for long.

A complete upload is footage, and is never dropped here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dockd.core.model import display_name
from dockd.ops import events
from dockd.store.catalogue import Catalogue, Upload, UploadState
from dockd.store.headers import RequestRefusedError
from dockd.store.receiving import Receiving
from dockd.store.settings import StoreSettings
from dockd.store.threads import Threads
from dockd.store.uploads import Arrived, UnfinishedUploads


@dataclass(frozen=True, slots=True)
class Expiry:
    """Knows when an unfinished upload's time is over, and drops it."""

    catalogue: Catalogue
    uploads: UnfinishedUploads
    receiving: Receiving
    threads: Threads
    settings: StoreSettings
    now: Callable[[], datetime]

    def expires_at(self, upload: Upload, arrived: Arrived) -> datetime:
        """Return when an upload's time is over if nothing more comes."""
        return (arrived.last_at or upload.created_at) + self.settings.expire_after

    def is_due(self, upload: Upload, arrived: Arrived) -> bool:
        """Whether an upload has expired."""
        unfinished = arrived.size_bytes < upload.size_bytes
        return unfinished and self.expires_at(upload, arrived) <= self.now()

    async def drop(self, upload: Upload, state: UploadState) -> bool:
        """End an upload whose lock the caller holds: first in the catalogue, then on disk.

        Returns whether it was unfinished still; otherwise nothing is done.
        """
        ended = await self.catalogue.end(upload.upload_id, state, self.now())
        if ended:
            await self.threads.run(self.uploads.discard, upload.upload_id)
        return ended

    async def drop_if_due(self, upload: Upload) -> bool:
        """Drop an upload if it has expired and nobody sends to it; return whether it was dropped."""
        if not self.is_due(upload, await self.receiving.arrived(upload.upload_id)):
            return False  # not even locked, so that a dock that sends to it is not turned away
        try:
            with self.receiving.lock(upload.upload_id):
                arrived = await self.receiving.arrived(upload.upload_id)
                due = self.is_due(upload, arrived)
                if not (due and await self.drop(upload, UploadState.EXPIRED)):
                    return False
        except RequestRefusedError:
            return False  # locked: somebody sends to it
        events.STORE_EXPIRED.log(
            upload=upload.upload_id,
            dock=upload.dock,
            camera=upload.camera,
            recording=display_name(upload.path),
            offset_bytes=arrived.size_bytes,
            size_bytes=upload.size_bytes,
        )
        return True

    async def sweep(self) -> None:
        """Drop every upload that has expired."""
        for upload in await self.catalogue.receiving():
            await self.drop_if_due(upload)
