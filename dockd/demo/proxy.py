"""The network between dock and store: a TCP proxy on loopback with a limited rate and a cut to make."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from time import monotonic
from types import TracebackType
from typing import Self

_BLOCK_BYTES = 64 * 1024
_BUFFER_BYTES = 64 * 1024
_SEGMENT_BYTES = 1448
"""TCP payload of an Ethernet frame. With loopback's 64 kB the kernel would buffer megabytes, and the
sender believe that they had arrived."""
_CONNECTIONS = 128
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST, and nothing else


class Pace:
    """Spreads bytes over time, at most ``rate_bytes_s`` in all."""

    def __init__(self, rate_bytes_s: float) -> None:
        """Build with the rate."""
        self._rate_bytes_s = rate_bytes_s
        self._free_at_s = 0.0

    def reserve(self, size_bytes: int, now_s: float) -> float:
        """Take a turn for so many bytes; return how many seconds from now it comes."""
        begin_s = max(self._free_at_s, now_s)
        self._free_at_s = begin_s + size_bytes / self._rate_bytes_s
        return begin_s - now_s


class Proxy:
    """Passes connections on to a port of this machine; what clients send goes at a limited rate."""

    def __init__(self, upstream_port: int, rate_bytes_s: float) -> None:
        """Build; it listens once it is entered."""
        self._upstream_port = upstream_port
        self._pace = Pace(rate_bytes_s)
        self._server: asyncio.Server | None = None
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.carried_bytes = 0
        """Bytes that clients have sent through it."""

    async def __aenter__(self) -> Self:
        """Listen on a free port of the loopback address."""
        listening = socket.socket()
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        listening.bind(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self._server = await asyncio.start_server(
            self._accept, sock=listening, limit=_BLOCK_BYTES, backlog=_CONNECTIONS
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Break all connections and stop listening."""
        self.cut()
        if self._server is not None:
            self._server.close()
        if self._connections:
            await asyncio.wait(self._connections)

    def cut(self) -> None:
        """Break every connection, and every new one until :meth:`restore`."""
        self._is_cut = True
        for writer in self._writers:
            _reset(writer)

    def restore(self) -> None:
        """Let new connections through again."""
        self._is_cut = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served by a task")
        self._connections.add(task)
        try:
            async with self._closing(writer):
                if self._is_cut or len(self._connections) > _CONNECTIONS:
                    _reset(writer)
                    return
                await self._connect(reader, writer)
        except OSError:
            _reset(writer)
        finally:
            self._connections.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(
            "127.0.0.1", self._upstream_port, limit=_BLOCK_BYTES
        )
        async with self._closing(requests):
            if self._is_cut:
                return
            there = asyncio.create_task(self._send(reader, requests))
            back = asyncio.create_task(_copy(answers, writer))
            try:
                # Either end may close first; the connection is over for both.
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                there.cancel()
                back.cancel()
                await asyncio.gather(there, back, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _closing(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._writers.discard(writer)

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(_BLOCK_BYTES):
            await asyncio.sleep(self._pace.reserve(len(block), monotonic()))
            self.carried_bytes += len(block)
            writer.write(block)
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(_BLOCK_BYTES):
        writer.write(block)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
