"""The truth about a dock at this moment, as plain JSON for ``dockd status`` and the demo."""

from collections.abc import Iterable, Mapping, Sequence

from dockd.bay import Bay
from dockd.core.model import RecordingState, display_name

MAX_SHOWN = 20
"""Recordings named in the answer for one bay; the counts are of all."""


def dock_status(
    dock: str, bays: Iterable[Bay], crowded: Mapping[str, Sequence[str]]
) -> dict[str, object]:
    """Return what every bay is doing. ``crowded`` names the cameras that wait behind another."""
    return {
        "dock": dock,
        "bays": [
            {**_bay_status(bay), "crowded_by": list(crowded.get(bay.name, ()))} for bay in bays
        ],
    }


def _bay_status(bay: Bay) -> dict[str, object]:
    visit, ingest = bay.visit, bay.ingest
    answer: dict[str, object] = {
        "bay": bay.name,
        "state": bay.state.value,
        "reason": bay.explanation,
        "camera": visit.camera.camera_id if visit is not None else None,
        "visit": visit.visit_id if visit is not None else None,
        "verdict": visit.verdict.value if visit is not None and visit.verdict is not None else None,
        "busy_s": round(bay.busy_s, 1),
        "skipped": len(bay.listing.skipped),
        "power": bay.charge.power.value,
        "battery_percent": bay.charge.battery_percent,
    }
    if ingest is None:
        return answer
    return answer | {
        "recordings": {state.value: ingest.count(state) for state in RecordingState},
        "bytes": ingest.size_bytes,
        "bytes_sent": ingest.sent_bytes,
        "quarantined": [
            {"recording": display_name(item.path), "reason": item.reason}
            for item in ingest.quarantined[:MAX_SHOWN]
        ],
    }
