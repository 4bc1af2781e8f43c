import asyncio
import contextlib
import sqlite3
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.errors import JournalDamagedError, JournalError
from dockd.core.interfaces import Journal
from dockd.core.model import (
    Camera,
    Container,
    ContainerVerdict,
    CustodyEvent,
    IdentifiedBy,
    Recording,
    RecordingState,
    UploadAttempt,
    Verdict,
    Visit,
)
from dockd.evidence.custody import content, verify_chain
from dockd.journal import journal as module
from dockd.journal import schema
from dockd.journal.database import Database
from dockd.journal.journal import SqliteJournal, read_attempts, read_custody
from dockd.journal.schema import FIRST_ATTEMPTS, LAST_ATTEMPTS
from tests.journal.scripted_visit import KEY, NOW, ODD, PLAIN, VISIT, event, look, open_journal


@pytest.fixture
def path(fast_path: Path) -> Path:
    return fast_path / "journal.sqlite"


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteJournal]:
    journal = await open_journal(path)
    try:
        yield journal
    finally:
        await journal.close()


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[SqliteJournal]:
    async with opened(path) as journal:
        yield journal


def entries(path: Path) -> list[dict[str, Any]]:
    said = [content(sealed) for sealed in read_custody(path)]
    return [each for each in said if isinstance(each, dict)]


async def begin(journal: SqliteJournal, visit_id: str, camera_id: str = "camera-1") -> Visit:
    visit = Visit(visit_id, "1", Camera(camera_id, IdentifiedBy.SERIAL), "here", NOW)
    await journal.begin_visit(visit, event("visit.began"))
    return visit


async def test_it_is_a_journal(journal: SqliteJournal) -> None:
    as_interface: Journal = journal
    assert len(await as_interface.custody_head()) == 64


