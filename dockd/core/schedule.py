"""Which recordings to send now: urgent first, then fair between bays, then the least left first."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recording that could be sent now. It is ``urgent`` when it is flagged, or asked for by a person."""

    path: bytes
    size_bytes: int
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class BayLoad:
    """What one bay has to send: bytes left in all, what is under way, and what waits, in its order.

    ``served_at_s`` is when it last had a stream, or began to wait.
    """

    bay: str
    bytes_left: int
    running: tuple[Waiting, ...]
    waiting: tuple[Waiting, ...]
    served_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what runs at once. A recording over ``small_bytes`` is large.

    One bay sends one large recording at a time, because its card is one reader; small ones go beside
    each other so that the round trip to the store does not set the pace. One urgent recording of each
    bay may go beyond all bounds, so that it never waits for the end of 64 GB.
    """

    streams: int
    streams_per_bay: int
    small_bytes: int


@dataclass(frozen=True, slots=True)
class Start:
    """A recording of a bay that is to start now."""

    bay: str
    path: bytes


PATIENCE_S = 60.0
"""A bay that had no stream for so long gets the next one, whatever the others have."""


def plan(bays: Sequence[BayLoad], limits: Limits, now_s: float) -> tuple[Start, ...]:
    """Return what to start now, in order.

    While slots are free the next one goes to: a bay that has waited too long; then an urgent recording;
    then the bay that has the fewest streams, so that none waits for another (INV-8); then the bay with
    the least left, so that cameras become ready one by one instead of all at the end.
    """
    starts: list[Start] = []
    running = {bay.bay: list(bay.running) for bay in bays}
    waiting = {bay.bay: in_order(bay.waiting) for bay in bays}
    free = limits.streams - sum(len(now) for now in running.values())
    while True:
        candidates = [
            (_rank(bay, running[bay.bay], chosen, now_s), bay.bay, chosen)
            for bay in bays
            if (chosen := _next(waiting[bay.bay], running[bay.bay], limits, free)) is not None
        ]
        if not candidates:
            return tuple(starts)
        _, bay_name, chosen = min(candidates, key=lambda candidate: candidate[:2])
        waiting[bay_name].remove(chosen)
        running[bay_name].append(chosen)
        starts.append(Start(bay_name, chosen.path))
        free -= 1


def in_order(waiting: Sequence[Waiting]) -> list[Waiting]:
    """Return the recordings of one bay in the order in which they go: urgent ones first."""
    return sorted(waiting, key=lambda recording: not recording.urgent)


def _rank(
    bay: BayLoad, running: Sequence[Waiting], chosen: Waiting, now_s: float
) -> tuple[float, bool, int, int]:
    waited_s = now_s - bay.served_at_s if not running else 0.0
    overdue_s = waited_s if waited_s >= PATIENCE_S else 0.0
    return -overdue_s, not chosen.urgent, len(running), bay.bytes_left


def _next(
    waiting: Sequence[Waiting], running: Sequence[Waiting], limits: Limits, free: int
) -> Waiting | None:
    if waiting and waiting[0].urgent and not any(recording.urgent for recording in running):
        return waiting[0]
    if free <= 0 or len(running) >= limits.streams_per_bay:
        return None
    large_running = any(recording.size_bytes > limits.small_bytes for recording in running)
    for recording in waiting:
        if recording.size_bytes <= limits.small_bytes or not large_running:
            return recording
    return None
