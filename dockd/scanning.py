"""What a listing of a camera means for its visit: new, changed and vanished recordings."""

from dataclasses import replace
from datetime import UTC, datetime

from dockd.core.model import (
    CustodyEvent,
    Listing,
    Recording,
    RecordingState,
    SkipReason,
    Visit,
    display_name,
)
from dockd.core.recording import Differences, RecordingEvent, after, carry_over, compare
from dockd.ops import events
from dockd.recordings import Recordings
from dockd.services import Services

_ADVICE = {
    SkipReason.UNREADABLE: "the card may be damaged; keep it, and recover by hand what is behind that",
    SkipReason.TOO_DEEP: "raise max_depth in [cameras] if this camera really makes such directories",
    SkipReason.TOO_MANY: "raise max_files in [cameras] if this camera really holds so much",
    SkipReason.OTHER_FILE_SYSTEM: "something is mounted there; take it away, or look at it by hand",
}
"""What a technician can do about an entry that hides footage."""

MAX_SKIPPED_LOGGED = 100
"""Skipped entries named in the log for one listing; the manifest names them all."""


async def take_in(
    services: Services, visit: Visit, recordings: Recordings, listing: Listing
) -> None:
    """Bring the visit's recordings up to date with a listing, in the journal and in ``recordings``.

    Files that may still be being written are left for a later listing.
    """
    found = compare(listing, recordings.by_path.values())
    new = [file for file in found.new if file.path not in listing.unsettled]
    changed = [
        file
        for file in found.changed
        if file.path not in listing.unsettled and not _set_aside(recordings.by_path[file.path])
    ]
    if not (new or changed or found.vanished):
        return
    earlier = await services.journal.earlier_recordings(visit.camera, visit.visit_id) if new else {}
    moved: list[Recording] = []
    for file in new:
        recording = carry_over(visit.visit_id, file, earlier.get(file.path))
        flagged = recording.flagged or file.path in listing.flagged
        moved.append(replace(recording, flagged=flagged))
    for file in changed:
        known = recordings.by_path[file.path]
        moved.append(
            replace(
                Recording(visit.visit_id, file.path, file.stat.size_bytes, file.stat.mtime_ns),
                state=after(known.state, RecordingEvent.FILE_CHANGED),
                flagged=known.flagged,
                attempts=known.attempts,
                resent_bytes=known.resent_bytes,
            )
        )
    for path in found.vanished:
        known = recordings.by_path[path]
        moved.append(replace(known, state=after(known.state, RecordingEvent.FILE_GONE)))
    await services.journal.put_recordings(
        moved,
        _listed(services, visit, listing, Differences(tuple(new), tuple(changed), found.vanished)),
    )
    recordings.by_path.update((recording.path, recording) for recording in moved)


def _set_aside(recording: Recording) -> bool:
    """Whether it rests until the bay tries again; else one that never holds still would never rest."""
    return recording.state is RecordingState.QUARANTINED


def log_skipped(visit: Visit, listing: Listing) -> None:
    """Log what was seen on the camera and is not a recording, each with its reason."""
    for entry in listing.skipped[:MAX_SKIPPED_LOGGED]:
        events.ENTRY_SKIPPED.log(
            bay=visit.bay,
            camera=visit.camera.camera_id,
            visit=visit.visit_id,
            path=display_name(entry.path),
            reason=entry.reason,
            detail=entry.detail,
        )


def what_is_hidden(listing: Listing) -> str | None:
    """Say what may hide recordings that nobody has seen, and what to do; None if there is nothing."""
    hidden = [entry for entry in listing.skipped if entry.reason.hides_footage]
    if not hidden:
        return None
    first = hidden[0]
    where = display_name(first.path) or "the root directory"
    what = f"{first.reason}, {first.detail}" if first.detail else first.reason
    return (
        f"{len(hidden)} entries could not be looked into, first {where} ({what}); "
        f"all else is copied, nothing is erased: {_ADVICE[first.reason]}"
    )


def newest_file_at(listing: Listing) -> datetime | None:
    """Return the newest modification time on the camera, which its clock cannot be behind."""
    newest_ns = max((file.stat.mtime_ns for file in listing.files), default=None)
    return None if newest_ns is None else _utc(newest_ns)


def _utc(time_ns: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        # A camera's clock may say anything; a year that Python cannot name is no reason to stop.
        return None


def _listed(services: Services, visit: Visit, listing: Listing, found: Differences) -> CustodyEvent:
    newest = newest_file_at(listing)
    now = services.clock.now()
    return CustodyEvent(
        "visit.listed",
        visit=visit.visit_id,
        camera=visit.camera.camera_id,
        details={
            "files": len(listing.files),
            "bytes": sum(file.stat.size_bytes for file in listing.files),
            "new": len(found.new),
            "changed": len(found.changed),
            "vanished": len(found.vanished),
            "skipped": len(listing.skipped),
            "newest_file_at": newest.isoformat() if newest else None,
            "dock_clock_at": now.isoformat(),
            "camera_time_zone": listing.time_zone,
            "camera_clock_ahead_s": round((newest - now).total_seconds()) if newest else None,
        },
    )
