"""The one line that sums a visit up, for the log and the custody log."""

from datetime import datetime

from dockd.core.model import Listing, RecordingState, Visit
from dockd.ingest import Ingest
from dockd.scanning import newest_file_at


def sum_up(visit: Visit, ingest: Ingest, listing: Listing, now: datetime) -> dict[str, object]:
    """Return counts, bytes, retries, seconds and verdict of a visit that ends now."""
    recordings = ingest.recordings.values()
    newest = newest_file_at(listing)
    ahead_s = round((newest - now).total_seconds()) if newest is not None else None
    states = RecordingState
    return {
        "verdict": visit.verdict.value if visit.verdict is not None else None,
        "recordings": len(recordings),
        "confirmed": ingest.count(states.CONFIRMED, states.ERASED),
        "erased": ingest.count(states.ERASED),
        "pending": ingest.count(states.PENDING, states.UPLOADING, states.SENT),
        "quarantined": ingest.count(states.QUARANTINED),
        "vanished": ingest.count(states.VANISHED),
        "skipped": len(listing.skipped),
        "bytes": ingest.size_bytes,
        "resent_bytes": sum(item.resent_bytes for item in recordings),
        "attempts": sum(item.attempts for item in recordings),
        "retries": sum(max(0, item.attempts - 1) for item in recordings),
        "seconds": round((now - visit.started_at).total_seconds()),
        "camera_clock_ahead_s": ahead_s,
    }
