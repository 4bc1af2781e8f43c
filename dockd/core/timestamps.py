"""One way to write a moment: RFC 3339, UTC, microseconds, as in ``2026-11-20T20:13:11.000000Z``."""

from datetime import UTC, datetime


def to_rfc3339(at: datetime) -> str:
    """Return an aware datetime as text that also sorts by time. Raises ValueError for a naive one."""
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} has no time zone")
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def from_rfc3339(text: str) -> datetime:
    """Read such a text back; raises ValueError when it is not a moment with a time zone."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return at.astimezone(UTC)
