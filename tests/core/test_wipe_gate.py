"""The wipe gate: each check alone stops a wipe, and each is needed.

Every test guards INV-1. ``BREAKS`` holds, for each numbered check, worlds that differ from a good one
in one respect only; the gate must refuse them for that check and no other. Because of that, removing
a check lets at least one of them through, which the last test shows by removing each in turn.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core import wipe_gate
from dockd.core.errors import ReceiptInvalidError
from dockd.core.model import (
    FileStat,
    Manifest,
    ManifestEntry,
    ReceiptClaims,
    SkippedEntry,
    SkipReason,
)
from dockd.core.wipe_gate import (
    CLOCK_LEEWAY,
    Expected,
    FreshFile,
    FreshReading,
    PermitUsedError,
    SealedManifest,
    WipePermit,
    WipeRefused,
    examine,
)

NOW = datetime(2031, 3, 14, 6, tzinfo=UTC)
EXPECTED = Expected(dock="dock-7", camera="cam-1", visit="v-1", store="store-A")
SECOND = timedelta(seconds=1)


def claims(upload: str, sha256: str, size_bytes: int) -> ReceiptClaims:
    return ReceiptClaims(
        issuer="store-A",
        issued_at=NOW,
        receipt_id=f"jti-{upload}",
        upload_id=upload,
        sha256=sha256,
        size_bytes=size_bytes,
        dock="dock-7",
        camera="cam-1",
        visit="v-1",
        custody_head="0" * 64,
    )


def entry(path: bytes, digit: str, size_bytes: int) -> ManifestEntry:
    return ManifestEntry(path, size_bytes, 5, digit * 64, receipt=f"receipt of {path.decode()}")


def fresh(path: bytes, digit: str, size_bytes: int) -> FreshFile:
    return FreshFile(path, FileStat(size_bytes, 5, 6, 7), digit * 64, held_still=True)


@dataclass(frozen=True)
class World:
    """A camera with two recordings, fully proved. Cases change one thing."""

    manifest: Manifest = field(
        default_factory=lambda: Manifest(
            dock="dock-7",
            camera="cam-1",
            visit="v-1",
            bay="1",
            created_at=NOW,
            custody_head="0" * 64,
            recordings=(entry(b"a", "a", 10), entry(b"b", "b", 20)),
        )
    )
    reading: FreshReading = field(
        default_factory=lambda: FreshReading((fresh(b"a", "a", 10), fresh(b"b", "b", 20)))
    )
    receipts: dict[str, ReceiptClaims] = field(
        default_factory=lambda: {
            "receipt of a": claims("u-a", "a" * 64, 10),
            "receipt of b": claims("u-b", "b" * 64, 20),
            "receipt of the manifest": claims("u-m", "f" * 64, 99),
        }
    )
    manifest_sha256: str = "f" * 64
    hold_until: datetime = NOW

    def verify(self, jws: str) -> ReceiptClaims:
        if jws not in self.receipts:
            raise ReceiptInvalidError("the signature does not verify")
        return self.receipts[jws]

    def with_receipt(self, name: str, **changes: object) -> "World":
        changed = replace(self.receipts[name], **changes)  # type: ignore[arg-type]
        return replace(self, receipts={**self.receipts, name: changed})

    def without_receipt(self, name: str) -> "World":
        return replace(
            self, receipts={key: value for key, value in self.receipts.items() if key != name}
        )

    def with_manifest(self, **changes: object) -> "World":
        return replace(self, manifest=replace(self.manifest, **changes))  # type: ignore[arg-type]

    def with_files(self, *files: FreshFile, **changes: object) -> "World":
        reading = replace(self.reading, files=files, **changes)  # type: ignore[arg-type]
        return replace(self, reading=reading)

    def ask(self) -> WipePermit | WipeRefused:
        sealed = SealedManifest(self.manifest, self.manifest_sha256, 99, "receipt of the manifest")
        return examine(
            sealed,
            self.reading,
            expected=EXPECTED,
            hold_until=self.hold_until,
            now=NOW,
            verify_receipt=self.verify,
        )


GOOD = World()
A, B = GOOD.reading.files
ENTRY_A, ENTRY_B = GOOD.manifest.recordings

BREAKS: list[tuple[int, str, World]] = [
    (1, "another dock's manifest", GOOD.with_manifest(dock="dock-8")),
    (1, "another camera's manifest", GOOD.with_manifest(camera="cam-2")),
    (1, "another visit's manifest", GOOD.with_manifest(visit="v-0")),
    (2, "an empty manifest", GOOD.with_manifest(recordings=()).with_files()),
    (
        2,
        "a recording listed twice",
        replace(
            GOOD.with_manifest(recordings=(ENTRY_A, ENTRY_B, replace(ENTRY_B, receipt="again"))),
            receipts={**GOOD.receipts, "again": claims("u-b2", "b" * 64, 20)},
        ),
    ),
    *(
        (
            3,
            f"a listing with an entry {reason}",
            GOOD.with_files(A, B, skipped=(SkippedEntry(b"d", reason),)),
        )
        for reason in SkipReason
        if reason.hides_footage
    ),
    (4, "a file still being written", GOOD.with_files(A, B, unsettled=frozenset({b"b"}))),
    (4, "a file that changed while it was read", GOOD.with_files(A, replace(B, held_still=False))),
    (5, "a file that is not on the manifest", GOOD.with_files(A, B, fresh(b"c", "c", 5))),
    (6, "a file that cannot be read", GOOD.with_files(A, replace(B, sha256=None))),
    (6, "a file with other bytes", GOOD.with_files(A, fresh(b"b", "c", 20))),
    (6, "a file with another size", GOOD.with_files(A, fresh(b"b", "b", 21))),
    (7, "a receipt that does not verify", GOOD.without_receipt("receipt of b")),
    (8, "a receipt of another store", GOOD.with_receipt("receipt of b", issuer="store-B")),
    (9, "a receipt given to another dock", GOOD.with_receipt("receipt of b", dock="dock-8")),
    (9, "a receipt for another camera", GOOD.with_receipt("receipt of b", camera="cam-2")),
    (10, "a receipt over other bytes", GOOD.with_receipt("receipt of b", sha256="c" * 64)),
    (10, "a receipt over fewer bytes", GOOD.with_receipt("receipt of b", size_bytes=19)),
    (
        11,
        "a receipt from the future",
        GOOD.with_receipt("receipt of b", issued_at=NOW + CLOCK_LEEWAY + SECOND),
    ),
    (
        12,
        "one upload's receipt for two recordings",
        GOOD.with_manifest(recordings=(ENTRY_A, replace(ENTRY_A, path=b"b"))).with_files(
            A, replace(A, path=b"b")
        ),
    ),
    (
        13,
        "a recording with a reason against wiping",
        GOOD.with_manifest(recordings=(ENTRY_A, replace(ENTRY_B, blocks_wipe="sidecar differs"))),
    ),
    (14, "a manifest without a receipt", GOOD.without_receipt("receipt of the manifest")),
    (14, "a manifest whose receipt is over other bytes", replace(GOOD, manifest_sha256="e" * 64)),
    *(
        (
            14,
            f"a manifest receipt with a wrong {name}",
            GOOD.with_receipt("receipt of the manifest", **{name: value}),
        )
        for name, value in {
            "issuer": "store-B",
            "dock": "dock-8",
            "camera": "cam-2",
            "size_bytes": 98,
            "issued_at": NOW + CLOCK_LEEWAY + SECOND,
        }.items()
    ),
    (15, "a hold that lasts on", replace(GOOD, hold_until=NOW + SECOND)),
]


def test_full_proof_gives_a_permit_for_exactly_the_files_read() -> None:
    permit = GOOD.ask()
    assert isinstance(permit, WipePermit)
    assert permit.visit == "v-1"
    assert permit.redeem() == (A, B)


@pytest.mark.parametrize(("check", "what", "world"), BREAKS, ids=[what for _, what, _ in BREAKS])
def test_each_fault_is_refused_by_its_own_check_alone(check: int, what: str, world: World) -> None:
    outcome = world.ask()
    assert isinstance(outcome, WipeRefused), what
    assert {reason.check for reason in outcome.reasons} == {check}
    assert all(reason.text for reason in outcome.reasons)


def test_every_check_is_covered_and_documented() -> None:
    numbers = {check for check, _, _ in BREAKS}
    assert numbers == set(range(1, 16))
    for number in numbers:
        assert f"\n{number}. " in (wipe_gate.__doc__ or "")


CHECKS = [name for name in examine.__code__.co_names if name.startswith("_") and name.islower()]


@pytest.mark.parametrize("removed", CHECKS)
def test_no_check_can_be_removed(removed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any one check taken out of the gate, some broken world is let through."""
    monkeypatch.setattr(wipe_gate, removed, lambda *_: ())
    let_through = [what for _, what, world in BREAKS if isinstance(world.ask(), WipePermit)]
    assert let_through