async def test_new_log_starts_with_the_name_of_its_key_and_only_once(path: Path) -> None:
    """INV-4: even the first head is an anchor."""
    for _ in range(2):
        async with opened(path):
            pass
    assert [(each["event"], each["details"]) for each in entries(path)] == [
        ("log.started", {"key_id": KEY.key_id})
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_head_is_that_of_the_newest_entry(journal: SqliteJournal, path: Path) -> None:
    first = await journal.custody_head()
    second = await journal.add_custody(event("looked"))
    assert first != second
    assert await journal.custody_head() == second
    report = verify_chain(read_custody(path), KEY.public, [first, second])
    assert report.sound
    assert report.head == second


MOMENT = st.none() | st.datetimes(timezones=st.just(UTC))
TEXT = st.none() | st.text(max_size=10)
VISITS = st.builds(
    Visit,
    visit_id=st.just("visit-1"),
    bay=st.just("1"),
    camera=st.builds(Camera, st.text(max_size=10), st.sampled_from(IdentifiedBy)),
    started_at=st.datetimes(timezones=st.just(UTC)),
    finished_at=MOMENT,
    verdict=st.none() | st.sampled_from(Verdict),
    ended_at=st.none(),
    manifest=TEXT,
    manifest_url=TEXT,
    manifest_receipt=TEXT,
    hold_until=MOMENT,
)
COUNT = st.integers(0, 2**63 - 1)
RECORDINGS = st.builds(
    Recording,
    visit_id=st.just("visit-1"),
    path=st.binary(max_size=40),
    size_bytes=COUNT,
    mtime_ns=st.integers(-(2**63), 2**63 - 1),
    flagged=st.booleans(),
    state=st.sampled_from(RecordingState),
    upload_url=TEXT,
    upload_key=TEXT,
    sha256=TEXT,
    receipt=TEXT,
    container=st.none()
    | st.builds(Container, st.text(max_size=5), st.sampled_from(ContainerVerdict), st.text()),
    reason=TEXT,
    blocks_wipe=TEXT,
    attempts=COUNT,
    resent_bytes=COUNT,
    furthest_bytes=COUNT,
)


@pytest.fixture(scope="module")
def rows() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    for script in schema.MIGRATIONS:
        connection.executescript(script)
    return connection


@given(visit=VISITS, recordings=st.lists(RECORDINGS, max_size=3, unique_by=lambda each: each.path))
def test_every_field_comes_back_exactly(
    rows: sqlite3.Connection, visit: Visit, recordings: list[Recording]
) -> None:
    """INV-2: names of any bytes and every value survive the tables."""
    rows.execute("BEGIN")
    try:
        rows.execute(schema.INSERT_VISIT, schema.visit_values(replace(visit, manifest="old")))
        assert rows.execute(schema.UPDATE_VISIT, schema.visit_values(visit)).rowcount == 1
        assert schema.visit_from(rows.execute("SELECT * FROM visits").fetchone()) == visit
        rows.executemany(schema.PUT_RECORDING, map(schema.recording_values, recordings))
        found = rows.execute("SELECT * FROM recordings ORDER BY path").fetchall()
        assert [schema.recording_from(row) for row in found] == sorted(
            recordings, key=lambda each: each.path
        )
    finally:
        rows.execute("ROLLBACK")


async def test_visit_is_present_until_it_has_ended(journal: SqliteJournal, path: Path) -> None:
    assert await journal.present_visit("1") is None
    await journal.begin_visit(VISIT, event("visit.began"))
    assert await journal.present_visit("1") == VISIT
    assert await journal.present_visit("2") is None
    later = NOW.astimezone(timezone(timedelta(hours=1))) + timedelta(minutes=1)
    finished = replace(VISIT, finished_at=later, verdict=Verdict.KEPT, hold_until=later)
    await journal.update_visit(finished, event("visit.finished"))
    assert await journal.present_visit("1") == finished
    await journal.update_visit(replace(finished, ended_at=later), None)
    assert await journal.present_visit("1") is None
    names = [each["event"] for each in entries(path)]
    assert names == ["log.started", "visit.began", "visit.finished"]


async def test_newest_of_two_present_visits_counts(journal: SqliteJournal) -> None:
    """INV-7: a visit that was never ended does not stop the next."""
    await begin(journal, "visit-1")
    second = await begin(journal, "visit-2")
    assert await journal.present_visit("1") == second


async def test_change_to_an_unknown_visit_leaves_no_trace(
    journal: SqliteJournal, path: Path
) -> None:
    """INV-4: no entry without its change."""
    with pytest.raises(ValueError, match="never begun"):
        await journal.update_visit(VISIT, event("visit.finished"))
    with pytest.raises(sqlite3.IntegrityError):
        await journal.put_recordings([PLAIN], event("listing.taken"))
    assert len(entries(path)) == 1
    assert await journal.recordings("visit-1") == []


async def test_event_that_cannot_be_sealed_undoes_its_change(journal: SqliteJournal) -> None:
    """INV-4: no change without its entry."""
    with pytest.raises(ValueError, match="bytes"):
        await journal.begin_visit(VISIT, CustodyEvent("visit.began", details={"name": b"x"}))
    assert await journal.present_visit("1") is None


async def test_recordings_come_in_the_order_of_their_paths(journal: SqliteJournal) -> None:
    await journal.begin_visit(VISIT, event("visit.began"))
    paths = [b"b", b"\xff", b"a\x00b", b"A", b"a"]
    recordings = [replace(PLAIN, path=path) for path in paths]
    await journal.put_recordings(recordings, None)
    found = await journal.recordings("visit-1")
    assert [each.path for each in found] == sorted(paths)


async def test_recording_put_again_replaces_the_old_one(journal: SqliteJournal) -> None:
    await journal.begin_visit(VISIT, event("visit.began"))
    await journal.put_recordings([PLAIN, ODD], None)
    changed = replace(PLAIN, reason="the store is full", attempts=3)
    await journal.put_recordings([changed], None)
    assert await journal.recordings("visit-1") == [changed, ODD]


async def test_the_end_of_a_wipe_is_told_once(journal: SqliteJournal, path: Path) -> None:
    """INV-4: whoever hears of it first; what was not confirmed was not erased."""
    await begin(journal, "v1")
    confirmed = replace(PLAIN, visit_id="v1", state=RecordingState.CONFIRMED)
    pending = replace(ODD, visit_id="v1", state=RecordingState.PENDING)
    await journal.put_recordings([confirmed, pending], None)
    assert await journal.end_wipe("v1", event("wipe.done"))
    assert not await journal.end_wipe("v1", event("wipe.done"))
    states = {item.path: item.state for item in await journal.recordings("v1")}
    assert states == {
        confirmed.path: RecordingState.ERASED,
        pending.path: RecordingState.PENDING,
    }
    assert [each["event"] for each in entries(path)].count("wipe.done") == 1


async def test_the_end_of_a_wipe_of_a_lost_journal_is_told_all_the_same(
    journal: SqliteJournal, path: Path
) -> None:
    assert await journal.end_wipe("unknown", event("wipe.done"))
    assert entries(path)[-1]["event"] == "wipe.done"


async def test_recordings_are_put_all_or_none(journal: SqliteJournal) -> None:
    """INV-3."""
    await journal.begin_visit(VISIT, event("visit.began"))
    with pytest.raises(OverflowError):
        await journal.put_recordings([PLAIN, replace(ODD, size_bytes=2**63)], event("listing"))
    assert await journal.recordings("visit-1") == []


@pytest.mark.parametrize("state", [RecordingState.ERASED, RecordingState.VANISHED])
async def test_recordings_that_are_no_longer_on_the_camera_are_no_earlier_ones(
    journal: SqliteJournal, state: RecordingState
) -> None:
    """INV-1: nothing is carried over to a new clip from one of its name that was erased."""
    for visit_id, then in (("visit-1", RecordingState.CONFIRMED), ("visit-2", state)):
        begun = await begin(journal, visit_id)
        await journal.put_recordings([Recording(visit_id, b"a", 1, 2, state=then)], None)
    assert await journal.earlier_recordings(begun.camera, "visit-3") == {}


async def test_earlier_recordings_are_the_newest_of_each_path(journal: SqliteJournal) -> None:
    """INV-2: what an earlier visit knew, by the order of visits and not by a clock."""
    for number, size in ((1, 10), (2, 20), (3, 30)):
        await begin(journal, f"visit-{number}")
        await journal.put_recordings([Recording(f"visit-{number}", b"MOV_0001.MP4", size, 0)], None)
    await journal.put_recordings([Recording("visit-1", b"old", 1, 0)], None)
    await begin(journal, "other", camera_id="camera-2")
    await journal.put_recordings([Recording("other", b"foreign", 1, 0)], None)
    camera = Camera("camera-1", IdentifiedBy.LABEL)
    earlier = await journal.earlier_recordings(camera, "visit-3")
    assert earlier == {
        b"MOV_0001.MP4": Recording("visit-2", b"MOV_0001.MP4", 20, 0),
        b"old": Recording("visit-1", b"old", 1, 0),
    }
    assert await journal.earlier_recordings(Camera("new", IdentifiedBy.LABEL), "visit-9") == {}


def attempt(number: int, **changes: Any) -> UploadAttempt:
    at = datetime(2031, 3, 14, 6, 0, tzinfo=UTC) + timedelta(minutes=number)
    values = UploadAttempt("visit-1", PLAIN.path, number, at, at, 0, 100, 100, 50, "the wire broke")
    return replace(values, **changes)


async def test_attempts_are_kept_beside_their_recording(journal: SqliteJournal, path: Path) -> None:
    await begin(journal, "visit-1")
    under_way = attempt(2, ended_at=None, offset_from=None, error=None)
    await journal.put_recordings([PLAIN], None, [attempt(1), under_way])
    assert list(read_attempts(path)) == [("camera-1", attempt(1)), ("camera-1", under_way)]
    await journal.put_recordings([PLAIN], None, [attempt(2)])
    assert list(read_attempts(path)) == [("camera-1", attempt(1)), ("camera-1", attempt(2))]


async def test_of_many_attempts_the_first_and_the_last_are_kept(
    journal: SqliteJournal, path: Path
) -> None:
    await begin(journal, "visit-1")
    for number in range(1, 101):
        await journal.put_recordings([PLAIN], None, [attempt(number)])
    numbers = [each.number for _, each in read_attempts(path)]
    assert numbers == [*range(1, FIRST_ATTEMPTS + 1), *range(101 - LAST_ATTEMPTS, 101)]


async def test_a_journal_of_the_first_version_is_taken_over(path: Path) -> None:
    """INV-2: an upgrade loses nothing that was known."""
    database = await Database.open(path, schema.MIGRATIONS[:1])
    columns = ("visit_id", "path", "size_bytes", "mtime_ns", "flagged", "state", "attempts")

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute(schema.INSERT_VISIT, schema.visit_values(VISIT))
        connection.execute(
            f"INSERT INTO recordings ({', '.join(columns)}, resent_bytes) VALUES (?,?,?,?,?,?,?,?)",
            ("visit-1", b"a", 10, 20, 1, "uploading", 3, 7),
        )

    await database.write(fill)
    await database.close()
    async with opened(path) as journal:
        assert await journal.recordings("visit-1") == [
            Recording(
                "visit-1", b"a", 10, 20, True, RecordingState.UPLOADING, attempts=3, resent_bytes=7
            )
        ]
        assert list(read_attempts(path)) == []


async def test_concurrent_changes_make_one_sound_chain(journal: SqliteJournal, path: Path) -> None:
    """INV-4: also when some of those that share a commit fail."""
    await journal.begin_visit(VISIT, event("visit.began"))
    stranger = replace(PLAIN, visit_id="unknown")
    outcomes = await asyncio.gather(
        *(
            journal.put_recordings([replace(PLAIN, path=b"%d" % n)], event(f"number {n}"))
            for n in range(50)
        ),
        *(journal.put_recordings([stranger], event("never")) for _ in range(10)),
        *(journal.add_custody(event("alone")) for _ in range(50)),
        return_exceptions=True,
    )
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    heads = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert [type(failure) for failure in failures] == [sqlite3.IntegrityError] * 10
    report = verify_chain(read_custody(path), KEY.public, heads)
    assert report.sound
    assert report.entries == 102
    assert len(await journal.recordings("visit-1")) == 50


async def test_log_is_read_in_pages(
    journal: SqliteJournal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ENTRIES_A_PAGE", 3)
    for number in range(9):
        await journal.add_custody(event(str(number)))
    state = await look(journal)
    assert state.custody == ("log.started", *map(str, range(9)))
    assert [each["seq"] for each in entries(path)] == list(range(1, 11))


async def test_log_grows_while_it_is_read(journal: SqliteJournal, path: Path) -> None:
    """INV-8: a slow reader holds no lock and keeps no page of the log in use."""
    reading = read_custody(path)
    assert next(reading).seq == 1
    await journal.add_custody(event("meanwhile"))
    assert [sealed.seq for sealed in reading] == [2]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM custody",
        "UPDATE custody SET hash = ''",
        "UPDATE custody SET entry = x'00'",
    ],
)
async def test_log_is_append_only_for_the_program_itself(
    journal: SqliteJournal, statement: str
) -> None:
    """INV-4: a mistake in our own code cannot touch the past either."""
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        await journal._database.write(lambda connection: connection.execute(statement))


