"""The rate at which a dock sends while it has something to send."""

import math

from dockd.core.estimate import Throughput

MEMORY_S = 20.0
"""What was so long ago counts a third of what is now."""

LEAST_S = 2.0
"""Nothing is said from less than this."""


class Meter:
    """Weighs what was sent by its age. Time in which nothing was to be sent does not count."""

    def __init__(self) -> None:
        """Build knowing nothing."""
        self._bytes = self._seconds = 0.0
        self._limit: float | None = None
        self._at_s = 0.0
        self._known: Throughput | None = None

    def passes(self, now_s: float, limit_bytes_s: float | None, *, busy: bool) -> None:
        """Take in the time since the last call, in which the dock was ``busy`` sending, or not."""
        elapsed_s, self._at_s = now_s - self._at_s, now_s
        if busy and self._limit != 0:
            decay = math.exp(-elapsed_s / MEMORY_S)
            self._bytes *= decay
            self._seconds = self._seconds * decay + elapsed_s
        if limit_bytes_s != self._limit:
            # Keep what is known until the new limit has shown its effect.
            self._known = self.throughput
            self._bytes = self._seconds = 0.0
            self._limit = limit_bytes_s

    def sent(self, size_bytes: int) -> None:
        """Count bytes that go to the network now."""
        self._bytes += size_bytes

    @property
    def throughput(self) -> Throughput | None:
        """What was measured last; None as long as nothing was."""
        if self._seconds < LEAST_S:
            return self._known
        return Throughput(self._bytes / self._seconds, self._limit)
