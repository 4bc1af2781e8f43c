"""Where blocking file work runs, so that the event loop never waits for a disk."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_SIDE_BY_SIDE = 8
_WORTH_A_THREAD = 4


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

    async def run_for_all(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        """Do the work for each item, in a few threads side by side, and wait for all of them.

        Syncs that wait at the same time share the disk's next commit. The first error is raised.
        """
        count = min(_SIDE_BY_SIDE, -(-len(items) // _WORTH_A_THREAD))
        futures = [self.start(_for_each, work, items[first::count]) for first in range(count)]
        results = await outcome(asyncio.gather(*futures, return_exceptions=True))
        for result in results:
            if result is not None:
                raise result

    def close(self) -> None:
        """Wait for the work under way and end the threads. Blocking."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _for_each(work: Callable[[T], None], items: Sequence[T]) -> None:
    for item in items:
        work(item)


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
