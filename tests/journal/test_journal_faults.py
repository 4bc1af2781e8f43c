import asyncio
import shutil
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dockd.core.errors import JournalUnwritableError
from tests.journal.scripted_visit import STEPS, finish, look, open_journal, recovered, states

ROOT = Path(__file__).parents[2]


class Disk:
    """Decides which database operations fail: from the ``fail_at``-th on, ``length`` of them."""

    def __init__(self) -> None:
        self.heal()

    def heal(self) -> None:
        self.break_at(0, 0)

    def break_at(self, fail_at: int, length: int) -> None:
        self.operations, self.fail_at, self.length = 0, fail_at, length

    def operation(self) -> None:
        self.operations += 1
        if self.fail_at <= self.operations < self.fail_at + self.length:
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error


DISK = Disk()


class FailingConnection(sqlite3.Connection):
    def execute(self, *args: Any) -> sqlite3.Cursor:
        DISK.operation()
        return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        DISK.operation()
        return super().executemany(*args)

    def executescript(self, script: str, /) -> sqlite3.Cursor:
        DISK.operation()
        return super().executescript(script)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=FailingConnection))
    DISK.heal()
    return DISK


async def broken_visit(path: Path) -> int:
    """Do the visit until opening or a step fails; return how many steps were done."""
    try:
        journal = await open_journal(path)
    except JournalUnwritableError:
        return 0
    done = 0
    try:
        for step in STEPS:
            await step(journal)
            done += 1
    except JournalUnwritableError:
        pass
    finally:
        await journal.close()
    return done


@pytest.mark.parametrize("length", [1, 3, 10**6], ids=["one", "three", "all from then on"])
async def test_failing_operation_leaves_the_state_before_the_step(
    fast_path: Path, disk: Disk, length: int
) -> None:
    """INV-3, INV-4: for every N, a failed step has changed nothing, and the rest can follow."""
    expected = await states(fast_path / "reference.sqlite")
    operations = 0
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for fail_at in range(1, 1000):
        path = fast_path / f"{fail_at}.sqlite"
        disk.break_at(fail_at, length)
        done = await broken_visit(path)
        operations = disk.operations
        disk.heal()
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
        assert await recovered(path) == expected[done]
        assert await finish(path, done) == expected[-1]
        if operations < fail_at:
            assert done == len(STEPS)
            break
    assert operations > 5 * len(STEPS)


async def test_open_journal_carries_on_when_the_disk_is_back(fast_path: Path, disk: Disk) -> None:
    """INV-3: the same object, step after step, through an outage at every operation."""
    expected = await states(fast_path / "reference.sqlite")
    journal = await open_journal(fast_path / "journal.sqlite")
    outages = 0
    try:
        for number, step in enumerate(STEPS, start=1):
            for fail_at in range(1, 100):
                disk.break_at(fail_at, 10**6)
                try:
                    await step(journal)
                except JournalUnwritableError:
                    disk.heal()
                    outages += 1
                    assert await look(journal) == expected[number - 1]
                else:
                    disk.heal()
                    break
            assert await look(journal) == expected[number]
    finally:
        disk.heal()
        await journal.close()
    assert outages >= 4 * len(STEPS)
    assert await recovered(fast_path / "journal.sqlite") == expected[-1]


async def test_failing_reads_are_retryable(fast_path: Path, disk: Disk) -> None:
    journal = await open_journal(fast_path / "journal.sqlite")
    try:
        before = await look(journal)
        for fail_at in range(1, 100):
            disk.break_at(fail_at, 2)
            try:
                await journal.custody_head()
            except JournalUnwritableError:
                disk.heal()
                assert await look(journal) == before
            else:
                break
        assert fail_at > 2
    finally:
        disk.heal()
        await journal.close()


async def test_kill_at_any_operation_leaves_an_allowed_state(fast_path: Path) -> None:
    """INV-3, INV-4: SIGKILL before every database operation in turn, in a process of its own."""
    expected = await states(fast_path / "reference.sqlite")
    runs = fast_path / "runs"
    runs.mkdir()
    command = [sys.executable, "-m", "tests.journal.killed_visit", str(runs)]
    process = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert process.returncode == 0, process.stderr
    reached = set()
    for directory in runs.iterdir():
        done = (directory / "done").stat().st_size
        # A kill after the commit and before the return leaves the step made and not yet known.
        allowed = expected[done : done + 2]
        state = await recovered(directory / "journal.sqlite")
        assert state in allowed, directory.name
        assert await finish(directory / "journal.sqlite", expected.index(state)) == expected[-1]
        reached.add(expected.index(state))
    assert reached == set(range(len(expected)))


async def test_log_cut_at_any_frame_leaves_an_allowed_state(fast_path: Path) -> None:
    """INV-3: a power cut keeps a prefix of the write-ahead log; each prefix is a state of before."""
    expected = await states(fast_path / "reference.sqlite")
    live = fast_path / "live.sqlite"
    journal = await open_journal(live)
    try:
        for step in STEPS:
            await step(journal)
        path = fast_path / "journal.sqlite"
        log = Path(f"{live}-wal").read_bytes()
        frame_bytes = 24 + 4096  # https://www.sqlite.org/fileformat2.html#walformat
        reached = []
        for cut in range(32, len(log) + 1, frame_bytes // 2):
            shutil.copyfile(live, path)
            Path(f"{path}-wal").write_bytes(log[:cut])
            reached.append(expected.index(await recovered(path)))
    finally:
        await journal.close()
    assert reached == sorted(reached)
    assert set(reached) == set(range(len(expected)))
