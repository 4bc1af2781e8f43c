"""The one line that sums a visit up, for the log and the custody log."""

from datetime import datetime

from dockd.core.model import Listing, RecordingState, Visit
from dockd.recordings import Recordings
from dockd.scanning import newest_file_at


def sum_up(
    visit: Visit, recordings: Recordings, listing: Listing, now: datetime
) -> dict[str, object]:
    """Return counts, bytes, retries, seconds and verdict of a visit that ends now."""
    every = recordings.by_path.values()
    newest = newest_file_at(listing)
    ahead_s = round((newest - now).total_seconds()) if newest is not None else None
    states = RecordingState
    return {
        "verdict": visit.verdict.value if visit.verdict is not None else None,
        "recordings": len(every),
        "confirmed": recordings.count(states.CONFIRMED, states.ERASED),
        "erased": recordings.count(states.ERASED),
        "pending": recordings.count(states.PENDING, states.UPLOADING, states.SENT),
        "quarantined": recordings.count(states.QUARANTINED),
        "vanished": recordings.count(states.VANISHED),
        "skipped": len(listing.skipped),
        "bytes": recordings.size_bytes,
        "resent_bytes": sum(item.resent_bytes for item in every),
        "attempts": sum(item.attempts for item in every),
        "retries": sum(max(0, item.attempts - 1) for item in every),
        "seconds": round((now - visit.started_at).total_seconds()),
        "camera_clock_ahead_s": ahead_s,
    }
