"""How long, and how often, one upload may try again: the state behind the retry rules.

The rules, which docs/upload-target.md explains to operators: a growing pause with full jitter, on top
of what the target asks for; a bounded number of failures unless the target's offset has
moved to where it never was before; no bound while the target is away, full, or unwilling for a
reason that a person will lift. A target that answers and still breaks every transfer is not away:
something between it and us refuses the bytes, and that has a bound.
"""

import random
from dataclasses import dataclass

from dockd.core.errors import Retry, TargetError, TargetUnavailableError

_BROKEN_ON_THE_WAY = (None, 502, 504)


@dataclass(frozen=True, slots=True)
class RetryRules:
    """``max_tries`` counts failures in a row without progress; a pause never exceeds ``max_pause_s``
    by more than what the target itself asks for.
    """

    max_tries: int = 8
    first_pause_s: float = 1.0
    max_pause_s: float = 60.0


class Patience:
    """What one upload still may."""

    def __init__(self, rules: RetryRules, rng: random.Random) -> None:
        """Build for one upload, fresh."""
        self._rules = rules
        self._rng = rng
        self._furthest = 0
        self._moved = False
        self._failures = 0
        self._tries_spent = 0
        self._target_answers = False

    def begin_attempt(self) -> None:
        """Note that an attempt begins; nothing is known yet of the target's health."""
        self._target_answers = False

    def offset_is(self, offset: int) -> None:
        """Note the offset of a target that answers. Only ground never covered before is progress."""
        self._target_answers = True
        if offset > self._furthest:
            self._furthest = offset
            self._moved = True

    def failed(self, error: TargetError) -> None:
        """Note a failure."""
        if self._moved:
            self._moved = False
            self._failures = self._tries_spent = 0
        self._failures += 1
        broken_on_the_way = (
            isinstance(error, TargetUnavailableError) and error.status in _BROKEN_ON_THE_WAY
        )
        if error.retry is not Retry.WHEN_BACK or (broken_on_the_way and self._target_answers):
            self._tries_spent += 1

    @property
    def exhausted(self) -> bool:
        """Whether the last failure was one too many."""
        return self._tries_spent >= self._rules.max_tries

    def pause_s(self, error: TargetError) -> float:
        """Return how long to wait after the last failure."""
        wanted = error.retry_after_s or 0.0
        if error.retry is Retry.AT_ONCE and self._failures == 1 and not wanted:
            return 0.0
        doublings = min(self._failures - 1, 16)
        ceiling = min(self._rules.max_pause_s, self._rules.first_pause_s * 2.0**doublings)
        # All docks were told the same; who comes back together is sent away together.
        spread = min(self._rules.max_pause_s, wanted / 2)
        return wanted + self._rng.uniform(0.0, max(ceiling, spread))
