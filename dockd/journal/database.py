"""One SQLite file with its own writer thread and group commit.

Writes that arrive while a commit is under way share the next one, so that many small changes cost
few fsyncs. Each is in a savepoint of its own: one that fails is undone alone. A write's future is
resolved only after the commit, so "it returned" means "it survives a power cut" (WAL with
``synchronous=FULL``, https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

import asyncio
import concurrent.futures
import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from dockd.core.errors import JournalDamagedError, JournalError, JournalUnwritableError
from dockd.journal import durable

T = TypeVar("T")

_WRITES_A_COMMIT = 256
_WRITES_WAITING = 4096
_LOCK_TIMEOUT_S = 5.0

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNWRITABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


@dataclass(slots=True)
class _Write(Generic[T]):
    fn: Callable[[sqlite3.Connection], T]
    future: "concurrent.futures.Future[T]" = field(default_factory=concurrent.futures.Future)


class Database:
    """A SQLite database for one event loop. Made by :meth:`open`.

    Raises, from every method: :class:`JournalUnwritableError` when the disk is full, read-only or
    failing (the same object works again when it is back), :class:`JournalDamagedError` when the file
    is no sound database or of a newer version. Other ``sqlite3.Error`` are the caller's mistakes.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        """Remember where and what; use :meth:`open`."""
        self._path = path
        self._migrations = tuple(migrations)
        self._waiting: deque[_Write[Any]] = deque()
        self._room = asyncio.Semaphore(_WRITES_WAITING)
        self._writer_thread = concurrent.futures.ThreadPoolExecutor(1, f"{path.stem}-write")
        self._reader_thread = concurrent.futures.ThreadPoolExecutor(1, f"{path.stem}-read")
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    @classmethod
    async def open(cls, path: Path, migrations: Sequence[str]) -> "Database":
        """Open the file, or create it with mode 0600; check it, and bring its schema up to date.

        ``migrations`` are SQL scripts; the file's ``user_version`` counts those it has had.
        """
        database = cls(path, migrations)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(database._writer_thread, database._prepare)
        except asyncio.CancelledError:
            database._shut_down()
            raise
        except BaseException:
            await database.close()
            raise
        return database

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``fn`` in the writer thread, inside a transaction, and return its result once durable.

        ``fn`` must not begin or end transactions. When the waiting task is cancelled the change is
        made wholly or not at all, and which of the two is not known.
        """
        async with self._room:
            write = _Write(fn)
            self._waiting.append(write)
            self._writer_thread.submit(self._commit_waiting)
            return await asyncio.wrap_future(write.future)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``fn`` in the reader thread on one snapshot, which holds every write that returned."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader_thread, self._read, fn)

    async def close(self) -> None:
        """Finish the writes that wait, then close the file. Safe to call twice."""
        closed = self._shut_down()
        if closed is not None:
            await asyncio.wrap_future(closed)

    def _shut_down(self) -> "concurrent.futures.Future[None] | None":
        # Both connections are closed in their threads, the writer's last, so that closing it folds
        # the write-ahead log into the file; this goes on even when nobody waits for it.
        try:
            reader_closed = self._reader_thread.submit(self._close_reader)
        except RuntimeError:
            return None
        closed = self._writer_thread.submit(self._close_writer, reader_closed)
        self._reader_thread.shutdown(wait=False)
        self._writer_thread.shutdown(wait=False)
        return closed

    def _prepare(self) -> None:
        with _translated(self._path):
            _create_file(self._path)
            connection = self._open_writer()
            _check(connection, self._path)
            _migrate(connection, self._migrations, self._path)

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            self._writer = _connect(self._path, read_only=False)
        return self._writer

    def _open_reader(self) -> sqlite3.Connection:
        if self._reader is None:
            self._reader = _connect(self._path, read_only=True)
        return self._reader

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _close_writer(self, reader_closed: "concurrent.futures.Future[None]") -> None:
        concurrent.futures.wait([reader_closed])
        if self._writer is not None:
            with _translated(self._path):
                self._writer.close()

    def _read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        with _translated(self._path):
            connection = self._open_reader()
            connection.execute("BEGIN")
            try:
                return fn(connection)
            finally:
                self._roll_back(connection)

    def _commit_waiting(self) -> None:
        writes = self._take()
        if not writes:
            return
        try:
            with _translated(self._path):
                settle_all = self._transaction(writes)
        except BaseException as error:  # noqa: BLE001 (a waiter must never be left without an answer)
            settle_all = [partial(write.future.set_exception, error) for write in writes]
        for settle in settle_all:
            settle()

    def _take(self) -> list[_Write[Any]]:
        writes: list[_Write[Any]] = []
        while self._waiting and len(writes) < _WRITES_A_COMMIT:
            write = self._waiting.popleft()
            if write.future.set_running_or_notify_cancel():
                writes.append(write)
        return writes

    def _transaction(self, writes: list[_Write[Any]]) -> list[Callable[[], None]]:
        connection = self._open_writer()
        try:
            connection.execute("BEGIN IMMEDIATE")
            settle_all = [self._run(connection, write) for write in writes]
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back(connection)
            raise
        return settle_all

    def _run(self, connection: sqlite3.Connection, write: _Write[Any]) -> Callable[[], None]:
        """Run one write in its savepoint; return what will answer its waiter after the commit."""
        connection.execute("SAVEPOINT one_write")
        try:
            with _translated(self._path):
                result = write.fn(connection)
        except Exception as error:
            if not connection.in_transaction:
                # SQLite has given up the whole transaction, as it may when the disk is full.
                raise JournalUnwritableError(f"{self._path}: {error}") from error
            connection.execute("ROLLBACK TO one_write")
            connection.execute("RELEASE one_write")
            return partial(write.future.set_exception, error)
        connection.execute("RELEASE one_write")
        return partial(write.future.set_result, result)

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # Its state is unknown now. Closing rolls back too; the next use opens a new one.
            if connection is self._writer:
                self._writer = None
            else:
                self._reader = None
            connection.close()


@contextlib.contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading, beside a process that may be writing to it. Blocking.

    Raises :class:`JournalError` when there is none, :class:`JournalDamagedError` when it is unsound.
    """
    if not path.exists():
        raise JournalError(f"{path}: there is no such file")
    with _translated(path):
        connection = _connect(path, read_only=True)
        try:
            _check(connection, path)
            yield connection
        finally:
            connection.close()


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_LOCK_TIMEOUT_S,
        isolation_level=None,
    )
    try:
        connection.row_factory = sqlite3.Row
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _create_file(path: Path) -> None:
    # SQLite would create it with the umask's mode; its -wal and -shm files copy the mode of this one.
    try:
        if not path.exists():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                durable.inherit_owner(descriptor, path.parent)
            finally:
                os.close(descriptor)
            durable.sync_directory(path.parent)
    except OSError as error:
        raise JournalUnwritableError(f"{path}: {error.strerror}") from error


def _check(connection: sqlite3.Connection, path: Path) -> None:
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise JournalDamagedError(f"{path}: damaged: {' '.join(str(verdict).split())}")


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str], path: Path) -> None:
    version = schema_version(connection)
    if version > len(migrations):
        raise JournalDamagedError(
            f"{path}: of schema version {version}; this dockd knows versions up to {len(migrations)}"
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA user_version={number};\nCOMMIT;"
            )
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def schema_version(connection: sqlite3.Connection) -> int:
    """Return how many migrations the file has had."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn faults of disk and file into the errors that say what to do about them."""
    try:
        yield
    except sqlite3.Error as error:
        primary_code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if primary_code in _DAMAGED:
            raise JournalDamagedError(f"{path}: {error}") from error
        if primary_code in _UNWRITABLE:
            raise JournalUnwritableError(f"{path}: {error}") from error
        raise
