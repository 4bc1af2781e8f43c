"""Faults of a TCP connection, at an exact byte of a chosen request or answer.

A :class:`Line` carries what goes through the proxy, knows enough of HTTP to tell where a request and
its parts begin, and counts requests: whatever happens, there must not be many.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from dockd.demo.proxy import Connection, Direction

REQUESTS, ANSWERS = Direction.REQUESTS, Direction.ANSWERS

_METHODS = (b"OPTIONS ", b"POST ", b"HEAD ", b"PATCH ", b"GET ")
_DRIP_S = 0.01


@dataclass(slots=True)
class Message:
    """A request or an answer on its way: what is known of it, and how much of it has passed."""

    head_bytes: int = 0
    body_bytes: int = 0
    passed_bytes: int = 0

    @classmethod
    def beginning(cls, block: bytes) -> "Message":
        """Read the head; it comes in one block, because it is written in one piece."""
        head = block[: block.find(b"\r\n\r\n") + 4]
        fields = dict(
            line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
        )
        return cls(len(head), int(fields.get(b"content-length", b"0")))


@dataclass(frozen=True, slots=True)
class Place:
    """A byte of a message, counted from its start, from its body, or from its end."""

    name: str
    of: Callable[[Message], int]

    def __str__(self) -> str:
        return self.name


def from_start(count: int) -> Place:
    return Place(f"start+{count}", lambda _: count)


def from_body(count: int) -> Place:
    return Place(f"body{count:+}", lambda message: message.head_bytes + count)


def from_end(count: int) -> Place:
    return Place(f"end-{count}", lambda message: message.head_bytes + message.body_bytes - count)


def in_body(share: float) -> Place:
    return Place(
        f"body*{share}", lambda message: message.head_bytes + int(message.body_bytes * share)
    )


Act = Callable[[Connection, Direction, bytes], Awaitable[None]]


async def closes(connection: Connection, _: Direction, __: bytes) -> None:
    """End the connection in order."""
    connection.close()
    await asyncio.Event().wait()


async def resets(connection: Connection, _: Direction, __: bytes) -> None:
    """Break the connection."""
    connection.reset()
    await asyncio.Event().wait()


async def stalls(_: Connection, __: Direction, ___: bytes) -> None:
    """Carry nothing any more, and say nothing."""
    await asyncio.Event().wait()


def drips(size_bytes: int) -> Act:
    """Carry on so slowly that a request takes long, and never so slowly that it stands still."""

    async def drip(connection: Connection, direction: Direction, rest: bytes) -> None:
        for begin in range(0, len(rest), size_bytes):
            await connection.send(direction, rest[begin : begin + size_bytes])
            await asyncio.sleep(_DRIP_S)

    return drip


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens ``at`` a byte of a message that goes one way, of requests with one ``method``."""

    method: str
    direction: Direction
    at: Place
    act: Act

    def __str__(self) -> str:
        what = "request" if self.direction is REQUESTS else "answer"
        return f"{self.method} {what} {self.at} {self.act.__qualname__.partition('.')[0]}"


@dataclass(slots=True, eq=False)
class _Exchange:
    """A request and its answer. ``ill`` is what has struck it: it stays, to the end of the message."""

    method: str = ""
    messages: dict[Direction, Message] = field(default_factory=dict)
    ill: dict[Direction, Fault] = field(default_factory=dict)


class Line:
    """Carries bytes, and lets each fault strike once, whichever finds its request first."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.on_strike: Callable[[], None] = lambda: None
        self.faults: list[Fault] = []
        """Those that have not struck yet."""
        self._exchanges: dict[Connection, _Exchange] = {}
        self._news = asyncio.Event()

    async def made(self, method: str, count: int, within_s: float = 10.0) -> None:
        """Wait until so many requests of a method have been made."""
        async with asyncio.timeout(within_s):
            while self.requests[method] < count:
                self._news.clear()
                await self._news.wait()

    async def carry(self, connection: Connection, direction: Direction, block: bytes) -> None:
        """See :data:`dockd.demo.proxy.Carry`."""
        exchange = self._exchanges.setdefault(connection, _Exchange())
        message = self._message(exchange, direction, block)
        begin, healthy = message.passed_bytes, 0
        message.passed_bytes += len(block)
        fault = exchange.ill.get(direction)
        if fault is None and (fault := self._next(exchange.method, direction, begin, message)):
            healthy = fault.at.of(message) - begin
            exchange.ill[direction] = fault
            self.faults.remove(fault)
            self.on_strike()
        await connection.send(direction, block[:healthy] if fault else block)
        if fault is not None:
            await fault.act(connection, direction, block[healthy:])

    def _next(
        self, method: str, direction: Direction, begin: int, message: Message
    ) -> Fault | None:
        for fault in self.faults:
            here = (fault.method, fault.direction) == (method, direction)
            if here and begin <= fault.at.of(message) <= message.passed_bytes:
                return fault
        return None

    def _message(self, exchange: _Exchange, direction: Direction, block: bytes) -> Message:
        method = next((name for name in _METHODS if block.startswith(name)), None)
        if direction is REQUESTS and method is not None:
            exchange.method = method.decode().strip()
            exchange.messages = {REQUESTS: Message.beginning(block)}
            exchange.ill = {}
            self.requests[exchange.method] += 1
            self._news.set()
        return exchange.messages.setdefault(direction, Message.beginning(block))
