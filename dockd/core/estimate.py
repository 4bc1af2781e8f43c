"""How long sending will still take: from the rate that was measured, and the limits that are to come."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

USES_LIMIT = 0.9
"""Who uses so much of a limit would use as much of another one: the limit is what holds it back."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was measured, and the limit (None: none) that was in force meanwhile."""

    bytes_s: float
    limit_bytes_s: float | None

    def under(self, limit_bytes_s: float | None) -> float:
        """Return the rate to expect under another limit."""
        if limit_bytes_s is None:
            return self.bytes_s
        if self.limit_bytes_s and self.bytes_s >= USES_LIMIT * self.limit_bytes_s:
            return limit_bytes_s * min(1.0, self.bytes_s / self.limit_bytes_s)
        return min(self.bytes_s, limit_bytes_s)


@dataclass(frozen=True, slots=True)
class Phase:
    """A time with one limit; it lasts for ever where ``seconds`` is None."""

    limit_bytes_s: float | None
    seconds: float | None


def seconds_left(
    bytes_left: Mapping[str, int], measured: Throughput | None, phases: Iterable[Phase]
) -> dict[str, float | None]:
    """Return the seconds until each camera's bytes are sent; None where that cannot be told.

    All share the rate evenly, so a camera is done when each other one has got as much as it, or all
    that it has. ``phases`` are the limits from now on.
    """
    needed = {
        name: sum(min(other, left) for other in bytes_left.values())
        for name, left in bytes_left.items()
    }
    seconds: dict[str, float | None] = dict.fromkeys(bytes_left)
    if measured is None or measured.bytes_s <= 0:
        return seconds
    open_names = sorted(needed, key=lambda name: needed[name])
    passed_s = sent_bytes = 0.0
    for phase in phases:
        rate = measured.under(phase.limit_bytes_s)
        while open_names and rate > 0:
            wait_s = (needed[open_names[0]] - sent_bytes) / rate
            if phase.seconds is not None and wait_s > phase.seconds:
                break
            seconds[open_names.pop(0)] = passed_s + wait_s
        if not open_names or phase.seconds is None:
            break
        passed_s += phase.seconds
        sent_bytes += rate * phase.seconds
    return seconds
