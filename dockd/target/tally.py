"""What sending a recording costs, attempt by attempt."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

CHECKPOINT_S = 10.0
"""How often those who keep the journal hear how far a long attempt has come."""


async def _nowhere(_: "Tally") -> None:
    """Nobody keeps a journal of this."""


@dataclass(slots=True)
class Tally:
    """What one sending has cost so far, in all its attempts, and in the one at hand.

    ``keep`` is awaited after each attempt that failed, and every few seconds in between.
    ``furthest_bytes`` is how far the recording went to the network at any time, earlier sendings
    included: what lies before it is sent again. ``offset_from`` is where the target was when the
    attempt began, None until it has said so; ``offset_to`` how far the attempt came.
    """

    keep: "Callable[[Tally], Awaitable[None]]" = _nowhere
    furthest_bytes: int = 0
    attempts: int = 0
    resent_bytes: int = 0
    offset_from: int | None = None
    offset_to: int = 0
    attempt_sent_bytes: int = 0
    attempt_resent_bytes: int = 0
    attempt_seconds: float = 0.0
    error: Exception | None = None
    over: bool = False
    began_s: float = 0.0

    def begin_attempt(self) -> None:
        """Count one more attempt."""
        self.attempts += 1
        self.offset_from, self.offset_to = None, 0
        self.attempt_sent_bytes = self.attempt_resent_bytes = 0
        self.error, self.over = None, False
        self.began_s = asyncio.get_running_loop().time()
        self.attempt_seconds = 0.0

    def end_attempt(self, error: Exception | None) -> None:
        """Note how the attempt ended."""
        self.error, self.over = error, True
        self.time_passes()

    def time_passes(self) -> float:
        """Return the seconds that the attempt has taken."""
        self.attempt_seconds = asyncio.get_running_loop().time() - self.began_s
        return self.attempt_seconds

    def hands_over(self, begin: int, end: int) -> None:
        """Count bytes that go to the network, and those that go there again."""
        again = max(0, min(end, self.furthest_bytes) - begin)
        self.furthest_bytes = max(self.furthest_bytes, end)
        self.resent_bytes += again
        self.attempt_resent_bytes += again
        self.attempt_sent_bytes += end - begin
        self.offset_to = end
