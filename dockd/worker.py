"""One thread for one bay: all blocking work on its camera, so that no bay waits for another (INV-8).

The thread is a daemon thread of our own and not one of an executor's, because a card that never
answers must not keep the process from ending.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Worker(Protocol):
    """Runs blocking calls one after another."""

    def start(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Queue a call and return the future of its result. Cancelling the future stops nothing:
        a call that has begun runs to its end, and the next one waits for it.
        """

    @property
    def busy_s(self) -> float:
        """Seconds since the call at hand began; 0 when idle."""

    def close(self) -> None:
        """Take no more calls, and let the thread end after those queued."""


class BayThread:
    """The :class:`Worker` of a real bay."""

    def __init__(self, name: str) -> None:
        """Start the thread. ``name`` is shown by tools that list threads."""
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._began: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def start(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Queue a call; see :class:`Worker`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - carried to whoever awaits the future
                _hand_over(loop, future, future.set_exception, error)
            else:
                _hand_over(loop, future, future.set_result, result)

        self._calls.put(run)
        return future

    @property
    def busy_s(self) -> float:
        """Seconds since the call at hand began; 0 when idle."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def close(self) -> None:
        """Let the thread end after the calls already queued; does not wait for it."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            self._began = time.monotonic()
            call()
            self._began = None


def _hand_over(
    loop: asyncio.AbstractEventLoop,
    future: "asyncio.Future[Any]",
    setter: Callable[[Any], None],
    value: object,
) -> None:
    """Give the outcome to the loop, unless nobody waits any more or the loop has ended."""

    def deliver() -> None:
        if not future.done():
            setter(value)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:
        # The loop was closed while a slow card kept us: there is nobody left to tell.
        return