def test_the_gate_is_made_of_all_its_checks() -> None:
    assert len(CHECKS) == 10


def test_a_camera_that_lost_files_may_still_be_wiped() -> None:
    """INV-3: a wipe that was interrupted finds fewer files than its manifest, and goes on."""
    outcome = GOOD.with_files(B).ask()
    assert isinstance(outcome, WipePermit)
    assert outcome.redeem() == (B,)


def test_all_reasons_are_given_at_once() -> None:
    world = GOOD.with_files(A, fresh(b"c", "c", 5)).without_receipt("receipt of a")
    outcome = replace(world, hold_until=NOW + SECOND).ask()
    assert isinstance(outcome, WipeRefused)
    assert [reason.check for reason in outcome.reasons] == [5, 7, 15]
    assert str(outcome.reasons[0]) == "check 5: c: it is on the camera and not on the manifest"


@pytest.mark.parametrize(("check", "what", "world"), BREAKS, ids=[what for _, what, _ in BREAKS])
def test_only_a_camera_that_differs_is_ingested_again(check: int, what: str, world: World) -> None:
    outcome = world.ask()
    assert isinstance(outcome, WipeRefused)
    assert outcome.camera_differs == (check in (4, 5, 6)), what


def test_differing_paths_are_those_whose_bytes_are_others() -> None:
    outcome = GOOD.with_files(fresh(b"a", "c", 10), B, fresh(b"c", "c", 1)).ask()
    assert isinstance(outcome, WipeRefused)
    assert outcome.differing_paths == (b"a",)


def test_a_permit_works_once() -> None:
    permit = GOOD.ask()
    assert isinstance(permit, WipePermit)
    permit.redeem()
    with pytest.raises(PermitUsedError, match="used already"):
        permit.redeem()


def test_only_the_gate_makes_permits() -> None:
    with pytest.raises(PermitUsedError, match="only the wipe gate"):
        WipePermit((A,), "v-1", made_by=object())


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), unique=True), st.sampled_from("abc"))
def test_nothing_unproved_is_ever_permitted(paths: list[bytes], digit: str) -> None:
    """Whatever is on the camera, a permit names only files whose bytes are on the manifest."""
    outcome = GOOD.with_files(*(fresh(path, digit, 10) for path in paths)).ask()
    proved = {(item.path, item.sha256, item.size_bytes) for item in GOOD.manifest.recordings}
    if isinstance(outcome, WipePermit):
        for file in outcome.redeem():
            assert (file.path, file.sha256, file.stat.size_bytes) in proved
    else:
        assert paths
