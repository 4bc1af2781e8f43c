"""One bucket of tokens for the whole dock: every piece of footage asks here before it goes.

The bays take turns by bytes, so that none waits for another. What is urgent goes first: while it has
bytes to send, all else only gets a few now and then, so that no server takes a stream for dead. The
limit is asked for again with every piece, so that a change acts at once on what is under way.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from dockd.core.errors import SendingPausedError
from dockd.core.estimate import Throughput
from dockd.core.timetable import BYTES_S_PER_MBIT_S, Timetable
from dockd.ops import events
from dockd.target.meter import Meter

PIECE_BYTES = 256 << 10
"""The largest piece: what a socket does not take at once, the event loop has to copy."""

LEAST_PIECE_BYTES = 1 << 10

PIECE_S = 0.05
"""What one piece takes at the limit: short, so that many streams go evenly beside each other."""

BURST_S = 0.25
"""Time that may be made up for, when the process was busy and came too late for its next piece."""

CHECK_S = 0.25
"""How often those who wait look whether the limit, or what is urgent, has changed."""

CLOSED_CHECK_S = 1.0
"""The same while nothing is sent at all."""

KEEP_ALIVE_S, KEEP_ALIVE_BYTES = 5.0, 1 << 10
"""What a stream gets at least while others are urgent."""

REST_S = 0.005
"""An urgent stream whose camera has nothing for so long lets others go meanwhile."""

URGENT_STALL_S = 5.0
"""An urgent stream whose network takes nothing for so long holds the others back no more."""


def _never() -> bool:
    return False


class Turn:
    """One stream's place in the queue; made by :meth:`Pace.turn`. Close it after use."""

    def __init__(self, pace: "Pace", bay: str, urgent: Callable[[], bool]) -> None:
        """Build for a stream of a bay; ``urgent`` is asked again and again."""
        self.bay = bay
        self.urgent = urgent
        self.busy_until_s = 0.0
        self._pace = pace

    async def take(self, size_bytes: int) -> int:
        """Wait until a piece may be sent; return its size, at most ``size_bytes``.

        Raises SendingPausedError when nothing is to be sent now.
        """
        return await self._pace.take(self, size_bytes)

    def rest(self) -> None:
        """Say that nothing is there to be sent until the next :meth:`take`."""
        self._pace.rest(self)

    async def until_open(self) -> None:
        """Wait until anything may be sent at all."""
        while self._pace.closed:  # noqa: ASYNC110 - by the clock and the file; nobody says when
            await asyncio.sleep(CLOSED_CHECK_S)

    def close(self) -> None:
        """Leave the queue."""
        self._pace.leave(self)


@dataclass(slots=True)
class _Waiter:
    turn: Turn
    wanted_bytes: int
    since_s: float
    granted: asyncio.Future[int]


@dataclass(slots=True)
class _Fairness:
    """Start-time fair queueing: who is served next is whose bay has been given the least."""

    now: float = 0.0
    finish: dict[str, float] = field(default_factory=dict)

    def start(self, bay: str) -> float:
        return max(self.now, self.finish.get(bay, 0.0))

    def serve(self, bay: str, size_bytes: int) -> None:
        self.now = self.start(bay)
        self.finish[bay] = self.now + size_bytes


