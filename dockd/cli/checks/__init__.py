"""What ``dockd doctor`` looks at. A check is a small function that returns its findings.

``dock`` has what belongs to the dock itself, ``machine`` what it stands on, ``partners`` the other
processes it needs. A check may raise DockdError or OSError: then it is its own bad news.
"""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table. ``advice`` is what a person should do, empty if nothing."""

    check: str
    level: Level
    words: str
    advice: str = ""
