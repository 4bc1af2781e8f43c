"""Run the scripted visit again and again, and die by SIGKILL before each database operation in turn.

``python -m tests.journal.killed_visit DIRECTORY`` leaves one directory per run: the journal as the
kill left it, and a file ``done`` with one byte for each step that had returned. The last run survives.
"""

import asyncio
import os
import signal
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tests.journal.scripted_visit import STEPS, open_journal

_MOST_OPERATIONS = 1000


def connections_that_kill(kill_at: int) -> type[sqlite3.Connection]:
    """Return a connection class that kills this process before its ``kill_at``-th operation."""
    operations = 0

    def count() -> None:
        nonlocal operations
        operations += 1
        if operations == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    class Killing(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            count()
            return super().execute(*args)

        def executemany(self, *args: Any) -> sqlite3.Cursor:
            count()
            return super().executemany(*args)

        def executescript(self, script: str, /) -> sqlite3.Cursor:
            count()
            return super().executescript(script)

    return Killing


async def visit(directory: Path) -> None:
    """Do all steps, noting each one that has returned."""
    done = os.open(directory / "done", os.O_WRONLY | os.O_CREAT, 0o600)
    journal = await open_journal(directory / "journal.sqlite")
    for step in STEPS:
        await step(journal)
        os.write(done, b".")
    await journal.close()


def run(directory: Path, kill_at: int) -> bool:
    """Do the visit in a child; return whether it was killed."""
    directory.mkdir()
    child = os.fork()
    if child == 0:
        killing = partial(sqlite3.connect, factory=connections_that_kill(kill_at))
        sqlite3.connect = killing  # type: ignore[assignment]
        asyncio.run(visit(directory))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"run {kill_at} failed")
    return False


if __name__ == "__main__":
    for number in range(1, _MOST_OPERATIONS):
        if not run(Path(sys.argv[1]) / f"{number:04}", number):
            break
    else:
        raise SystemExit("it never got through")
