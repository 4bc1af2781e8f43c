"""What the journal keeps of each attempt to send a recording."""

from datetime import datetime, timedelta

from dockd.core.model import Recording, UploadAttempt
from dockd.target.tally import Tally

_LONGEST_ERROR_CHARS = 300


def as_journalled(begun: Recording, tally: Tally, now: datetime) -> UploadAttempt:
    """Return the attempt at hand; ``begun`` is the recording when its sending began."""
    return UploadAttempt(
        visit_id=begun.visit_id,
        path=begun.path,
        number=begun.attempts + max(0, tally.attempts - 1),
        begun_at=now - timedelta(seconds=tally.attempt_seconds),
        ended_at=now if tally.over else None,
        offset_from=tally.offset_from,
        offset_to=tally.offset_to,
        sent_bytes=tally.attempt_sent_bytes,
        resent_bytes=tally.attempt_resent_bytes,
        error=None if tally.error is None else str(tally.error)[:_LONGEST_ERROR_CHARS],
    )
