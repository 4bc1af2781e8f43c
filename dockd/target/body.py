"""A request body streamed from an iterator, which notices a stalled network and saves late answers.

aiohttp's own iterator payload would do for the bytes. It cannot tell a slow camera from a slow
network, and it reports a failing camera as a broken connection.
"""

import asyncio
import fcntl
import http.client
import io
import socket
import termios
from array import array
from collections.abc import AsyncIterator, Callable, Mapping
from typing import cast

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_writer import StreamWriter
from multidict import CIMultiDict

from dockd.core.errors import SourceChangedError, TargetUnavailableError
from dockd.core.interfaces import UploadTurn
from dockd.target.tls import LateReadingObject

_WRITE_BYTES = 256 << 10
"""Largest single write: what the socket does not take at once is copied by the event loop."""

_LATE_ANSWER_BYTES = 64 << 10

_LOOKS = 8
"""How often, in the time that a network may stand still, to look whether it does."""


class StreamedBody(Payload):
    """Exactly ``length`` bytes from an iterator; memory use is one chunk, whatever the length.

    ``failure`` is what ended it early: the source's own error, or that the target took no byte in
    time. Waiting for its ``turn`` is no stall. Must be ended with :meth:`stop`, after the request.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        length: int,
        stall_timeout_s: float,
        turn: UploadTurn | None = None,
    ) -> None:
        super().__init__(chunks, content_type="application/offset+octet-stream")
        self.failure: Exception | None = None
        self.handed_over = 0
        self._chunks = chunks
        self._length = length
        self._stall_timeout_s = stall_timeout_s
        self._turn = turn
        self._transport: asyncio.WriteTransport | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        self._tls: LateReadingObject | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def size(self) -> int:
        """The Content-Length."""
        return self._length

    @property
    def complete(self) -> bool:
        """Whether every byte was handed to the network."""
        return self.handed_over == self._length

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse: the bytes pass by once."""
        raise TypeError("a streamed body cannot be decoded")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it; called by aiohttp."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Write all of it, in a task of aiohttp's own that is cancelled when an answer comes early."""
        self._idle.clear()
        try:
            await self._write_chunks(cast("StreamWriter", writer))
        finally:
            self._idle.set()
            if self._turn is not None:
                self._turn.rest()

    async def stop(self) -> None:
        """Wait until nothing reads from the iterator any more, and let go of the connection."""
        try:
            await self._idle.wait()
        finally:
            self._stop_watching()
            if self._socket is not None:
                self._socket.close()

    async def _write_chunks(self, writer: StreamWriter) -> None:
        transport = writer.transport
        if transport is not None:
            self._socket = transport.get_extra_info("socket").dup()
            self._tls = transport.get_extra_info("ssl_object")
            self._transport = transport
        while (chunk := await self._next_chunk()) is not None:
            view = memoryview(chunk)
            while view:
                size = await self._may_send(len(view))
                piece, view = view[:size], view[size:]
                await writer.write(piece, drain=False)
                self.handed_over += len(piece)
                if writer.protocol.writing_paused:
                    await self._drain(writer)
        # From here on aiohttp waits for the answer, and for so long at most.
        self._watch(lambda: cast("ResponseHandler", writer.protocol).start_timeout())

    async def _may_send(self, size: int) -> int:
        if self._turn is None:
            return min(size, _WRITE_BYTES)
        try:
            return await self._turn.take(size)
        except Exception as error:
            self.failure = error
            raise

    async def _next_chunk(self) -> bytes | None:
        if self._turn is not None:
            self._turn.rest()
        try:
            chunk = await anext(self._chunks, None)
        except Exception as error:
            self.failure = error
            raise
        given = self.handed_over + len(chunk or b"")
        if given > self._length or (chunk is None and given < self._length):
            self.failure = SourceChangedError(f"the source gave {given} bytes, not {self._length}")
            raise self.failure
        return chunk

    async def _drain(self, writer: StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._stall_timeout_s) as deadline:
                self._watch(lambda: deadline.reschedule(loop.time() + self._stall_timeout_s))
                await writer.drain()
        except TimeoutError:
            self.failure = TargetUnavailableError(
                f"the target took no byte for {self._stall_timeout_s:g} seconds"
            )
            raise self.failure from None
        finally:
            self._stop_watching()

    def _watch(self, renew: Callable[[], None], left: int | None = None) -> None:
        """Call ``renew`` as long as bytes leave this machine: its kernel takes more at once than a slow
        network does in the time that it may stand still.
        """
        now_left = self._unsent_bytes()
        if left is not None and now_left < left:
            renew()
        if now_left > 0:
            self._watching = asyncio.get_running_loop().call_later(
                self._stall_timeout_s / _LOOKS, self._watch, renew, now_left
            )

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def _unsent_bytes(self) -> int:
        """Return how many of the bytes that were handed over have not arrived at the other side."""
        if self._transport is None or self._socket is None:
            return 0
        queued = array("i", [0])
        fcntl.ioctl(self._socket, termios.TIOCOUTQ, queued)  # SIOCOUTQ (tcp(7))
        return queued[0] + self._transport.get_write_buffer_size()

    def late_refusal(self) -> tuple[int, str, Mapping[str, str], str] | None:
        """Return status, reason, headers and text of a refusal that came as the connection broke.

        A server that refuses early (507, say) and closes resets the connection under bytes that are
        still on their way. Writing then fails although the answer lies in the socket, unread, and
        stays there for this second descriptor of it. Raises SSLError when it is an alert of TLS.
        """
        if self._socket is None:
            return None
        try:
            raw = self._socket.recv(_LATE_ANSWER_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            return None
        if self._tls is not None:
            raw = self._tls.read_late(raw)
        if b"\r\n\r\n" not in raw:
            return None
        response = http.client.HTTPResponse(cast("socket.socket", _Buffered(raw)))
        try:
            response.begin()
            text = response.read()
        except http.client.IncompleteRead as error:
            text = error.partial
        except http.client.HTTPException:
            return None
        if response.status < 400:
            return None
        headers = CIMultiDict(response.headers.items())
        return response.status, response.reason, headers, text.decode(errors="replace")


class _Buffered:
    """What http.client needs of a socket, over bytes that were received already."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> io.BytesIO:
        del mode
        return io.BytesIO(self._raw)
