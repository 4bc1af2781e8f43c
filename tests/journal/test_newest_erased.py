"""Which visit the store is asked about when no camera has its footage any more."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.model import Camera, CustodyEvent, IdentifiedBy, Verdict, Visit
from dockd.evidence.custody import seal
from dockd.evidence.keys import SigningKey
from dockd.journal.journal import SqliteJournal

NOW = datetime(2031, 3, 14, tzinfo=UTC)


async def test_the_newest_visit_that_was_wiped_on_a_receipt(fast_path: Path) -> None:
    key = SigningKey(Ed25519PrivateKey.generate())
    journal = await SqliteJournal.open(
        fast_path / "journal.sqlite",
        seal=lambda previous, seq, event: seal(key, "dock", previous, seq, NOW, event),
        key_id=key.key_id,
    )

    async def add(name: str, verdict: Verdict | None, receipt: str | None) -> Visit:
        visit = Visit(name, "1", Camera(f"cam-{name}", IdentifiedBy.SERIAL), "here", NOW)
        await journal.begin_visit(visit, CustodyEvent("visit.started", visit=name))
        done = replace(visit, verdict=verdict, manifest_receipt=receipt)
        await journal.update_visit(done, None)
        return done

    try:
        assert await journal.newest_erased_visit() is None
        first = await add("first", Verdict.WIPED, "a.b.c")
        second = await add("second", Verdict.WIPED, "a.b.c")
        await add("kept", Verdict.KEPT, "a.b.c")
        await add("reported", Verdict.WIPED, None)
        await add("under way", None, "a.b.c")
        assert await journal.newest_erased_visit() == second
        assert await journal.newest_erased_visit(["second", "kept"]) == first
        assert await journal.newest_erased_visit(["second", "first"]) is None
    finally:
        await journal.close()
