"""Where blocking file work runs, so that the event loop never waits for a disk."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A bounded pool of threads for file work."""

    def __init__(self, count: int) -> None:
        """Build a pool of at most ``count`` threads; they start when needed."""
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="store-files")

    def start(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        """Begin the work in a thread and return its future, to be awaited with :func:`outcome`."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the work in a thread and return what it returns."""
        return await outcome(self.start(work, *args, **kwargs))

    def close(self) -> None:
        """Wait for the work under way and end the threads. Blocking."""
        self._pool.shutdown(wait=True, cancel_futures=True)


async def outcome(work: "asyncio.Future[T]") -> T:
    """Wait for a thread's work.

    A cancellation is let through only once the thread has ended: a thread cannot be stopped, and the
    caller is about to close the file that it writes to.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue
        if not work.cancelled():
            work.exception()  # looked at, so that asyncio does not report it as lost
        raise