class Pace:
    """What all streams of a dock share. ``limit_bytes_s`` gives the limit in force: None is no limit,
    zero lets nothing through. Lives on one event loop.
    """

    def __init__(self, limit_bytes_s: Callable[[], float | None] = lambda: None) -> None:
        """Build with an empty bucket."""
        self._limit_bytes_s = limit_bytes_s
        self._limit: float | None = None
        self._tokens = 0.0
        self._filled_at_s = 0.0
        self._filled_by: float | None = None
        self._turns: set[Turn] = set()
        self._waiting: list[_Waiter] = []
        self._fairness = {urgent: _Fairness() for urgent in (True, False)}
        self._timer: asyncio.TimerHandle | None = None
        self._meter = Meter()

    @property
    def limit_bytes_s(self) -> float | None:
        """The limit in force now."""
        limit = self._limit_bytes_s()
        if limit != self._limit:
            self._limit = limit
            mbit_s = None if limit is None else limit / BYTES_S_PER_MBIT_S
            events.UPLOAD_LIMIT.log(limit_mbit_s=mbit_s)
        return limit

    @property
    def closed(self) -> bool:
        """Whether nothing is to be sent now."""
        return self.limit_bytes_s == 0

    @property
    def throughput(self) -> Throughput | None:
        """The rate at which this dock sends when it has something to send, as far as is known."""
        self._time_passes()
        return self._meter.throughput

    def turn(self, bay: str, urgent: Callable[[], bool] = _never) -> Turn:
        """Return a place for one more stream. What is ``urgent`` may change at any time."""
        self._time_passes()
        if not self._turns:
            # Nobody wanted what ran into the bucket meanwhile.
            self._filled_by = None
        turn = Turn(self, bay, urgent)
        self._turns.add(turn)
        return turn

    def leave(self, turn: Turn) -> None:
        """Forget a stream."""
        self._time_passes()
        self._turns.discard(turn)

    def rest(self, turn: Turn) -> None:
        """See :meth:`Turn.rest`."""
        turn.busy_until_s = asyncio.get_running_loop().time() + REST_S
        if self._waiting and turn.urgent():
            self._serve_after(REST_S)

    async def take(self, turn: Turn, size_bytes: int) -> int:
        """See :meth:`Turn.take`."""
        limit, now_s = self._time_passes()
        turn.busy_until_s = now_s + URGENT_STALL_S
        if limit is None and (turn.urgent() or not self._urgent_is_busy(now_s)):
            piece = min(size_bytes, PIECE_BYTES)
            self._meter.sent(piece)
            return piece
        granted = asyncio.get_running_loop().create_future()
        waiter = _Waiter(turn, size_bytes, now_s, granted)
        self._waiting.append(waiter)
        self._serve()
        try:
            return await waiter.granted
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _time_passes(self) -> tuple[float | None, float]:
        """Return the limit in force and the time, of which the meter hears."""
        limit, now_s = self.limit_bytes_s, asyncio.get_running_loop().time()
        self._meter.passes(now_s, limit, busy=bool(self._turns))
        return limit, now_s

    def _serve(self) -> None:
        """Give out what can be given now; look again when there may be more."""
        limit, now_s = self._time_passes()
        self._fill(limit, now_s)
        if limit == 0:
            self._turn_all_away()
            return
        while (waiter := self._next(limit, now_s)) is not None:
            self._grant(waiter, limit, now_s)
        if self._waiting:
            wait_s = CHECK_S
            if limit is not None and self._tokens <= 0:
                wait_s = min(CHECK_S, max(0.001, -self._tokens / limit))
            self._serve_after(wait_s)

    def _serve_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._serve)

    def _fill(self, limit: float | None, now_s: float) -> None:
        if limit is None or limit != self._filled_by:
            # What was owed, or left over, was so by another measure.
            self._tokens = 0.0
        else:
            self._tokens += (now_s - self._filled_at_s) * limit
            self._tokens = min(self._tokens, limit * BURST_S)
        self._filled_by, self._filled_at_s = limit, now_s

    def _next(self, limit: float | None, now_s: float) -> _Waiter | None:
        urgent = [waiter for waiter in self._waiting if waiter.turn.urgent()]
        others_wait = bool(urgent) or self._urgent_is_busy(now_s)
        if others_wait:
            for waiter in self._waiting:
                if waiter not in urgent and now_s - waiter.since_s >= KEEP_ALIVE_S:
                    waiter.wanted_bytes = min(waiter.wanted_bytes, KEEP_ALIVE_BYTES)
                    return waiter
        if limit is not None and self._tokens <= 0:
            return None
        candidates = urgent if others_wait else self._waiting
        fairness = self._fairness[others_wait]
        return min(candidates, key=lambda waiter: fairness.start(waiter.turn.bay), default=None)

    def _grant(self, waiter: _Waiter, limit: float | None, now_s: float) -> None:
        self._waiting.remove(waiter)
        if waiter.granted.done():
            return
        piece = PIECE_BYTES
        if limit is not None:
            piece = int(min(PIECE_BYTES, max(LEAST_PIECE_BYTES, limit * PIECE_S)))
        size_bytes = min(waiter.wanted_bytes, piece)
        self._tokens -= size_bytes
        self._meter.sent(size_bytes)
        self._fairness[waiter.turn.urgent()].serve(waiter.turn.bay, size_bytes)
        waiter.turn.busy_until_s = now_s + URGENT_STALL_S
        waiter.granted.set_result(size_bytes)

    def _turn_all_away(self) -> None:
        for waiter in self._waiting:
            if not waiter.granted.done():
                waiter.granted.set_exception(
                    SendingPausedError("nothing is to be sent at this time of the week")
                )
        self._waiting.clear()

    def _urgent_is_busy(self, now_s: float) -> bool:
        """Whether an urgent stream has bytes to send: its camera is not what it waits for."""
        return any(turn.busy_until_s > now_s and turn.urgent() for turn in self._turns)


def limit_by(
    rates: Callable[[], Timetable], now: Callable[[], datetime]
) -> Callable[[], float | None]:
    """Return what gives the limit in force, in bytes/s, by a timetable and the dock's local time."""

    def limit_bytes_s() -> float | None:
        table = rates()
        mbit_s = table.limit_at(now().astimezone()) if table.spans else table.otherwise_mbit_s
        return None if mbit_s is None else mbit_s * BYTES_S_PER_MBIT_S

    return limit_bytes_s
