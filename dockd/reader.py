"""One recording, read once: the same bytes feed the digest, the container check and the upload."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from dockd.core.errors import SourceChangedError
from dockd.core.interfaces import OpenFile, Volume
from dockd.core.model import Container, FileStat, Recording, display_name
from dockd.evidence.container import ContainerCheck
from dockd.worker import Worker

CHUNK_BYTES = 512 << 10
"""Bytes read at a time: large enough for the card and the hash, small enough to hold several."""

CHUNKS_AHEAD = 3
"""Reads that wait for the one at hand, so that the thread need not wait for the event loop."""

CHECKPOINT_BYTES = 64 << 20
"""Distance of the points from which reading can go on after a break without starting at zero."""


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> "_Hash": ...


@dataclass(slots=True)
class _Running:
    """What is known of the bytes before ``position``."""

    position: int
    sha256: _Hash
    md5: _Hash | None
    container: ContainerCheck

    def feed(self, chunk: bytes) -> None:
        self.sha256.update(chunk)
        if self.md5 is not None:
            self.md5.update(chunk)
        self.container.feed(chunk)
        self.position += len(chunk)

    def snapshot(self) -> "_Running":
        md5 = self.md5.copy() if self.md5 is not None else None
        return _Running(self.position, self.sha256.copy(), md5, copy(self.container))


class RecordingReader:
    """A recording of a camera as an ``UploadSource``, in the bay's own thread.

    Position and digests change only in that thread, together, so a reader that is cancelled at any
    point still knows exactly which bytes its digest covers.
    """

    def __init__(
        self, volume: Volume, worker: Worker, recording: Recording, *, with_md5: bool = False
    ) -> None:
        """Build for a recording whose size and time are those of the listing."""
        self.size_bytes = recording.size_bytes
        self._recording = recording
        self._volume = volume
        self._worker = worker
        md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None
        self._running = _Running(0, hashlib.sha256(), md5, ContainerCheck())
        self._checkpoints = [self._running.snapshot()]
        self._file: OpenFile | None = None
        self._stat: FileStat | None = None

    @property
    def position(self) -> int:
        """Bytes covered by the digest."""
        return self._running.position

    async def seek(self, offset: int) -> None:
        """Make the digest cover exactly the bytes up to ``offset``, reading again where needed."""
        await self._worker.start(lambda: self._rewind(offset))
        while self.position < offset:
            size = min(CHUNK_BYTES, offset - self.position)
            await self._worker.start(partial(self._read, size))

    async def chunks(self, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from the position to ``end``, reading ahead."""
        begun = self.position
        ahead: deque[asyncio.Future[bytes]] = deque()
        try:
            while ahead or begun < end:
                while begun < end and len(ahead) < CHUNKS_AHEAD:
                    size = min(CHUNK_BYTES, end - begun)
                    reading = self._worker.start(partial(self._read, size))
                    # After an error nobody asks for the others.
                    reading.add_done_callback(_take_note)
                    ahead.append(reading)
                    begun += size
                yield await ahead.popleft()
        finally:
            for reading in ahead:
                reading.cancel()

    def sha256(self) -> bytes:
        """Return the digest of all bytes up to the position."""
        return self._running.sha256.digest()

    def md5_hex(self) -> str | None:
        """Return the MD5 of all bytes up to the position, when it was asked for."""
        return self._running.md5.hexdigest() if self._running.md5 is not None else None

    def container(self) -> Container:
        """Return what the structure of the bytes read says of them."""
        return self._running.container.finish(self.size_bytes)

    async def check_unchanged(self) -> None:
        """Raise SourceChangedError unless the file is still what it was when it was opened."""
        await self._worker.start(self._check_unchanged)

    def close(self) -> None:
        """Let go of the file, after any read that is still under way; does not wait for it."""
        self._worker.start(self._close)

    def _opened(self) -> OpenFile:
        if self._file is None:
            self._file = self._volume.open_file(self._recording.path)
            self._stat = self._file.stat()
            self._require_as_listed(self._stat)
        return self._file

    def _require_as_listed(self, stat: FileStat) -> None:
        listed = (self._recording.size_bytes, self._recording.mtime_ns)
        if (stat.size_bytes, stat.mtime_ns) != listed:
            raise SourceChangedError(f"{self._name()} is not as it was listed")

    def _read(self, size: int) -> bytes:
        file = self._opened()
        chunk = file.read(size)
        while len(chunk) < size:
            more = file.read(size - len(chunk))
            if not more:
                raise SourceChangedError(f"{self._name()} ended before its {self.size_bytes} bytes")
            chunk += more
        self._running.feed(chunk)
        if self.position - self._checkpoints[-1].position >= CHECKPOINT_BYTES:
            self._checkpoints.append(self._running.snapshot())
        return chunk

    def _rewind(self, offset: int) -> None:
        if offset >= self.position:
            return
        while self._checkpoints[-1].position > offset:
            self._checkpoints.pop()
        self._running = self._checkpoints[-1].snapshot()
        self._opened().seek(self.position)

    def _check_unchanged(self) -> None:
        if self._opened().stat() != self._stat:
            raise SourceChangedError(f"{self._name()} changed while it was read")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _name(self) -> str:
        return display_name(self._recording.path)


def _take_note(reading: "asyncio.Future[bytes]") -> None:
    if not reading.cancelled():
        reading.exception()


class BytesSource:
    """Bytes in memory as an ``UploadSource``: the manifest goes the way of a recording."""

    def __init__(self, data: bytes) -> None:
        """Build over the whole content."""
        self.size_bytes = len(data)
        self.position = 0
        self._data = data

    async def seek(self, offset: int) -> None:
        """Go to ``offset``."""
        self.position = offset

    async def chunks(self, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes up to ``end``."""
        while self.position < end:
            begin = self.position
            self.position = min(end, begin + CHUNK_BYTES)
            yield self._data[begin : self.position]

    def sha256(self) -> bytes:
        """Return the digest of all bytes up to the position."""
        return hashlib.sha256(self._data[: self.position]).digest()
