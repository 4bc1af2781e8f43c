"""How log lines leave the process: JSON for machines, something pleasant on a terminal.

The lines themselves come from the catalogue in dockd.ops.events. What libraries and Python itself
have to say goes the same way, as the event ``library.message``.
"""

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from dockd.core.errors import DockdError
from dockd.core.model import display_name
from dockd.ops import events

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure_logs(level: str, fd: int | None = None) -> None:
    """Send log lines of at least ``level`` to a file descriptor; may be called again.

    Without ``fd`` that is standard output. On a terminal lines are laid out for people; elsewhere
    each is one JSON object with ``timestamp`` (RFC 3339, UTC), ``level``, ``event`` and its keys.
    """
    if fd is None:
        # Started without a standard output, descriptor 1 may be anything by now, the journal even.
        fd = 1 if sys.stdout is not None else -1
    on_terminal = fd >= 0 and os.isatty(fd)
    logger = _LineLogger(fd)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S" if on_terminal else "iso", utc=not on_terminal
            ),
            _plain,
            _for_people() if on_terminal else _as_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_FromLibraries()], force=True)


class _LineLogger:
    """Writes whole lines, unbuffered. A closed or full output loses lines, and says so once it can."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lost = 0
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        with self._lock:
            try:
                self._write(line.encode("utf-8", "backslashreplace") + b"\n")
            except OSError:
                self._lost += 1
                return
            lost, self._lost = self._lost, 0
        if lost:
            events.LOG_LINES_LOST.log(count=lost)

    # structlog calls the method that is named like the level.
    debug = info = warning = error = msg

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]


class _FromLibraries(logging.Handler):
    """Turns records of Python's own logging into an event of the catalogue."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        events.LIBRARY_MESSAGE.log(logger=record.name, message=record.getMessage(), error=error)


def _plain(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turn every value into what JSON can hold, and put the keys that all lines share first.

    An error that dockd explains is its one line. Any other exception is a mistake in the code, and
    brings its traceback along under ``exception``.
    """
    shared = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    plain: EventDict = {**shared, **{key: _value(value) for key, value in event.items()}}
    mistakes = [
        value
        for value in event.values()
        if isinstance(value, BaseException) and not isinstance(value, DockdError)
    ]
    if mistakes:
        plain["exception"] = "".join(traceback.format_exception(mistakes[0])).rstrip()
    return plain


def _value(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        return display_name(value)
    if isinstance(value, Mapping):
        return {_text(str(key)): _value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(inner) for inner in value]
    if isinstance(value, Enum):
        return _value(value.value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, BaseException) and not isinstance(value, DockdError):
        return _text(f"{type(value).__name__}: {value}")
    return _text(str(value))


def _text(text: str) -> str:
    """Return text on one line, without what would confuse a terminal or is not Unicode."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return json.dumps(event, separators=(",", ":"))


def _for_people() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        sort_keys=False,
        pad_event_to=24,
        exception_formatter=structlog.dev.plain_traceback,
    )
