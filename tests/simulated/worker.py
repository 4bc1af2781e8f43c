"""A bay's worker without a thread: each call runs when it is queued, and answers a step later."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class InlineWorker:
    """Implements dockd.worker.Worker on the event loop, so that a seed decides the order of events."""

    busy_s = 0.0

    def start(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run the call now; its future is answered in a later step of the loop, as a thread's is."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        answer: partial[None]
        try:
            answer = partial(future.set_result, call())
        except Exception as error:  # noqa: BLE001 - carried to whoever awaits the future
            answer = partial(future.set_exception, error)

        def deliver() -> None:
            if not future.done():
                answer()

        loop.call_soon(deliver)
        return future

    def close(self) -> None:
        """Nothing to end."""
