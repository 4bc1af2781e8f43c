"""The wipe gate: may these files be erased? Numbered checks over proof, nothing else.

The gate is a pure function of the signed manifest, the store's receipts and a fresh reading of the
camera. It returns a single-use :class:`WipePermit`, or :class:`WipeRefused` with every reason. It
relies on the caller for three facts only: that ``fresh`` was read from the medium and not from a
cache, that ``verify_receipt`` checks signatures against the pinned key, and that ``now`` is the time.

The checks, whose numbers the reasons and docs/wipe-gate.md carry:

1. the manifest speaks of this dock, this camera and this visit;
2. the manifest lists at least one recording, none of them twice;
3. the fresh listing is complete: nothing was hidden by a limit or an unreadable directory;
4. nothing on the camera was still being written, and every file held still while it was read;
5. every file on the camera is on the manifest;
6. every file was read to its end, and its fresh digest and size are those on the manifest;
7. every recording on the manifest has a receipt that verifies against the pinned store key;
8. every receipt comes from the pinned store;
9. every receipt was given to this dock for this camera;
10. every receipt covers exactly the digest and size on the manifest;
11. no receipt comes from the future;
12. no two recordings share one receipt;
13. no recording on the manifest carries a reason against wiping;
14. the manifest itself has a receipt: the same store, dock and camera, over the manifest's own bytes;
15. the hold is over.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dockd.core.errors import ReceiptInvalidError
from dockd.core.model import FileStat, Manifest, ReceiptClaims, SkippedEntry, display_name

CLOCK_LEEWAY = timedelta(minutes=5)
"""How far a store's clock may run ahead of the dock's before a receipt is "from the future"."""

VerifyReceipt = Callable[[str], ReceiptClaims]
"""Verify a compact JWS against the pinned key; raise :class:`ReceiptInvalidError` otherwise."""


@dataclass(frozen=True, slots=True)
class FreshFile:
    """One file as just read from the medium.

    ``sha256`` is None when it could not be read to its end; ``held_still`` says that its stat was the
    same before and after.
    """

    path: bytes
    stat: FileStat
    sha256: str | None
    held_still: bool


@dataclass(frozen=True, slots=True)
class FreshReading:
    """A fresh listing of the camera, with every file on it read again.

    ``skipped`` and ``unsettled`` are as in :class:`~dockd.core.model.Listing`.
    """

    files: tuple[FreshFile, ...]
    skipped: tuple[SkippedEntry, ...] = ()
    unsettled: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Expected:
    """Whose wipe this is, by the dock's own configuration and the visit at hand."""

    dock: str
    camera: str
    visit: str
    store: str


