"""The dock's durable state: visits, recordings and the custody log, in one SQLite file.

Each change is one transaction with its custody entry, so state and history cannot disagree. The head
of the custody chain is never kept in memory: it is read inside the transaction that extends it, so
a rolled-back change leaves no trace in the chain either.
"""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from dockd.core.errors import JournalDamagedError, JournalError
from dockd.core.model import (
    GENESIS,
    Camera,
    CustodyEvent,
    Recording,
    SealedEntry,
    UploadAttempt,
    Visit,
)
from dockd.journal import schema
from dockd.journal.database import Database, open_read_only, schema_version

T = TypeVar("T")

_ENTRIES_A_PAGE = 1000
_BEFORE_ALL = -(2**63)  # not 1: a row that someone slipped in before the first must show too


class Seal(Protocol):
    """Gives an event its time and signature; see :func:`dockd.evidence.custody.seal`."""

    def __call__(self, previous_hash: str, seq: int, event: CustodyEvent, /) -> SealedEntry:
        """Return the entry that follows the one with ``previous_hash``."""


class SqliteJournal:
    """Implements :class:`dockd.core.interfaces.Journal`. Made by :meth:`open`."""

    def __init__(self, path: Path, database: Database, seal: Seal) -> None:
        """Build on an open database; use :meth:`open`."""
        self._path = path
        self._database = database
        self._seal = seal

    @classmethod
    async def open(cls, path: Path, *, seal: Seal, key_id: str) -> "SqliteJournal":
        """Open the journal, or create it with the first entry of its custody log, ``log.started``,
        which names the key that signs the log (``key_id``).

        Raises :class:`JournalDamagedError` and :class:`JournalUnwritableError`.
        """
        database = await Database.open(path, schema.MIGRATIONS)
        journal = cls(path, database, seal)
        try:
            await database.write(lambda connection: journal._start_log(connection, key_id))
        except BaseException:
            await database.close()
            raise
        return journal

    async def close(self) -> None:
        """Finish what waits to be written, then close the file."""
        await self._database.close()

    async def custody_head(self) -> str:
        """Return the hash of the newest custody entry, hexadecimal."""
        return await self._database.read(lambda connection: _head(connection)[1])

    async def add_custody(self, event: CustodyEvent) -> str:
        """Append to the custody log alone; return the new head."""
        return await self._database.write(lambda connection: self._append(connection, event))

    async def begin_visit(self, visit: Visit, event: CustodyEvent) -> None:
        """Record a new visit."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(schema.INSERT_VISIT, schema.visit_values(visit))
            self._append(connection, event)

        await self._database.write(change)

    async def update_visit(self, visit: Visit, event: CustodyEvent | None) -> None:
        """Replace what is known of a visit. Raises ValueError when it was never begun."""

        def change(connection: sqlite3.Connection) -> None:
            if connection.execute(schema.UPDATE_VISIT, schema.visit_values(visit)).rowcount != 1:
                raise ValueError(f"visit {visit.visit_id} was never begun")
            if event is not None:
                self._append(connection, event)

        await self._database.write(change)

    async def present_visit(self, bay: str) -> Visit | None:
        """Return the bay's newest visit that has not ended, if there is one."""
        rows = await self._rows(
            "SELECT * FROM visits WHERE bay = ? AND ended_at IS NULL ORDER BY number DESC LIMIT 1",
            (bay,),
            schema.visit_from,
        )
        return rows[0] if rows else None

    async def newest_erased_visit(self, but: Iterable[str] = ()) -> Visit | None:
        """Return the newest visit that was wiped on its manifest's receipt, and is none of these."""
        values = (json.dumps(list(but)),)
        rows = await self._rows(schema.NEWEST_ERASED_VISIT, values, schema.visit_from)
        return rows[0] if rows else None

    async def recordings(self, visit_id: str) -> Sequence[Recording]:
        """Return the recordings of a visit, in the order of their paths."""
        return await self._rows(
            "SELECT * FROM recordings WHERE visit_id = ? ORDER BY path",
            (visit_id,),
            schema.recording_from,
        )

    async def earlier_recordings(self, camera: Camera, visit_id: str) -> Mapping[bytes, Recording]:
        """Return the newest known recording of each path from other visits of the same camera."""
        rows = await self._rows(
            schema.NEWEST_OF_OTHER_VISITS, (camera.camera_id, visit_id), schema.recording_from
        )
        return {recording.path: recording for recording in rows}

    async def put_recordings(
        self,
        recordings: Sequence[Recording],
        event: CustodyEvent | None,
        attempts: Sequence[UploadAttempt] = (),
    ) -> None:
        """Insert or replace recordings of a visit that was begun, and attempts, all or none.

        Of each recording's attempts only the first and the last ones are kept.
        """
        attempted = [schema.attempt_values(each) for each in attempts]

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(
                schema.PUT_RECORDING, [schema.recording_values(each) for each in recordings]
            )
            connection.executemany(schema.PUT_ATTEMPT, attempted)
            connection.executemany(schema.FORGET_ATTEMPTS, attempted)
            if event is not None:
                self._append(connection, event)

        await self._database.write(change)

    async def end_wipe(self, visit_id: str, event: CustodyEvent) -> bool:
        """Mark the confirmed recordings of a visit as erased; return whether that was news.

        When the visit has none, but others, its wipe's end is known already, and nothing is written.
        """

        def change(connection: sqlite3.Connection) -> bool:
            erased = connection.execute(schema.ERASE_CONFIRMED, (visit_id,)).rowcount
            known = connection.execute(schema.HAS_RECORDINGS, (visit_id,)).fetchone()[0]
            if known and not erased:
                return False
            self._append(connection, event)
            return True

        return await self._database.write(change)

    async def custody_entries(self) -> AsyncIterator[SealedEntry]:
        """Iterate over the custody log, oldest entry first, a page at a time."""
        start = _BEFORE_ALL
        while page := await self._database.read(partial(_page, from_seq=start)):
            for sealed in page:
                yield sealed
            start = page[-1].seq + 1

    async def _rows(
        self, query: str, values: tuple[str, ...], convert: Callable[[sqlite3.Row], T]
    ) -> list[T]:
        rows = await self._database.read(
            lambda connection: connection.execute(query, values).fetchall()
        )
        try:
            return [convert(row) for row in rows]
        except ValueError as error:
            raise JournalDamagedError(f"{self._path}: {error}") from error

    def _start_log(self, connection: sqlite3.Connection, key_id: str) -> None:
        if _head(connection)[0] == 0:
            self._append(connection, CustodyEvent("log.started", details={"key_id": key_id}))

    def _append(self, connection: sqlite3.Connection, event: CustodyEvent) -> str:
        last_seq, head = _head(connection)
        sealed = self._seal(head, last_seq + 1, event)
        connection.execute(
            "INSERT INTO custody (seq, hash, entry, signature) VALUES (?, ?, ?, ?)",
            (sealed.seq, sealed.hash, sealed.entry, sealed.signature),
        )
        return sealed.hash


