"""Lets recordings of all bays start when the schedule says so."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from dockd.core.schedule import BayLoad, Limits, Waiting, in_order, plan

WINDOW = 64
"""How many waiting recordings of a bay the schedule looks at: keeps planning cheap for 100,000."""

MAX_CONFIRMING = 64
"""Recordings of one bay that may wait for a receipt beside those being sent."""

Send = Callable[[bytes], Awaitable[bool]]
Confirm = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True)
class _Queue:
    bay: str
    bytes_left: int
    waiting: deque[Waiting]
    send: Send
    confirm: Confirm
    group: asyncio.TaskGroup
    running: dict[bytes, Waiting] = field(default_factory=dict)
    all_started: asyncio.Event = field(default_factory=asyncio.Event)
    served_at_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    confirming: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONFIRMING))


class Dispatcher:
    """Shares the dock's upload streams between its bays, by :func:`dockd.core.schedule.plan`."""

    def __init__(self, limits: Limits) -> None:
        """Build with the limits in force; ``limits`` may be replaced at any time."""
        self.limits = limits
        self._queues: dict[str, _Queue] = {}

    async def run(
        self, bay: str, recordings: Sequence[Waiting], *, send: Send, confirm: Confirm
    ) -> None:
        """Send each recording when its turn comes, then confirm it; return when all are through.

        ``send`` holds one of the dock's streams and says whether there is something to confirm;
        ``confirm`` holds none. The first error stops the bay's others and comes out of here.
        """
        if bay in self._queues:
            raise ValueError(f"bay {bay} has a queue already")
        try:
            async with asyncio.TaskGroup() as group:
                self._queues[bay] = _Queue(
                    bay,
                    sum(recording.size_bytes for recording in recordings),
                    deque(in_order(recordings)),
                    send,
                    confirm,
                    group,
                )
                self._start_what_may()
                if recordings:
                    await self._queues[bay].all_started.wait()
        except BaseExceptionGroup as group:
            # One error tells the bay what to do; the others are its echoes.
            raise group.exceptions[0] from group
        finally:
            del self._queues[bay]
            self._start_what_may()

    def hurry(self, bay: str, paths: Collection[bytes]) -> None:
        """Let these recordings of a bay go before all others, as far as they still wait."""
        queue = self._queues.get(bay)
        if queue is None:
            return
        queue.waiting = deque(
            in_order(
                [replace(item, urgent=item.urgent or item.path in paths) for item in queue.waiting]
            )
        )
        queue.running = {
            path: replace(item, urgent=item.urgent or path in paths)
            for path, item in queue.running.items()
        }
        self._start_what_may()

    def _start_what_may(self) -> None:
        loads = [
            BayLoad(
                queue.bay,
                queue.bytes_left,
                tuple(queue.running.values()),
                tuple(islice(queue.waiting, WINDOW)),
                queue.served_at_s,
            )
            for queue in self._queues.values()
        ]
        for start in plan(loads, self.limits, asyncio.get_running_loop().time()):
            queue = self._queues[start.bay]
            recording = next(waiting for waiting in queue.waiting if waiting.path == start.path)
            queue.waiting.remove(recording)
            queue.running[recording.path] = recording
            queue.group.create_task(self._take_through(queue, recording))
            if not queue.waiting:
                queue.all_started.set()

    async def _take_through(self, queue: _Queue, recording: Waiting) -> None:
        try:
            to_confirm = await queue.send(recording.path)
            if to_confirm:
                await queue.confirming.acquire()
        except BaseException:
            # The group is about to stop: nothing more of this bay may start.
            queue.waiting.clear()
            raise
        finally:
            del queue.running[recording.path]
            queue.bytes_left -= recording.size_bytes
            queue.served_at_s = asyncio.get_running_loop().time()
            self._start_what_may()
        if to_confirm:
            try:
                await queue.confirm(recording.path)
            finally:
                queue.confirming.release()