@dataclass(frozen=True, slots=True)
class SealedManifest:
    """A manifest whose signature was checked, the digest and size of its signed form, its receipt."""

    manifest: Manifest
    sha256: str
    size_bytes: int
    receipt: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a wipe is refused: the number of the check, the path where it is about one, and words."""

    check: int
    text: str
    path: bytes | None = None

    def __str__(self) -> str:
        """One line for logs and people."""
        where = f"{display_name(self.path)}: " if self.path is not None else ""
        return f"check {self.check}: {where}{self.text}"


@dataclass(frozen=True, slots=True)
class WipeRefused:
    """The camera must not be erased. ``reasons`` is never empty."""

    reasons: tuple[Reason, ...]

    @property
    def camera_differs(self) -> bool:
        """Whether the camera holds something else than the manifest says: ingest again, then retry."""
        return all(reason.check in (4, 5, 6) for reason in self.reasons)

    @property
    def differing_paths(self) -> tuple[bytes, ...]:
        """The files that are not what the manifest says."""
        return tuple(
            reason.path for reason in self.reasons if reason.check == 6 and reason.path is not None
        )


class PermitUsedError(RuntimeError):
    """A permit was redeemed twice, or made by something other than the gate."""


_GATE = object()


class WipePermit:
    """Leave to erase exactly these files, once. Only the gate makes one."""

    __slots__ = ("_files", "_used", "visit")

    def __init__(self, files: Sequence[FreshFile], visit: str, *, made_by: object) -> None:
        """Build from the files as freshly read. ``made_by`` keeps others from making permits."""
        if made_by is not _GATE:
            raise PermitUsedError("only the wipe gate makes permits")
        self.visit = visit
        self._files = tuple(files)
        self._used = False

    def redeem(self) -> tuple[FreshFile, ...]:
        """Return the files to erase; the second call raises :class:`PermitUsedError`."""
        if self._used:
            raise PermitUsedError("this wipe permit was used already")
        self._used = True
        return self._files


def examine(
    sealed: SealedManifest,
    fresh: FreshReading,
    *,
    expected: Expected,
    hold_until: datetime,
    now: datetime,
    verify_receipt: VerifyReceipt,
) -> WipePermit | WipeRefused:
    """Run every check and return the permit, or all reasons against it."""
    reasons = (
        *_manifest_is_ours(sealed.manifest, expected),
        *_manifest_is_whole(sealed.manifest),
        *_listing_is_complete(fresh),
        *_files_held_still(fresh),
        *_nothing_is_new(sealed.manifest, fresh),
        *_digests_agree(sealed.manifest, fresh),
        *_receipts_prove(sealed.manifest, expected, now, verify_receipt),
        *_nothing_speaks_against(sealed.manifest),
        *_manifest_is_proved(sealed, expected, now, verify_receipt),
        *_hold_is_over(hold_until, now),
    )
    if reasons:
        return WipeRefused(reasons)
    return WipePermit(fresh.files, expected.visit, made_by=_GATE)


def _manifest_is_ours(manifest: Manifest, expected: Expected) -> Iterator[Reason]:
    for what, found, wanted in (
        ("dock", manifest.dock, expected.dock),
        ("camera", manifest.camera, expected.camera),
        ("visit", manifest.visit, expected.visit),
    ):
        if found != wanted:
            yield Reason(1, f"the manifest is for {what} {found!r}, not {wanted!r}")


def _manifest_is_whole(manifest: Manifest) -> Iterator[Reason]:
    if not manifest.recordings:
        yield Reason(2, "the manifest lists no recording")
    counts = Counter(entry.path for entry in manifest.recordings)
    for path, count in counts.items():
        if count > 1:
            yield Reason(2, "the manifest lists this recording twice", path)


def _listing_is_complete(fresh: FreshReading) -> Iterator[Reason]:
    for entry in fresh.skipped:
        if entry.reason.hides_footage:
            yield Reason(3, f"what is behind it is not known ({entry.reason})", entry.path)


def _files_held_still(fresh: FreshReading) -> Iterator[Reason]:
    for path in sorted(fresh.unsettled):
        yield Reason(4, "it may still be being written", path)
    for file in fresh.files:
        if not file.held_still:
            yield Reason(4, "it changed while it was read", file.path)


def _nothing_is_new(manifest: Manifest, fresh: FreshReading) -> Iterator[Reason]:
    listed = {entry.path for entry in manifest.recordings}
    for path in sorted({file.path for file in fresh.files} - listed):
        yield Reason(5, "it is on the camera and not on the manifest", path)


def _digests_agree(manifest: Manifest, fresh: FreshReading) -> Iterator[Reason]:
    entries = {entry.path: entry for entry in manifest.recordings}
    for file in fresh.files:
        entry = entries.get(file.path)
        if entry is None:
            continue
        if file.sha256 is None:
            yield Reason(6, "it could not be read to its end", file.path)
        elif file.stat.size_bytes != entry.size_bytes:
            size = file.stat.size_bytes
            yield Reason(6, f"it has {size} bytes, not {entry.size_bytes}", file.path)
        elif file.sha256 != entry.sha256:
            yield Reason(6, "its digest is not the one on the manifest", file.path)


def _receipts_prove(
    manifest: Manifest, expected: Expected, now: datetime, verify_receipt: VerifyReceipt
) -> Iterator[Reason]:
    used: dict[str, bytes] = {}
    for entry in manifest.recordings:
        try:
            claims = verify_receipt(entry.receipt)
        except ReceiptInvalidError as error:
            yield Reason(7, str(error), entry.path)
            continue
        yield from _receipt_is_ours(claims, expected, now, entry.path)
        if (claims.sha256, claims.size_bytes) != (entry.sha256, entry.size_bytes):
            yield Reason(10, "its receipt covers other bytes", entry.path)
        if claims.upload_id in used:
            other = display_name(used[claims.upload_id])
            yield Reason(12, f"its receipt is also that of {other}", entry.path)
        used[claims.upload_id] = entry.path


def _receipt_is_ours(
    claims: ReceiptClaims, expected: Expected, now: datetime, path: bytes | None
) -> Iterator[Reason]:
    if claims.issuer != expected.store:
        yield Reason(8, f"its receipt is from store {claims.issuer!r}", path)
    if (claims.dock, claims.camera) != (expected.dock, expected.camera):
        yield Reason(
            9, f"its receipt is for dock {claims.dock!r} and camera {claims.camera!r}", path
        )
    if claims.issued_at > now + CLOCK_LEEWAY:
        yield Reason(11, f"its receipt is from the future ({claims.issued_at.isoformat()})", path)


def _nothing_speaks_against(manifest: Manifest) -> Iterator[Reason]:
    for entry in manifest.recordings:
        if entry.blocks_wipe is not None:
            yield Reason(13, entry.blocks_wipe, entry.path)


def _manifest_is_proved(
    sealed: SealedManifest, expected: Expected, now: datetime, verify_receipt: VerifyReceipt
) -> Iterator[Reason]:
    try:
        claims = verify_receipt(sealed.receipt)
    except ReceiptInvalidError as error:
        yield Reason(14, f"the manifest's receipt: {error}")
        return
    for reason in _receipt_is_ours(claims, expected, now, None):
        yield Reason(14, f"the manifest: {reason.text}")
    if (claims.sha256, claims.size_bytes) != (sealed.sha256, sealed.size_bytes):
        yield Reason(14, "the manifest's receipt covers other bytes")


def _hold_is_over(hold_until: datetime, now: datetime) -> Iterator[Reason]:
    if now < hold_until:
        yield Reason(15, f"the hold lasts until {hold_until.isoformat()}")
