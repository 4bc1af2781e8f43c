"""A recording in memory, as the uploader sees it, that can fail at any byte."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from dockd.core.errors import CameraError
from dockd.core.model import UploadKind, UploadSpec


def spec_of(data: bytes, *, key: str = "key-1", path: bytes = b"DCIM/MOV_0001.MP4") -> UploadSpec:
    """Return what a dock would announce for a recording with this content."""
    return UploadSpec(
        key=key,
        kind=UploadKind.RECORDING,
        path=path,
        size_bytes=len(data),
        mtime_ns=1_700_000_000_000_000_000,
        dock="dock-1",
        camera="camera-1",
        visit="visit-1",
        custody_head="0" * 64,
    )


class MemorySource:
    """An ``UploadSource`` over bytes. From byte ``fail_at`` on every read raises ``error``."""

    def __init__(
        self,
        data: bytes,
        *,
        chunk_bytes: int = 1000,
        fail_at: int | None = None,
        error: CameraError | None = None,
    ) -> None:
        self.size_bytes = len(data)
        self.position = 0
        self.readers = 0
        self._data = data
        self._chunk_bytes = chunk_bytes
        self._fail_at = fail_at
        self._error = error

    async def seek(self, offset: int) -> None:
        """Go to ``offset``, suspending as a real source does."""
        await asyncio.sleep(0)
        self.position = offset

    async def chunks(self, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes up to ``end``. ``readers`` counts the iterators that are open."""
        self.readers += 1
        try:
            while self.position < end:
                await asyncio.sleep(0)
                stop = min(end, self.position + self._chunk_bytes)
                if self._error is not None and self._fail_at is not None and stop > self._fail_at:
                    raise self._error
                begin, self.position = self.position, stop
                yield self._data[begin:stop]
        finally:
            self.readers -= 1

    def sha256(self) -> bytes:
        """Return the digest up to the position."""
        return hashlib.sha256(self._data[: self.position]).digest()
