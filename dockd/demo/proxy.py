"""The network between dock and store: a TCP proxy on loopback, as slow and as broken as it is told to be."""

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from types import TracebackType
from typing import Self

_BLOCK_BYTES = 64 * 1024
_BUFFER_BYTES = 64 * 1024
_SEGMENT_BYTES = 1448
"""TCP payload of an Ethernet frame. With loopback's 64 kB the kernel would buffer megabytes, and the
sender believe that they had arrived."""
_CONNECTIONS = 128
_BLOCKS_UNDER_WAY = 512
"""What a link with a delay holds at most, of each connection and direction."""
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST, and nothing else


class Pace:
    """Spreads bytes over time, at most ``rate_bytes_s`` in all."""

    LATE_S = 0.02
    """A turn that is taken late by less than this loses nothing: timers are no more exact."""

    def __init__(self, rate_bytes_s: float) -> None:
        """Build with the rate."""
        self._rate_bytes_s = rate_bytes_s
        self._free_at_s = 0.0

    def reserve(self, size_bytes: int, now_s: float) -> float:
        """Take a turn for so many bytes; return how many seconds from now it comes."""
        begin_s = max(self._free_at_s, now_s - self.LATE_S)
        self._free_at_s = begin_s + size_bytes / self._rate_bytes_s
        return max(0.0, begin_s - now_s)


class Direction(Enum):
    """Which way bytes go."""

    REQUESTS = "from the client to the server"
    ANSWERS = "from the server to the client"


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """A connection through the proxy; ``ends`` is where the bytes of each direction go to."""

    ends: dict[Direction, asyncio.StreamWriter]

    async def send(self, direction: Direction, block: bytes) -> None:
        """Pass bytes on."""
        writer = self.ends[direction]
        writer.write(block)
        await writer.drain()

    def close(self) -> None:
        """End it in order, after what was passed on."""
        for writer in self.ends.values():
            writer.close()

    def reset(self) -> None:
        """Break it: both ends hear of a reset, and of nothing that was still on its way."""
        for writer in self.ends.values():
            _reset(writer)


Carry = Callable[[Connection, Direction, bytes], Awaitable[None]]
"""Passes a block on, or does to the connection what it likes."""


class Proxy:
    """Passes connections on to a port of this machine.

    What clients send goes at a limited rate; every byte, either way, arrives ``delay_s`` late.
    ``carry`` may be replaced by what loses, holds up or repeats bytes.
    """

    def __init__(
        self,
        upstream_port: int,
        rate_bytes_s: float = math.inf,
        *,
        delay_s: float = 0.0,
        carry: Carry = Connection.send,
    ) -> None:
        """Build; it listens once it is entered."""
        self.upstream_port = upstream_port
        self._pace = Pace(rate_bytes_s)
        self._delay_s = delay_s
        self._carry = carry
        self._server: asyncio.Server | None = None
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        """Connections that clients have made."""
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
        if self._tasks:
            await asyncio.wait(self._tasks)

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
        self._tasks.add(task)
        self.connections += 1
        try:
            async with self._closing(writer):
                if self._is_cut or len(self._tasks) > _CONNECTIONS:
                    _reset(writer)
                    return
                # The handshake, which the kernel did at once, has its way to go, too.
                await asyncio.sleep(2 * self._delay_s)
                await self._connect(reader, writer)
        except OSError:
            _reset(writer)
        finally:
            self._tasks.discard(task)

    async def _connect(self, requests: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection(
            "127.0.0.1", self.upstream_port, limit=_BLOCK_BYTES
        )
        async with self._closing(server):
            if self._is_cut:
                return
            connection = Connection({Direction.REQUESTS: server, Direction.ANSWERS: client})
            ways = {
                asyncio.create_task(self._pass_on(connection, Direction.REQUESTS, requests)),
                asyncio.create_task(self._pass_on(connection, Direction.ANSWERS, answers)),
            }
            try:
                # Either end may close first; the connection is over for both.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

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

    async def _pass_on(
        self, connection: Connection, direction: Direction, reader: asyncio.StreamReader
    ) -> None:
        """Carry everything one way, until its end."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(
            _BLOCKS_UNDER_WAY if self._delay_s else 1
        )
        taking = asyncio.create_task(self._take_in(direction, reader, under_way))
        try:
            while True:
                due_s, block = await under_way.get()
                await asyncio.sleep(due_s - monotonic())
                if not block:
                    return
                await self._carry(connection, direction, block)
        finally:
            taking.cancel()
            await asyncio.wait({taking})

    async def _take_in(
        self,
        direction: Direction,
        reader: asyncio.StreamReader,
        under_way: asyncio.Queue[tuple[float, bytes]],
    ) -> None:
        block = b"..."
        while block:
            try:
                block = await reader.read(_BLOCK_BYTES)
            except OSError:
                block = b""
            if direction is Direction.REQUESTS:
                await asyncio.sleep(self._pace.reserve(len(block), monotonic()))
                self.carried_bytes += len(block)
            await under_way.put((monotonic() + self._delay_s, block))


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
