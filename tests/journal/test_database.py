import asyncio
import contextlib
import os
import resource
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dockd.core.errors import JournalDamagedError, JournalError, JournalUnwritableError
from dockd.journal import database as module
from dockd.journal.database import Database, open_read_only

SCHEMA = ("CREATE TABLE numbers (number INTEGER PRIMARY KEY, text TEXT) STRICT;",)


@pytest.fixture
def path(fast_path: Path) -> Path:
    return fast_path / "numbers.sqlite"


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = await Database.open(path, SCHEMA)
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def busy(database: Database) -> AsyncIterator[list[str]]:
    """Keep the writer thread busy inside; yield the statements that it runs afterwards."""
    started, go_on = threading.Event(), threading.Event()
    statements: list[str] = []

    def occupy(connection: sqlite3.Connection) -> None:
        started.set()
        go_on.wait()
        connection.set_trace_callback(statements.append)

    occupied = asyncio.create_task(database.write(occupy))
    await asyncio.to_thread(started.wait)
    try:
        yield statements
    finally:
        go_on.set()
        await occupied


def insert(number: int) -> Callable[[sqlite3.Connection], int]:
    def change(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?, NULL)", (number,))
        return number

    return change


def all_numbers(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT number FROM numbers ORDER BY number")]


async def waiting(database: Database, count: int) -> None:
    while len(database._waiting) < count:  # noqa: ASYNC110 (the database owes nobody such an event)
        await asyncio.sleep(0)


async def test_what_was_written_is_read_at_once_and_after_reopening(path: Path) -> None:
    async with opened(path) as database:
        assert await database.write(insert(5)) == 5
        assert await database.read(all_numbers) == [5]
    async with opened(path) as database:
        assert await database.read(all_numbers) == [5]


async def test_files_are_for_the_owner_only(path: Path) -> None:
    previous = os.umask(0)
    try:
        async with opened(path) as database:
            await database.write(insert(1))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(previous)
    assert modes == {"numbers.sqlite" + suffix: 0o600 for suffix in ("", "-wal", "-shm")}


async def test_commits_are_durable_ones(path: Path) -> None:
    """INV-3: WAL with synchronous=FULL (2) syncs each commit."""
    async with opened(path) as database:
        settings = await database.write(
            lambda connection: [
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        )
    assert settings == ["wal", 2, 1]


async def test_closing_leaves_one_file_and_no_descriptor(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with opened(path) as database:
        await database.write(insert(1))
        await database.read(all_numbers)
    await database.close()
    assert [file.name for file in path.parent.iterdir()] == ["numbers.sqlite"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_writes_that_wait_together_share_one_commit(path: Path) -> None:
    async with opened(path) as database:
        async with busy(database) as statements:
            writes = [asyncio.create_task(database.write(insert(n))) for n in range(200)]
            await waiting(database, 200)
        assert await asyncio.gather(*writes) == list(range(200))
        assert statements.count("COMMIT") == 2  # that of the occupying write, and one for all
        assert await database.read(all_numbers) == list(range(200))


async def test_failing_write_does_not_fail_those_that_share_its_commit(path: Path) -> None:
    """INV-8: each write is undone alone, whole, whatever it raised."""

    def half_done(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (100, NULL)")
        raise LookupError("changed its mind")

    async with opened(path) as database:
        async with busy(database) as statements:
            good = [asyncio.create_task(database.write(insert(n))) for n in range(3)]
            bad = [
                asyncio.create_task(database.write(half_done)),
                asyncio.create_task(database.write(insert(1))),
            ]
            good.append(asyncio.create_task(database.write(insert(3))))
            await waiting(database, 6)
        assert await asyncio.gather(*good) == [0, 1, 2, 3]
        outcomes = await asyncio.gather(*bad, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LookupError, sqlite3.IntegrityError]
        assert statements.count("COMMIT") == 2
        assert await database.read(all_numbers) == [0, 1, 2, 3]


async def test_write_cancelled_while_it_waits_is_not_made(path: Path) -> None:
    """INV-3: wholly or not at all, and the others are not touched."""
    async with opened(path) as database:
        async with busy(database):
            writes = [asyncio.create_task(database.write(insert(n))) for n in range(3)]
            await waiting(database, 3)
            writes[1].cancel()
            await asyncio.wait([writes[1]])
        assert await writes[0] == 0
        assert await writes[2] == 2
        assert writes[1].cancelled()
        assert await database.read(all_numbers) == [0, 2]


async def test_write_cancelled_while_it_runs_is_made_whole(path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (1, NULL)")
        started.set()
        go_on.wait()
        connection.execute("INSERT INTO numbers VALUES (2, NULL)")

    async with opened(path) as database:
        write = asyncio.create_task(database.write(slow))
        await asyncio.to_thread(started.wait)
        write.cancel()
        await asyncio.wait([write])
        go_on.set()
        await database.write(insert(3))
        assert write.cancelled()
        assert await database.read(all_numbers) == [1, 2, 3]


async def test_queue_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WRITES_WAITING", 3)
    async with opened(path) as database:
        async with busy(database):
            writes = [asyncio.create_task(database.write(insert(n))) for n in range(5)]
            await waiting(database, 2)
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(database._waiting) == 2
        assert await asyncio.gather(*writes) == list(range(5))


async def test_large_backlog_is_split_into_several_commits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WRITES_A_COMMIT", 4)
    async with opened(path) as database:
        async with busy(database) as statements:
            writes = [asyncio.create_task(database.write(insert(n))) for n in range(10)]
            await waiting(database, 10)
        await asyncio.gather(*writes)
        assert statements.count("COMMIT") == 4


async def test_close_finishes_what_waits(path: Path) -> None:
    database = await Database.open(path, SCHEMA)
    async with busy(database):
        write = asyncio.create_task(database.write(insert(1)))
        await waiting(database, 1)
        closing = asyncio.create_task(database.close())
        await asyncio.sleep(0)
    assert await write == 1
    await closing
    with open_read_only(path) as connection:
        assert all_numbers(connection) == [1]


async def test_cancelled_open_leaves_no_descriptor(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    threads = set(threading.enumerate())
    opening = asyncio.create_task(Database.open(path, SCHEMA))
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    for thread in set(threading.enumerate()) - threads:
        thread.join()
    assert opening.cancelled()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def set_page_limit(database: Database, *, full: bool) -> None:
    """Make a full disk as SQLite sees it: no page can be added to the file; or undo it."""

    def limit(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0] if full else 2**30
        connection.execute(f"PRAGMA max_page_count={pages}")

    await database.write(limit)


def insert_much(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO numbers VALUES (1000, ?)", ("x" * 100_000,))


async def test_full_disk_is_said_to_be_retryable_and_the_same_object_recovers(path: Path) -> None:
    """INV-3: SQLITE_FULL keeps the old state; when there is room again the next write works."""
    async with opened(path) as database:
        await database.write(insert(1))
        await set_page_limit(database, full=True)
        with pytest.raises(JournalUnwritableError, match=r"numbers\.sqlite.*full"):
            await database.write(insert_much)
        assert await database.read(all_numbers) == [1]
        await set_page_limit(database, full=False)
        await database.write(insert_much)
        assert await database.read(all_numbers) == [1, 1000]


async def test_write_that_does_not_fit_does_not_take_others_with_it_for_ever(path: Path) -> None:
    """INV-8: beside a write that fills the disk the others succeed, or may be tried again."""
    async with opened(path) as database:
        await set_page_limit(database, full=True)
        async with busy(database):
            writes = [
                asyncio.create_task(database.write(change))
                for change in (insert(1), insert_much, insert(2))
            ]
            await waiting(database, 3)
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert isinstance(outcomes[1], JournalUnwritableError)
        succeeded = [outcome for outcome in outcomes if isinstance(outcome, int)]
        assert await database.read(all_numbers) == succeeded
        assert all(isinstance(outcome, int | JournalUnwritableError) for outcome in outcomes)


async def test_failing_file_writes_are_retryable_and_the_same_object_recovers(path: Path) -> None:
    """INV-3: a real failed write(2) to the log, by a limit on the size of files."""
    async with opened(path) as database:
        await database.write(insert(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            with pytest.raises(JournalUnwritableError, match=r"numbers\.sqlite"):
                await database.write(insert_much)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert await database.read(all_numbers) == [1]
        await database.write(insert_much)
        assert await database.read(all_numbers) == [1, 1000]


async def test_directory_that_is_missing_is_unwritable(tmp_path: Path) -> None:
    with pytest.raises(JournalUnwritableError, match="No such file"):
        await Database.open(tmp_path / "missing" / "numbers.sqlite", SCHEMA)


async def test_file_that_is_no_database_is_damaged(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(JournalDamagedError, match=r"numbers\.sqlite"):
        await Database.open(path, SCHEMA)
    with (
        pytest.raises(JournalDamagedError, match=r"numbers\.sqlite"),
        open_read_only(path),
    ):
        pytest.fail("it opened")


@pytest.mark.parametrize("where", [100, 4096, 4096 + 8, 8192])
async def test_damage_inside_the_file_is_found_when_it_is_opened(path: Path, where: int) -> None:
    async with opened(path) as database:
        for number in range(3):
            await database.write(insert(number))
        await database.write(insert_much)
    with path.open("r+b") as file:
        file.seek(where)
        file.write(b"\xff" * 64)
    with pytest.raises(JournalDamagedError, match=r"numbers\.sqlite"):
        await Database.open(path, SCHEMA)


async def test_file_cut_short_is_damaged(path: Path) -> None:
    async with opened(path) as database:
        await database.write(insert_much)
    with path.open("r+b") as file:
        file.truncate(8192)
    with pytest.raises(JournalDamagedError):
        await Database.open(path, SCHEMA)


async def test_newer_schema_is_refused(path: Path) -> None:
    newer = await Database.open(path, [*SCHEMA, "CREATE TABLE later (x);"])
    await newer.close()
    with pytest.raises(JournalDamagedError, match="schema version 2"):
        await Database.open(path, SCHEMA)


async def test_migrations_that_are_missing_are_made_once(path: Path) -> None:
    async with opened(path) as database:
        await database.write(insert(1))
    longer = [*SCHEMA, "ALTER TABLE numbers ADD COLUMN more TEXT DEFAULT 'x';"]
    for _ in range(2):
        database = await Database.open(path, longer)
        more = await database.read(
            lambda connection: connection.execute("SELECT more FROM numbers").fetchone()[0]
        )
        await database.close()
        assert more == "x"


async def test_migration_that_fails_leaves_the_version_before_it(path: Path) -> None:
    """INV-3: a script is made wholly or not at all."""
    async with opened(path) as database:
        await database.write(insert(1))
    broken = [*SCHEMA, "CREATE TABLE half (x); CREATE TABLE half (x);"]
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        await Database.open(path, broken)
    async with opened(path) as database:
        assert await database.read(all_numbers) == [1]
        names = await database.read(
            lambda connection: [
                row[0] for row in connection.execute("SELECT name FROM sqlite_schema")
            ]
        )
    assert "half" not in names


async def test_others_read_while_the_writer_writes(path: Path) -> None:
    def change_and_look(connection: sqlite3.Connection) -> list[int]:
        connection.execute("INSERT INTO numbers VALUES (2, NULL)")
        with open_read_only(path) as beside:
            return all_numbers(beside)

    async with opened(path) as database:
        await database.write(insert(1))
        assert await database.write(change_and_look) == [1]
        with open_read_only(path) as beside:
            assert all_numbers(beside) == [1, 2]


async def test_readers_cannot_write(path: Path) -> None:
    async with opened(path) as database:
        with pytest.raises(JournalUnwritableError, match="readonly"):
            await database.read(insert(1))
        with (
            open_read_only(path) as connection,
            pytest.raises(sqlite3.OperationalError, match="readonly"),
        ):
            insert(1)(connection)


async def test_one_read_sees_one_moment(path: Path) -> None:
    async with opened(path) as database:
        loop = asyncio.get_running_loop()

        def twice(connection: sqlite3.Connection) -> tuple[list[int], list[int]]:
            before = all_numbers(connection)
            asyncio.run_coroutine_threadsafe(database.write(insert(1)), loop).result()
            return before, all_numbers(connection)

        assert await database.read(twice) == ([], [])
        assert await database.read(all_numbers) == [1]


def test_reading_a_file_that_is_not_there_does_not_create_it(path: Path) -> None:
    with pytest.raises(JournalError, match="no such file"), open_read_only(path):
        pytest.fail("it opened")
    assert not path.exists()
