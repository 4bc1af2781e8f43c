"""The catalogue of log events: every name, level and key that dockd ever logs.

Code logs through these objects only, as ``events.BAY_STATE.log(bay="1", state="empty")``, so a name
or key that is not in the catalogue cannot be logged. docs/log-events.md is drawn from this file.
No footage content, secret or token is ever a value.
"""

import logging
from dataclasses import dataclass, field

import structlog

_logger = structlog.stdlib.get_logger("dockd")

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR

CATALOGUE: dict[str, "Event"] = {}


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of log line. Every key is always present, so that queries need no special case."""

    name: str
    level: int
    meaning: str
    keys: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Enter the event into the catalogue."""
        if self.name in CATALOGUE:
            raise ValueError(f"event {self.name} is in the catalogue twice")
        CATALOGUE[self.name] = self

    def log(self, **values: object) -> None:
        """Log one line. Raises ValueError when the keys are not exactly those of the catalogue."""
        if set(values) != set(self.keys):
            raise ValueError(f"event {self.name} takes the keys {self.keys}, not {tuple(values)}")
        _logger.log(self.level, self.name, **values)


DAEMON_STARTED = Event(
    "daemon.started", INFO, "The daemon has read its configuration and begins to look at its bays.",
    ("version", "dock", "bays", "target"),
)  # fmt: skip
DAEMON_STOPPED = Event("daemon.stopped", INFO, "The daemon has stopped in order.", ("reason",))

BAY_STATE = Event(
    "bay.state", INFO, "A bay moved to another state of its lifecycle.",
    ("bay", "camera", "visit", "state", "previous", "cause"),
)  # fmt: skip
