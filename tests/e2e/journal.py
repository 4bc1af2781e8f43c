"""The guest's journal as it arrives on the host, and waiting for what it must say."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]
_LOOK_EVERY_S = 0.05


class NotSeenError(AssertionError):
    """What a test waited for did not come."""


class Journal:
    """Follows the file into which the guest's journal is copied, over all its boots."""

    def __init__(self, path: Path) -> None:
        """Build; the file may appear later."""
        self.path = path

    def mark(self) -> int:
        """Return a place: what is written from now on lies behind it."""
        return self.path.stat().st_size if self.path.exists() else 0

    def events(self, since: int = 0) -> Iterator[Entry]:
        """Yield the events that dockd's processes logged, oldest first; other lines are passed over."""
        for entry in self._entries(since):
            message = entry.get("MESSAGE")
            if isinstance(message, str) and message.startswith('{"'):
                try:
                    event = json.loads(message)
                except ValueError:
                    continue
                if "event" in event:
                    yield event

    def text(self, since: int = 0) -> str:
        """Return the journal for people."""
        return "\n".join(
            f"{entry.get('SYSLOG_IDENTIFIER', '?')}: {entry.get('MESSAGE')}"
            for entry in self._entries(since)
        )

    def has(self, words: str, *, since: int, within_s: float) -> bool:
        """Whether a line with these words comes in time."""
        deadline = time.monotonic() + within_s
        while words not in self.text(since):
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def wait_event(
        self, name: str, *, since: int = 0, within_s: float = 120.0, **wanted: object
    ) -> Entry:
        """Wait for an event whose keys have these values, or fit these patterns, and return it."""
        deadline = time.monotonic() + within_s
        while True:
            for event in self.events(since):
                if event["event"] == name and _fits(event, wanted):
                    return event
            if time.monotonic() > deadline:
                raise NotSeenError(f"no {name} {wanted} within {within_s:.0f} s")
            time.sleep(_LOOK_EVERY_S)

    def _entries(self, since: int) -> Iterator[Entry]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(since)
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue  # cut off: by a power cut, or because it is still being written


def _fits(event: Entry, wanted: Mapping[str, object]) -> bool:
    return all(
        key in event
        and (
            value.search(str(event[key])) if isinstance(value, re.Pattern) else event[key] == value
        )
        for key, value in wanted.items()
    )
