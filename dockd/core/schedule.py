"""Which recordings to send now: flagged first, then fair between bays, then the least left first."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recording that could be sent now."""

    path: bytes
    size_bytes: int
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class BayLoad:
    """What one bay has to send: bytes left in all, what is under way, and what waits, in its order."""

    bay: str
    bytes_left: int
    running: tuple[Waiting, ...]
    waiting: tuple[Waiting, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what runs at once. A recording over ``small_bytes`` is large.

    One bay sends one large recording at a time, because its card is one reader; small ones go beside
    each other so that the round trip to the store does not set the pace.
    """

    streams: int
    streams_per_bay: int
    small_bytes: int


@dataclass(frozen=True, slots=True)
class Start:
    """A recording of a bay that is to start now."""

    bay: str
    path: bytes


def plan(bays: Sequence[BayLoad], limits: Limits) -> tuple[Start, ...]:
    """Return what to start now, in order.

    While slots are free the next one goes to: a flagged recording before any other; then the bay
    that has the fewest streams, so that none waits for another (INV-8); then the bay with the least
    left, so that cameras become ready one by one instead of all at the end.
    """
    starts: list[Start] = []
    running = {bay.bay: list(bay.running) for bay in bays}
    waiting = {bay.bay: in_order(bay.waiting) for bay in bays}
    free = limits.streams - sum(len(now) for now in running.values())
    while free > 0:
        candidates = [
            ((not chosen.flagged, len(running[bay.bay]), bay.bytes_left, bay.bay), chosen)
            for bay in bays
            if (chosen := _next(waiting[bay.bay], running[bay.bay], limits)) is not None
        ]
        if not candidates:
            break
        key, chosen = min(candidates, key=lambda candidate: candidate[0])
        bay_name = key[3]
        waiting[bay_name].remove(chosen)
        running[bay_name].append(chosen)
        starts.append(Start(bay_name, chosen.path))
        free -= 1
    return tuple(starts)


def in_order(waiting: Sequence[Waiting]) -> list[Waiting]:
    """Return the recordings of one bay in the order in which they go: flagged ones first."""
    return sorted(waiting, key=lambda recording: not recording.flagged)


def _next(waiting: Sequence[Waiting], running: Sequence[Waiting], limits: Limits) -> Waiting | None:
    if len(running) >= limits.streams_per_bay:
        return None
    large_running = any(recording.size_bytes > limits.small_bytes for recording in running)
    for recording in waiting:
        if recording.size_bytes <= limits.small_bytes or not large_running:
            return recording
    return None
