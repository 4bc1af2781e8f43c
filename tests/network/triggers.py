"""What is changed in a daemon's process before it begins."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dockd import daemon, recheck


class FrequentRechecks:
    """The store is asked all the time, and not every hour, whether it still holds what it signed for."""

    def arm(self) -> None:
        """Shorten the pauses."""
        recheck.LONGEST_PAUSE_S = 0.3


@dataclass(frozen=True, slots=True)
class WrongClock:
    """The machine's clock is wrong by so many days, until a file exists."""

    days: float
    mended: Path

    def arm(self) -> None:
        """Change what the daemon takes for the time."""

        def now(_: object) -> datetime:
            wrong = timedelta(0 if self.mended.exists() else self.days)
            return datetime.now(UTC) + wrong

        daemon.SystemClock.now = now  # type: ignore[method-assign, assignment]
