"""Closes the list: the signed manifest of a visit, uploaded and receipted like a recording."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

from dockd.core.errors import (
    ManifestInvalidError,
    ReceiptInvalidError,
    ReceiptRejectedError,
    UploadGoneError,
)
from dockd.core.model import (
    CustodyEvent,
    Manifest,
    ManifestEntry,
    Recording,
    RecordingState,
    SkippedEntry,
    UploadKind,
    UploadSpec,
    Visit,
)
from dockd.evidence.manifests import read_manifest, sign_manifest
from dockd.evidence.receipts import prove
from dockd.ops import events
from dockd.reader import BytesSource
from dockd.services import Services


def manifest_entries(recordings: Iterable[Recording]) -> tuple[ManifestEntry, ...]:
    """Return the entries of all confirmed recordings, in the order of their paths."""
    return tuple(
        ManifestEntry(
            path=recording.path,
            size_bytes=recording.size_bytes,
            mtime_ns=recording.mtime_ns,
            sha256=recording.sha256,
            receipt=recording.receipt,
            flagged=recording.flagged,
            container=recording.container,
            blocks_wipe=recording.blocks_wipe,
        )
        for recording in sorted(recordings, key=lambda item: item.path)
        if recording.state is RecordingState.CONFIRMED
        and recording.sha256 is not None
        and recording.receipt is not None
    )


async def compose(
    services: Services,
    visit: Visit,
    recordings: Sequence[Recording],
    skipped: Sequence[SkippedEntry],
) -> Visit:
    """Return the visit with a signed manifest of what is so now, which is in the journal, too.

    A manifest that says the same already stays, with its proof: a restart seals nothing twice, and
    no hold begins anew. Raises JournalError.
    """
    # In a thread: signing and reading the list of a full camera takes a good part of a second.
    if visit.manifest is not None and await asyncio.to_thread(
        _says_the_same, services, visit.manifest, recordings, skipped
    ):
        return visit
    manifest = Manifest(
        dock=services.dock,
        camera=visit.camera.camera_id,
        visit=visit.visit_id,
        bay=visit.bay,
        created_at=services.clock.now(),
        custody_head=await services.journal.custody_head(),
        recordings=manifest_entries(recordings),
        skipped=tuple(skipped),
    )
    composed = replace(
        visit,
        manifest=await asyncio.to_thread(sign_manifest, services.key, manifest),
        manifest_url=None,
        manifest_receipt=None,
        hold_until=None,
    )
    # Before the target hears of it: a restart must not make another one of the same.
    await services.journal.update_visit(composed, None)
    return composed


async def seal(services: Services, visit: Visit) -> Visit:
    """Upload the visit's manifest and return the visit with the manifest's proved receipt.

    The hold begins here, once. Raises ReceiptRejectedError when the store does not hold everything
    that is on the list, and the target's, receipt's and journal's errors.
    """
    if visit.hold_until is not None and await _proves(
        services, visit, visit.manifest_receipt or ""
    ):
        return visit
    body = (visit.manifest or "").encode()
    digest = sha256(body).hexdigest()

    async def on_created(url: str) -> None:
        await services.journal.update_visit(replace(visit, manifest_url=url), None)

    spec = UploadSpec(
        key=sha256(f"manifest\0{visit.camera.camera_id}\0{digest}".encode()).hexdigest(),
        kind=UploadKind.MANIFEST,
        path=f"manifest-{visit.visit_id}.jws".encode(),
        size_bytes=len(body),
        mtime_ns=0,
        dock=services.dock,
        camera=visit.camera.camera_id,
        visit=visit.visit_id,
        custody_head=await services.journal.custody_head(),
    )
    sent = await services.uploader.send(
        spec,
        BytesSource(body),
        url=visit.manifest_url,
        on_created=on_created,
        on_progress=lambda _: None,
    )
    receipt = sent.receipt or await services.uploader.receipt(sent.url)
    try:
        await _prove(services, visit, receipt)
    except ReceiptInvalidError as error:
        events.RECEIPT_REFUSED.log(
            bay=visit.bay,
            camera=visit.camera.camera_id,
            visit=visit.visit_id,
            recording=spec.path.decode(),
            reason=str(error),
        )
        raise
    sealed = replace(
        visit,
        manifest_url=sent.url,
        manifest_receipt=receipt,
        hold_until=services.clock.now() + timedelta(seconds=services.config().wipe.hold_s),
    )
    await services.journal.update_visit(
        sealed,
        CustodyEvent(
            "manifest.confirmed",
            visit=visit.visit_id,
            camera=visit.camera.camera_id,
            details={"sha256": digest, "receipt": receipt},
        ),
    )
    return sealed


async def is_of_this_store(services: Services, visit: Visit) -> bool:
    """Whether the manifest's receipt is one of the pinned store, and not of one before it."""
    return await _proves(services, visit, visit.manifest_receipt or "")


async def is_still_held(services: Services, visit: Visit) -> bool:
    """Ask whether the store holds the visit's manifest at this moment; raises TargetError.

    One that came back from a backup holds nothing of what is newer, and the manifest is the newest of
    a visit.
    """
    try:
        await services.uploader.receipt(visit.manifest_url or "")
    except (UploadGoneError, ReceiptRejectedError):
        return False
    return True


async def unseal(services: Services, visit: Visit) -> Visit:
    """Return the visit without the proof of its manifest, which the store has lost. Raises JournalError."""
    about = {"camera": visit.camera.camera_id, "visit": visit.visit_id}
    unsealed = replace(visit, manifest_url=None, manifest_receipt=None, hold_until=None)
    await services.journal.update_visit(
        unsealed,
        CustodyEvent("manifest.lost", **about, details={"receipt": visit.manifest_receipt}),
    )
    events.MANIFEST_LOST.log(bay=visit.bay, **about, url=visit.manifest_url)
    return unsealed


async def _prove(services: Services, visit: Visit, receipt: str) -> None:
    body = (visit.manifest or "").encode()
    prove(
        await services.verify_receipt(receipt),
        dock=services.dock,
        camera=visit.camera.camera_id,
        sha256=sha256(body).hexdigest(),
        size_bytes=len(body),
        now=services.clock.now(),
    )


async def _proves(services: Services, visit: Visit, receipt: str) -> bool:
    try:
        await _prove(services, visit, receipt)
    except ReceiptInvalidError:
        # Perhaps of a store that is not the pinned one any more: ask that one.
        return False
    return True


def _says_the_same(
    services: Services,
    signed: str,
    recordings: Sequence[Recording],
    skipped: Sequence[SkippedEntry],
) -> bool:
    try:
        manifest = read_manifest(signed, services.key.public)
    except ManifestInvalidError:
        # Signed by a key that this dock no longer has: a new one is needed.
        return False
    return manifest.recordings == manifest_entries(recordings) and manifest.skipped == tuple(
        skipped
    )
