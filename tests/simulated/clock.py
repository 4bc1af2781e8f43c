"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing else can happen.

A test that waits for six hours takes milliseconds, and the same seed gives the same order of events.

The clock stands still while work runs in a thread that the loop started (``asyncio.to_thread``,
``run_in_executor``) or that a test announces with :meth:`VirtualTimeLoop.outside_work`. A thread that
itself waits for the loop would stop time for good, so after ``PATIENCE_S`` real seconds without a
sign of life the clock jumps all the same. Real sockets do not belong on this loop.
"""

import asyncio
import contextvars
import functools
import selectors
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE_S = 0.25
"""Real seconds that a silent thread may hold the clock."""

DEADLOCK_S = 5.0
"""Real seconds without anything to wait for, after which a test is told that it hangs."""

MOST_JUMPS = 300_000
"""Jumps of the clock after which a simulation is taken to run in circles."""

START = datetime(2031, 3, 14, 6, 0, tzinfo=UTC)
"""The wall-clock time at which simulations begin."""


class DeadlockError(RuntimeError):
    """Every task waits, and nothing can ever wake one of them."""


class EndlessError(RuntimeError):
    """The simulation goes on and on; a busy or polling loop never ends."""


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that moves virtual time forward where a real one would block."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.outside_work = 0
        self.jumps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.outside_work:
            ready = super().select(PATIENCE_S)
        if timeout is None:
            ready = ready or super().select(DEADLOCK_S)
            if not ready and not self.outside_work:
                raise DeadlockError("every task waits, and no timer, thread or signal is left")
        elif not ready:
            self.now_s += timeout
            self.jumps += 1
            if self.jumps > MOST_JUMPS:
                self.jumps = 0
                raise EndlessError(f"{MOST_JUMPS} timers have fired, at {self.now_s:.0f} s")
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time, which starts at zero."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._jumping.now_s

    @contextmanager
    def outside_work(self) -> Iterator[None]:
        """Hold the clock while a thread of the caller's own works for the loop."""
        self._jumping.outside_work += 1
        try:
            yield
        finally:
            self._jumping.outside_work -= 1

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run in a thread as usual, holding the clock until the thread is done."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.outside_work += 1
        future.add_done_callback(self._thread_done, context=contextvars.Context())
        return future

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._jumping.outside_work -= 1


class SimulatedClock:
    """The :class:`~dockd.core.interfaces.Clock` of a virtual loop. ``start`` is the wall clock at zero."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: datetime = START) -> None:
        self._loop = loop
        self._start = start

    def now(self) -> datetime:
        """Return the simulated wall-clock time, in UTC."""
        return self._start + timedelta(seconds=self._loop.time())

    def monotonic_s(self) -> float:
        """Return virtual seconds."""
        return self._loop.time()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a fresh virtual loop; every task and thread is gone when it returns."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an async test run on virtual time; fixtures and ``@given`` work as usual."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    return run
