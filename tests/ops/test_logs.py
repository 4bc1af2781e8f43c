"""Log lines as they leave the process."""

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from dockd.core.errors import CameraGoneError
from dockd.core.model import Verdict
from dockd.ops import events
from dockd.ops.logs import configure_logs

STATE = events.BAY_STATE
VALUES = dict.fromkeys(STATE.keys, "x")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Configure logs to a file; the function returns the lines written so far."""
    file = (tmp_path / "log").open("w+b")
    configure_logs("info", file.fileno())

    def read(level: str | None = None) -> list[dict[str, Any]]:
        if level is not None:
            configure_logs(level, file.fileno())
        return [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]

    yield read
    file.close()


def test_a_line_is_one_json_object(lines: Callable[..., list[dict[str, Any]]]) -> None:
    STATE.log(**VALUES)
    (line,) = lines()
    assert list(line) == ["timestamp", "level", "event", *STATE.keys]
    assert (line["level"], line["event"]) == ("info", "bay.state")
    assert line["timestamp"].endswith("Z")
    assert datetime.fromisoformat(line["timestamp"]).tzinfo == UTC


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"MOV\xff\n.MP4", "MOV\\xff\\n.MP4"),
        ("M\u00fcller \u65e5\u672c", "M\u00fcller \u65e5\u672c"),
        ("a\udcff\x1b[31m\nb", "a\\udcff\\x1b[31m\\nb"),
        (Path("/srv/1"), "/srv/1"),
        (Verdict.WIPED, "wiped"),
        (datetime(2031, 1, 1, tzinfo=UTC), "2031-01-01T00:00:00+00:00"),
        ({"a": [b"x", (1, None)]}, {"a": ["x", [1, None]]}),
        (CameraGoneError("BWC-7: gone"), "BWC-7: gone"),
    ],
)
def test_values_of_every_kind(
    lines: Callable[..., list[dict[str, Any]]], value: object, written: object
) -> None:
    STATE.log(**(VALUES | {"cause": value}))
    (line,) = lines()
    assert line["cause"] == written
    assert "exception" not in line


def test_a_mistake_brings_its_traceback(lines: Callable[..., list[dict[str, Any]]]) -> None:
    try:
        int("x")
    except ValueError as error:
        STATE.log(**(VALUES | {"cause": error}))
    (line,) = lines()
    assert line["cause"].startswith("ValueError: invalid literal")
    assert "test_logs.py" in line["exception"]


def test_the_level_can_change_at_any_time(lines: Callable[..., list[dict[str, Any]]]) -> None:
    lines("warning")
    STATE.log(**VALUES)
    assert lines() == []
    lines("info")
    STATE.log(**VALUES)
    assert len(lines()) == 1


def test_libraries_go_the_same_way(lines: Callable[..., list[dict[str, Any]]]) -> None:
    logging.getLogger("aiohttp.server").info("not of interest")
    logging.getLogger("asyncio").error("Task exception %s", "was never retrieved")
    (line,) = lines()
    assert line["event"] == "library.message"
    assert (line["logger"], line["message"]) == ("asyncio", "Task exception was never retrieved")


def test_a_full_output_loses_lines_and_says_so() -> None:
    """INV-3: a full disk under the log does not stop the daemon."""
    full = os.open("/dev/full", os.O_WRONLY)
    reader, writer = os.pipe()
    configure_logs("info", full)
    STATE.log(**VALUES)
    STATE.log(**VALUES)

    os.dup2(writer, full)
    STATE.log(**VALUES)

    written = [json.loads(line) for line in os.read(reader, 65536).splitlines()]
    assert [line["event"] for line in written] == ["bay.state", "log.lines_lost"]
    assert written[1]["count"] == 2
    for fd in (full, reader, writer):
        os.close(fd)


@pytest.mark.parametrize("how", ["stdout", "pipe"])
def test_a_closed_output_ends_nothing(how: str) -> None:
    code = (
        "from dockd.ops.logs import configure_logs; from dockd.ops import events; import os, sys\n"
        "configure_logs('info')\n"
        "held = os.open('/proc/self/exe', os.O_RDONLY)\n"
        "for _ in range(3): events.DAEMON_STOPPED.log(reason='test')\n"
        "sys.exit(7)"
    )
    if how == "stdout":
        shell = f'exec {sys.executable} -c "{code}" >&-'
        done = subprocess.run(["/bin/sh", "-c", shell], check=False)
    else:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([sys.executable, "-c", code], stdout=writer, check=False)
        os.close(writer)
    assert done.returncode == 7


def test_a_terminal_gets_no_json() -> None:
    ours, theirs = pty.openpty()
    configure_logs("info", theirs)
    STATE.log(**(VALUES | {"cause": "two words\x1b"}))
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "bay.state" in shown
    assert "two words" in shown
    assert "two words\x1b" not in shown
    assert not shown.startswith("{")
    assert shown.count("\n") == 1


@pytest.mark.parametrize("key", ["timestamp", "level", "event", "exception", "exc_info"])
def test_no_event_takes_a_key_that_all_lines_have(key: str) -> None:
    with pytest.raises(ValueError, match="reserved"):
        events.Event("test.event", events.INFO, "Never logged.", ("bay", key))
    assert "test.event" not in events.CATALOGUE
