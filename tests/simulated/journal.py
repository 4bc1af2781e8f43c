"""The dock's real journal, on a database in memory that survives the dock and dies when told to."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from dockd.core.errors import JournalUnwritableError
from dockd.journal import schema

T = TypeVar("T")


class PowerCutError(BaseException):
    """The dock lost power: no code of its own runs any more."""


class MemoryDatabase:
    """Stands in for dockd.journal.database.Database without threads and without a disk.

    What a returned ``write`` did is durable; the same object is the disk of the next start. The write
    number ``cut_at`` is the last one; with ``cut_before`` not even that is made. Writes whose number is
    in ``full`` meet a full disk.
    """

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        for script in schema.MIGRATIONS:
            self._connection.executescript(script)
        self.writes = 0
        self.cut_at: int | None = None
        self.cut_before = False
        self.full: set[int] = set()
        self.dead = False

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run in a savepoint of its own; all or nothing."""
        self.check_power()
        await asyncio.sleep(0)
        self.check_power()
        self.writes += 1
        if self.writes in self.full:
            raise JournalUnwritableError("journal: database or disk is full")
        cut = self.writes == self.cut_at
        if cut and self.cut_before:
            self.cut_power()
        self._connection.execute("SAVEPOINT one_write")
        try:
            result = fn(self._connection)
        except BaseException:
            self._connection.execute("ROLLBACK TO one_write")
            raise
        finally:
            self._connection.execute("RELEASE one_write")
        if cut:
            self.cut_power()
        await asyncio.sleep(0)
        return result

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Read what is durable."""
        self.check_power()
        await asyncio.sleep(0)
        return fn(self._connection)

    async def close(self) -> None:
        """Stay: it is the disk."""

    def cut_power(self) -> None:
        """Let everything of this dock stop here."""
        self.dead = True
        raise PowerCutError

    def check_power(self) -> None:
        """Raise PowerCutError once the power is gone."""
        if self.dead:
            raise PowerCutError