def read_attempts(path: Path) -> Iterator[tuple[str, UploadAttempt]]:
    """Iterate over camera and attempt, oldest visit first, of a journal that may be in use. Blocking.

    Raises :class:`JournalError` when there is no journal, :class:`JournalDamagedError`.
    """
    with open_read_only(path) as connection:
        if schema_version(connection) != len(schema.MIGRATIONS):
            raise JournalError(f"{path}: not a journal, or one of another version than this dockd")
        for row in connection.execute(schema.ATTEMPTS):
            try:
                yield row["camera_id"], schema.attempt_from(row)
            except ValueError as error:
                raise JournalDamagedError(f"{path}: {error}") from error


def read_custody(path: Path) -> Iterator[SealedEntry]:
    """Iterate over the custody log of a journal that may be in use, oldest entry first. Blocking.

    Raises :class:`JournalError` when there is no journal, :class:`JournalDamagedError`.
    """
    with open_read_only(path) as connection:
        if not 0 < schema_version(connection) <= len(schema.MIGRATIONS):
            raise JournalError(f"{path}: not a journal, or one of a newer version")
        start = _BEFORE_ALL
        while page := _page(connection, start):
            yield from page
            start = page[-1].seq + 1


def count_unconfirmed(path: Path) -> int:
    """Return how many recordings no store has confirmed, by a journal that may be in use. Blocking.

    Raises as :func:`read_custody`.
    """
    with open_read_only(path) as connection:
        if not 0 < schema_version(connection) <= len(schema.MIGRATIONS):
            raise JournalError(f"{path}: not a journal, or one of a newer version")
        return int(connection.execute(schema.COUNT_UNCONFIRMED).fetchone()[0])


def _head(connection: sqlite3.Connection) -> tuple[int, str]:
    row = connection.execute("SELECT seq, hash FROM custody ORDER BY seq DESC LIMIT 1").fetchone()
    return (row["seq"], row["hash"]) if row else (0, GENESIS)


def _page(connection: sqlite3.Connection, from_seq: int) -> list[SealedEntry]:
    rows = connection.execute(
        "SELECT seq, hash, entry, signature FROM custody WHERE seq >= ? ORDER BY seq LIMIT ?",
        (from_seq, _ENTRIES_A_PAGE),
    )
    return [SealedEntry(*row) for row in rows]
