"""Takes the bytes of a request's body to disk: in large pieces, in threads, in constant memory.

While one piece is being written the next one is collected. Whatever ends the body early (a cut
connection, a client that stands still, the store's own shutdown), what has arrived is kept.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace

from aiohttp import StreamReader, web

from dockd.core.errors import StoreError
from dockd.store.headers import CHECKSUM_MISMATCH, RequestRefusedError
from dockd.store.settings import StoreSettings
from dockd.store.threads import Threads, outcome
from dockd.store.uploads import (
    Arrived,
    ChunkChecksumError,
    UnfinishedUploads,
    UploadWriter,
    is_full,
)

PIECE_BYTES = 2 * 1024 * 1024
NETWORK_BUFFER_BYTES = 512 * 1024
BUSY_RETRY_S = 2
FULL_RETRY_S = 30


class ConnectionGoneError(StoreError):
    """The client is no longer there to be answered."""

    advice = "Nothing to do: the client asks for the offset and goes on."


class Receiving:
    """Who is sending what at the moment. At most one request writes to an upload."""

    def __init__(
        self, uploads: UnfinishedUploads, threads: Threads, settings: StoreSettings
    ) -> None:
        """Build with nothing under way."""
        self._uploads = uploads
        self._threads = threads
        self._settings = settings
        self._locked: set[str] = set()
        self._writers: dict[str, UploadWriter] = {}
        self._bodies: set[_Body] = set()
        self._stopping = False

    @contextlib.contextmanager
    def lock(self, upload_id: str) -> Iterator[None]:
        """Keep other requests from changing an upload; 423 when one is at it."""
        if upload_id in self._locked:
            raise RequestRefusedError(423, "another request is sending to this upload")
        self._locked.add(upload_id)
        try:
            yield
        finally:
            self._locked.discard(upload_id)

    def stop(self) -> None:
        """End every body under way; what has arrived is kept and the clients are told 503."""
        self._stopping = True
        for body in self._bodies:
            body.stop()

    async def arrived(self, upload_id: str) -> Arrived:
        """Return how much of an upload is here, and would be here still after a power cut now."""
        return await self._threads.run(self._sync, upload_id)

    async def receive(
        self,
        request: web.BaseRequest,
        upload_id: str,
        *,
        offset: int,
        end: int,
        sha256: bytes | None,
    ) -> int:
        """Append the request's body to an upload whose lock the caller holds; return the new offset.

        ``end`` is the upload's length. ``sha256`` is the checksum of this body. When this returns the
        new offset may be promised. Raises RequestRefusedError, and ConnectionGoneError when nobody is
        left to be told.
        """
        if len(self._bodies) >= self._settings.bodies_at_once:
            raise RequestRefusedError(503, "too many uploads at once", retry_after_s=BUSY_RETRY_S)
        writer = UploadWriter(self._uploads, upload_id, offset=offset, sha256=sha256)
        body = _Body(request.content, end - offset, self._settings.stall_timeout_s)
        self._bodies.add(body)
        self._writers[upload_id] = writer
        if self._stopping:
            body.stop()
        try:
            return await self._write(body, writer)
        except ChunkChecksumError as error:
            raise RequestRefusedError(CHECKSUM_MISMATCH, str(error)) from error
        except OSError as error:
            if is_full(error):
                raise RequestRefusedError(
                    507, "the store's disk is full", retry_after_s=FULL_RETRY_S
                ) from error
            raise
        finally:
            self._bodies.discard(body)
            del self._writers[upload_id]

    async def _write(self, body: "_Body", writer: UploadWriter) -> int:
        """Write the body piece by piece; whatever ends it early, sync what has arrived."""
        fault: Exception | None = None
        writing: asyncio.Future[None] | None = None
        try:
            try:
                while not await body.fill():
                    if writing is not None:
                        await outcome(writing)
                    writing = self._threads.start(writer.write, body.take())
                if writing is not None:
                    await outcome(writing)
            except (RequestRefusedError, ConnectionGoneError, OSError) as error:
                fault = error
            last = [] if isinstance(fault, OSError) else body.take()
            offset = await self._threads.run(writer.finish, last, whole=fault is None)
        finally:
            # Only a cancellation leaves the writer open here.
            if not writer.finished:
                with contextlib.suppress(OSError):
                    await self._threads.run(writer.finish, [], whole=False)
            if writing is not None:
                with contextlib.suppress(OSError):
                    await outcome(writing)
        if fault is not None:
            raise fault
        return offset

    def _sync(self, upload_id: str) -> Arrived:
        writer = self._writers.get(upload_id)
        offset = writer.sync() if writer is not None else None
        arrived = self._uploads.arrived(upload_id)
        self._uploads.sync_entries()
        return arrived if offset is None else replace(arrived, size_bytes=offset)


class _Body:
    """The body of one request, as lists of the buffers that came from the network: nothing is copied."""

    def __init__(self, content: StreamReader, room_bytes: int, stall_timeout_s: float) -> None:
        self._content = content
        self._room_bytes = room_bytes
        self._stall_timeout_s = stall_timeout_s
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._deadline: asyncio.Timeout | None = None
        self._stopped = False
        content.set_read_chunk_size(NETWORK_BUFFER_BYTES)

    def stop(self) -> None:
        """Let :meth:`fill` fail now."""
        self._stopped = True
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time())

    def take(self) -> list[bytes]:
        """Return what was collected, and forget it."""
        pieces, self._pieces, self._size_bytes = self._pieces, [], 0
        return pieces

    async def fill(self) -> bool:
        """Collect a piece's worth of bytes; return whether the body has ended.

        After an error, too, :meth:`take` returns what came before it.
        """
        if self._stopped:
            raise _shutting_down()
        try:
            async with asyncio.timeout(self._stall_timeout_s) as self._deadline:
                return await self._collect(self._deadline)
        except TimeoutError:
            if self._stopped:
                raise _shutting_down() from None
            raise RequestRefusedError(408, "the body stood still for too long") from None
        except web.RequestPayloadError as error:
            raise RequestRefusedError(400, f"the body is not well formed: {error}") from error
        except OSError as error:
            raise ConnectionGoneError(f"the connection broke: {error}") from error
        finally:
            self._deadline = None

    async def _collect(self, deadline: asyncio.Timeout) -> bool:
        loop = asyncio.get_running_loop()
        while self._size_bytes < PIECE_BYTES:
            chunk, _ = await self._content.readchunk()
            if not chunk and self._content.at_eof():
                return True
            if not self._stopped:
                deadline.reschedule(loop.time() + self._stall_timeout_s)
            if len(chunk) > self._room_bytes:
                self._add(chunk[: self._room_bytes])
                raise RequestRefusedError(413, "the body goes beyond Upload-Length")
            self._add(chunk)
        return False

    def _add(self, chunk: bytes) -> None:
        self._pieces.append(chunk)
        self._size_bytes += len(chunk)
        self._room_bytes -= len(chunk)


def _shutting_down() -> RequestRefusedError:
    return RequestRefusedError(503, "the store is shutting down", retry_after_s=BUSY_RETRY_S)
