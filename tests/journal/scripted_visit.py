"""A small visit as a list of journal calls, and the state that must stand after each of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.model import (
    Camera,
    CustodyEvent,
    IdentifiedBy,
    Recording,
    RecordingState,
    Verdict,
    Visit,
)
from dockd.evidence.custody import content, seal, verify_chain
from dockd.evidence.keys import SigningKey
from dockd.journal.journal import SqliteJournal, read_custody

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
VISIT = Visit("visit-1", "1", Camera("camera-1", IdentifiedBy.FOLDER_NAME), "folder", NOW)
PLAIN = Recording("visit-1", b"DCIM/MOV_0001.MP4", 10, 2**62)
ODD = Recording("visit-1", b"DCIM/\xff\n\x00.MP4", 0, -1, flagged=True)
SENT = replace(PLAIN, state=RecordingState.SENT, upload_url="http://store/1", attempts=1)
DONE = replace(SENT, state=RecordingState.CONFIRMED, sha256="ab" * 32, receipt="a.b.c")

Step = Callable[[SqliteJournal], Awaitable[object]]

STEPS: tuple[Step, ...] = (
    lambda journal: journal.begin_visit(VISIT, event("visit.began")),
    lambda journal: journal.put_recordings([PLAIN, ODD], event("listing.taken")),
    lambda journal: journal.put_recordings([SENT], None),
    lambda journal: journal.put_recordings([DONE], event("recording.confirmed")),
    lambda journal: journal.add_custody(event("wipe.started")),
    lambda journal: journal.put_recordings(
        [replace(each, state=RecordingState.ERASED) for each in (DONE, ODD)],
        event("camera.wiped"),
    ),
    lambda journal: journal.update_visit(
        replace(VISIT, verdict=Verdict.WIPED, finished_at=NOW), event("visit.finished")
    ),
)


@dataclass(frozen=True)
class State:
    """What can be seen of a journal from outside."""

    visit: Visit | None
    recordings: tuple[Recording, ...]
    custody: tuple[str, ...]


def event(name: str) -> CustodyEvent:
    """Return an event of the visit."""
    return CustodyEvent(name, "visit-1", "camera-1", {"why": "test"})


async def open_journal(path: Path) -> SqliteJournal:
    """Open the journal in ``path`` with the key of the script."""
    return await SqliteJournal.open(
        path,
        seal=lambda previous_hash, seq, each: seal(KEY, "dock-1", previous_hash, seq, NOW, each),
        key_id=KEY.key_id,
    )


async def look(journal: SqliteJournal) -> State:
    """Return the state of an open journal."""
    entries = [sealed async for sealed in journal.custody_entries()]
    said = [content(sealed) for sealed in entries]
    return State(
        visit=await journal.present_visit("1"),
        recordings=tuple(await journal.recordings("visit-1")),
        custody=tuple(str(each["event"]) for each in said if isinstance(each, dict)),
    )


async def states(path: Path) -> list[State]:
    """Return the state after opening, and after each step, when nothing goes wrong."""
    journal = await open_journal(path)
    try:
        seen = [await look(journal)]
        for step in STEPS:
            await step(journal)
            seen.append(await look(journal))
    finally:
        await journal.close()
    return seen


async def recovered(path: Path) -> State:
    """Open what a fault left behind, check its custody log, and return its state."""
    journal = await open_journal(path)
    try:
        state = await look(journal)
    finally:
        await journal.close()
    report = verify_chain(read_custody(path), KEY.public)
    if not report.sound:
        raise AssertionError(f"custody log broken: {report.problems}")
    return state


async def finish(path: Path, done: int) -> State:
    """Carry on with the steps after the first ``done``, and return the last state."""
    journal = await open_journal(path)
    try:
        for step in STEPS[done:]:
            await step(journal)
    finally:
        await journal.close()
    return await recovered(path)
