"""The truth about a dock at this moment, as plain JSON for ``dockd status`` and the demo."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dockd.bay import Bay
from dockd.core.estimate import seconds_left
from dockd.core.model import RecordingState, display_name
from dockd.core.timetable import BYTES_S_PER_MBIT_S
from dockd.services import Services

MAX_SHOWN = 20
"""Recordings named in the answer for one bay; the counts are of all."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How fast a dock sends, and for how long it still will; None is not known, or no limit."""

    mbit_s: float | None = None
    limit_mbit_s: float | None = None
    bytes_left: int = 0
    seconds_left: float | None = None
    of_bays: Mapping[str, float | None] = field(default_factory=dict)


def outlook(services: Services, bays: Iterable[Bay]) -> Outlook:
    """Estimate from what was measured. Nobody can tell while the target takes nothing."""
    pace, now = services.uploader.pace, services.clock.now()
    left = {
        bay.name: size
        for bay in bays
        if bay.recordings is not None and (size := bay.recordings.bytes_left) > 0
    }
    measured = pace.throughput
    known = measured if services.uploader.away is None else None
    phases = services.config().upload.rates.phases(now, datetime.astimezone)
    seconds = seconds_left(left, known, phases)
    last = max(left, key=lambda bay: left[bay], default=None)
    return Outlook(
        mbit_s=_mbit_s(measured.bytes_s) if measured is not None else None,
        limit_mbit_s=_mbit_s(pace.limit_bytes_s),
        bytes_left=sum(left.values()),
        seconds_left=seconds[last] if last is not None else 0.0,
        of_bays=seconds,
    )


def _mbit_s(bytes_s: float | None) -> float | None:
    return None if bytes_s is None else round(bytes_s / BYTES_S_PER_MBIT_S, 3)


def dock_status(
    dock: str,
    bays: Iterable[Bay],
    crowded: Mapping[str, Sequence[str]],
    ahead: Outlook = Outlook(),
    budget_ma: int | None = None,
) -> dict[str, object]:
    """Return what every bay is doing. ``crowded`` names the cameras that wait behind another,
    ``budget_ma`` is what all ports may be asked for.
    """
    return {
        "dock": dock,
        "sending": {
            "mbit_s": ahead.mbit_s,
            "limit_mbit_s": ahead.limit_mbit_s,
            "bytes_left": ahead.bytes_left,
            "seconds_left": _whole(ahead.seconds_left),
        },
        "power_budget_ma": budget_ma,
        "bays": [
            {
                **_bay_status(bay),
                "seconds_left": _whole(ahead.of_bays.get(bay.name)),
                "crowded_by": list(crowded.get(bay.name, ())),
            }
            for bay in bays
        ],
    }


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds)


def _bay_status(bay: Bay) -> dict[str, object]:
    visit, recordings, demand = bay.visit, bay.recordings, bay.demand
    answer: dict[str, object] = {
        "bay": bay.name,
        "state": bay.state.value,
        "reason": bay.explanation,
        "camera": visit.camera.camera_id if visit is not None else None,
        "visit": visit.visit_id if visit is not None else None,
        "verdict": visit.verdict.value if visit is not None and visit.verdict is not None else None,
        "busy_s": round(bay.busy_s, 1),
        "skipped": len(bay.listing.skipped),
        "power": bay.charger.status.power.value,
        "draw_ma": demand.draw_ma if demand and not bay.charger.waiting else 0,
        "battery_percent": bay.charger.status.battery_percent,
    }
    if recordings is None:
        return answer
    return answer | {
        "recordings": {state.value: recordings.count(state) for state in RecordingState},
        "bytes": recordings.size_bytes,
        "bytes_sent": recordings.sent_bytes,
        "bytes_left": recordings.bytes_left,
        "quarantined": [
            {"recording": display_name(item.path), "reason": item.reason}
            for item in recordings.quarantined[:MAX_SHOWN]
        ],
    }