def tamper(path: Path, *statements: str) -> None:
    """Do what anyone with the file and sqlite3 can do."""
    connection = sqlite3.connect(path)
    for trigger in ("custody_entries_stay", "custody_entries_stay_the_same"):
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE custody SET entry = CAST(replace(entry, 'test', 'tset') AS BLOB) WHERE seq = 3"],
        ["DELETE FROM custody WHERE seq = 3"],
        ["DELETE FROM custody WHERE seq = 1"],
        ["DELETE FROM custody WHERE seq > 3"],
        ["DELETE FROM custody"],
        [
            "UPDATE custody SET seq = 100 WHERE seq = 3",
            "UPDATE custody SET seq = seq - 1 WHERE seq > 3",
        ],
        ["INSERT INTO custody SELECT 0, hash, entry, signature FROM custody WHERE seq = 3"],
        ["INSERT INTO custody SELECT -5, hash, entry, signature FROM custody WHERE seq = 3"],
        ["INSERT INTO custody SELECT 6, hash, entry, signature FROM custody WHERE seq = 3"],
    ],
)
async def test_tampered_file_is_found_out(path: Path, statements: list[str]) -> None:
    """INV-4: changed, removed, renumbered, inserted or cut, with a receipt's head as the anchor."""
    async with opened(path) as journal:
        heads = [await journal.add_custody(event("looked")) for _ in range(4)]
    assert verify_chain(read_custody(path), KEY.public, heads).sound
    tamper(path, *statements)
    report = verify_chain(read_custody(path), KEY.public, heads)
    assert not report.sound


