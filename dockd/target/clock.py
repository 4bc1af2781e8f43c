"""Whether dock and store agree on the time, as far as the store's answers tell (RFC 9110 §6.6.1)."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from dockd.ops import events
from dockd.target.headers import http_date

TOLERANCE = timedelta(seconds=60)


def system_now() -> datetime:
    """Return this machine's wall-clock time, aware, in UTC."""
    return datetime.now(UTC)


class ClockWatch:
    """Remembers how far the store's clock was from this dock's, and says so when that is much."""

    def __init__(self, now: Callable[[], datetime] = system_now) -> None:
        """Build with the dock's clock."""
        self._now = now
        self._ahead: timedelta | None = None
        self._differs = False

    def heard(self, headers: Mapping[str, str]) -> None:
        """Take note of an answer's Date; a difference is logged once, until it has gone."""
        date = http_date(headers.get("Date", ""))
        if date is None:
            return
        now = self._now()
        self._ahead = date - now
        differs = abs(self._ahead) > TOLERANCE
        if differs and not self._differs:
            events.TARGET_CLOCK_DIFFERS.log(
                dock_clock=_text(now),
                store_clock=_text(date),
                store_ahead_s=round(self._ahead.total_seconds()),
            )
        self._differs = differs

    def words(self) -> str:
        """Return what both clocks say, for a person who looks for the one that is wrong."""
        now = self._now()
        words = f"this dock's clock says {_text(now)}"
        if self._ahead is None:
            return f"{words}; the store's clock is not known yet"
        return f"{words}, the store's {_text(now + self._ahead)}"


def _text(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