async def test_open_journal_shows_slipped_in_rows_too(path: Path) -> None:
    """INV-4: whichever way the log is read, nothing in it is left out."""
    async with opened(path):
        pass
    tamper(path, "INSERT INTO custody SELECT -5, hash, entry, signature FROM custody")
    async with opened(path) as journal:
        assert [sealed.seq async for sealed in journal.custody_entries()] == [-5, 1]


async def test_value_that_dockd_never_writes_is_damage(path: Path) -> None:
    async with opened(path) as journal:
        await journal.begin_visit(VISIT, event("visit.began"))
    tamper(path, "UPDATE visits SET identified_by = 'guess'")
    async with opened(path) as journal:
        with pytest.raises(JournalDamagedError, match=r"journal\.sqlite.*guess"):
            await journal.present_visit("1")


def test_custody_of_something_else_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no such file"):
        next(read_custody(tmp_path / "journal.sqlite"))
    sqlite3.connect(tmp_path / "other.sqlite").close()
    (tmp_path / "other.sqlite").touch()
    with pytest.raises(JournalError, match="not a journal"):
        next(read_custody(tmp_path / "other.sqlite"))


async def test_moment_without_a_zone_is_refused(journal: SqliteJournal) -> None:
    naive = replace(VISIT, started_at=datetime(2026, 1, 1))  # noqa: DTZ001 (the point of the test)
    with pytest.raises(ValueError, match="time zone"):
        await journal.begin_visit(naive, event("visit.began"))
