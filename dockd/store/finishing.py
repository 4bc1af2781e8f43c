"""From the last byte to the receipt: read back, compare, keep, record, sign.

The order is the proof (INV-1, INV-3):

1. the bytes were synced when they came; they are read again from the medium and hashed;
2. digest and length are compared with what was announced; a manifest is checked against what is held;
3. the bytes get their object name, and its directory is synced (or their place in quarantine);
4. the receipt is signed, and goes into the catalogue in one transaction with the upload's state;
5. only then is the receipt shown to anyone, and the upload's own file removed.

A crash between any two steps leaves a complete upload in ``unfinished/``, which the next start checks
again. Two checkers work side by side: one takes small uploads, many at a time, so that they share
their syncs; the other takes large ones one by one, so that neither kind waits for the other.
"""

import asyncio
import contextlib
import errno
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dockd.core.errors import StoreError
from dockd.core.model import ReceiptClaims, UploadKind, display_name
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import sign_receipt
from dockd.journal.durable import sync_directory
from dockd.ops import events
from dockd.store.catalogue import Catalogue, Refusal, Upload, Verdict
from dockd.store.docks import Docks
from dockd.store.manifest_check import (
    MAX_MANIFEST_BYTES,
    find_missing,
    open_manifest,
    read_receipts,
)
from dockd.store.objects import Objects, Quarantine, StoppedError, read_back
from dockd.store.receipt_keys import ReceiptKeys
from dockd.store.settings import StoreSettings
from dockd.store.threads import Threads
from dockd.store.uploads import UnfinishedUploads

BATCH = 64


@dataclass(frozen=True, slots=True)
class Places:
    """Where the bytes of an upload can be."""

    unfinished: UnfinishedUploads
    objects: Objects
    quarantine: Quarantine


class Finishing:
    """The queue of complete uploads and the two checkers that work on it."""

    def __init__(
        self,
        places: Places,
        catalogue: Catalogue,
        keys: ReceiptKeys,
        docks: Docks | None,
        threads: Threads,
        settings: StoreSettings,
        now: Callable[[], datetime],
    ) -> None:
        """Build; :meth:`run` does the work. With ``docks``, manifests must be signed by their dock's key."""
        self._places = places
        self._catalogue = catalogue
        self._keys = keys
        self._docks = docks
        self._threads = threads
        self._settings = settings
        self._now = now
        self._small: asyncio.Queue[Upload] = asyncio.Queue()
        self._large: asyncio.Queue[Upload] = asyncio.Queue()
        self._pending: dict[str, asyncio.Future[str | None]] = {}
        self._to_retry: list[Upload] = []
        self._stop = threading.Event()

    @property
    def waiting(self) -> int:
        """How many complete uploads are not checked yet."""
        return len(self._pending) + len(self._to_retry)

    def submit(self, upload: Upload) -> None:
        """Queue an upload whose bytes have all arrived; one that is queued already stays where it is."""
        if upload.upload_id in self._pending:
            return
        self._pending[upload.upload_id] = asyncio.get_running_loop().create_future()
        small = upload.size_bytes <= self._settings.small_bytes
        (self._small if small else self._large).put_nowait(upload)

    async def receipt(self, upload_id: str, within_s: float) -> str | None:
        """Wait for the receipt of a queued upload; None when it is not ready in time, or refused."""
        pending = self._pending.get(upload_id)
        if pending is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                return await asyncio.shield(pending)
        return None

    async def run(self) -> None:
        """Check uploads until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._check(self._small, BATCH))
                group.create_task(self._check(self._large, 1))
                group.create_task(self._retry())
        finally:
            for pending in self._pending.values():
                pending.cancel()

    def stop(self) -> None:
        """Let the checkers' threads end soon; what they were at is checked after the next start."""
        self._stop.set()

    async def _check(self, queue: asyncio.Queue[Upload], at_most: int) -> None:
        while True:
            batch = [await queue.get()]
            while len(batch) < at_most and not queue.empty():
                batch.append(queue.get_nowait())
            try:
                await self._finish_apart(batch)
            except StoppedError:
                return

    async def _finish_apart(self, batch: Sequence[Upload]) -> None:
        """Finish uploads together; if that fails, one by one, so that the fault stays with its own."""
        try:
            await self._finish(batch)
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 (one upload's fault must not end the checker)
            if len(batch) == 1:
                self._wait(batch[0], error)
                return
            for upload in batch:
                if upload.upload_id in self._pending:
                    await self._finish_apart([upload])

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(self._settings.retry_s)
            uploads, self._to_retry = self._to_retry, []
            for upload in uploads:
                self.submit(upload)

    def _wait(self, upload: Upload, error: Exception) -> None:
        """Leave an upload complete and unsigned for now; it is checked again in a while."""
        pending = self._pending.pop(upload.upload_id, None)
        if pending is None:
            return
        pending.set_result(None)
        if not isinstance(error, FileNotFoundError):  # its offset is 0 again: it is sent anew
            self._to_retry.append(upload)
        events.STORE_CHECK_FAILED.log(
            upload=upload.upload_id,
            recording=display_name(upload.path),
            reason=str(error) or type(error).__name__,
            retry_s=self._settings.retry_s,
        )

    async def _finish(self, batch: Sequence[Upload]) -> None:
        checks = [_Check(upload) for upload in batch]
        await self._threads.run_for_all(_contained(self._read_back), checks)
        for check in checks:
            sound = check.sha256 is not None and check.refusal is None
            if sound and check.upload.kind is UploadKind.MANIFEST:
                check.refusal = await self._check_manifest(check.upload)
        await self._keep_all(checks)
        await self._threads.run(self._judge_all, checks)
        verdicts = [check.verdict for check in checks if check.verdict is not None]
        concluded = await self._catalogue.conclude(verdicts)
        for check in checks:
            if check.verdict is None:
                self._wait(check.upload, check.error or StoreError("not checked"))
            else:
                self._tell(check.upload, check.verdict, shown=check.upload.upload_id in concluded)
        await self._threads.run(self._clear_away, sorted(concluded))

    def _tell(self, upload: Upload, verdict: Verdict, *, shown: bool) -> None:
        self._pending.pop(upload.upload_id).set_result(verdict.receipt if shown else None)
        if shown:
            _log(upload, verdict)

    def _read_back(self, check: "_Check") -> None:
        upload = check.upload
        path = self._places.unfinished.path(upload.upload_id)
        if upload.size_bytes == 0:
            path.touch(mode=0o600)
        try:
            content = read_back(path, self._stop.is_set)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            check.refusal = Refusal("the bytes cannot be read back from the store's disk")
            return
        check.sha256 = content.sha256
        if content.size_bytes != upload.size_bytes:
            check.refusal = Refusal(f"{content.size_bytes} bytes are here, not {upload.size_bytes}")
        elif upload.announced_sha256 not in (None, content.sha256):
            check.refusal = Refusal(
                f"the bytes have SHA-256 {content.sha256}, not {upload.announced_sha256} as announced"
            )

    async def _check_manifest(self, upload: Upload) -> Refusal | None:
        if upload.size_bytes > MAX_MANIFEST_BYTES:
            return Refusal(f"a manifest of more than {MAX_MANIFEST_BYTES} bytes")
        path = self._places.unfinished.path(upload.upload_id)
        key = None
        if self._docks is not None:
            dock = await self._docks.by_name(upload.dock)
            if dock is None:
                return Refusal(
                    f"no dock {upload.dock!r} is enrolled, so its manifest proves nothing"
                )
            key = dock.key
        manifest = await self._threads.run(lambda: open_manifest(path.read_bytes(), upload, key))
        if isinstance(manifest, Refusal):
            return manifest
        verifier = await self._threads.run(self._keys.verifier)
        listed = await self._threads.run(read_receipts, manifest, verifier)
        ids = [item.claims.upload_id for item in listed if item.claims is not None]
        known = await self._catalogue.find_all(ids)
        return await self._threads.run(
            find_missing, listed, upload, known, self._places.objects.holds
        )

    async def _keep_all(self, checks: Sequence["_Check"]) -> None:
        """Put the bytes where they belong, and make that durable."""
        await self._threads.run_for_all(_contained(self._keep), checks)
        syncs = {path: _Sync(path) for check in checks for path in check.to_sync}
        await self._threads.run_for_all(_Sync.do, list(syncs.values()))
        for check in checks:
            faults = [syncs[path].error for path in check.to_sync if syncs[path].error]
            check.error = check.error or (faults[0] if faults else None)
        self._places.objects.synced(path for path, sync in syncs.items() if sync.error is None)

    def _keep(self, check: "_Check") -> None:
        if check.error is not None:
            return
        upload = check.upload
        path = self._places.unfinished.path(upload.upload_id)
        if check.refusal is not None:
            self._places.quarantine.add(path, upload.upload_id, _note(upload, check.refusal))
        elif check.sha256 is not None:
            check.to_sync = self._places.objects.add(path, check.sha256, self._stop.is_set)

    def _judge_all(self, checks: Sequence["_Check"]) -> None:
        key = self._keys.signing()
        for check in checks:
            if check.error is None:
                check.verdict = self._judge(check, key)

    def _judge(self, check: "_Check", key: SigningKey) -> Verdict:
        """Sign for bytes that are kept by now, or say why they were refused."""
        upload, now = check.upload, self._now()
        if check.refusal is not None or check.sha256 is None:
            return Verdict(upload.upload_id, now, check.sha256, refusal=check.refusal)
        claims = ReceiptClaims(
            issuer=self._keys.store_id,
            issued_at=now,
            receipt_id=secrets.token_hex(16),
            upload_id=upload.upload_id,
            sha256=check.sha256,
            size_bytes=upload.size_bytes,
            dock=upload.dock,
            camera=upload.camera,
            visit=upload.visit,
            custody_head=upload.custody_head,
        )
        receipt = sign_receipt(key, claims)
        return Verdict(upload.upload_id, now, check.sha256, receipt)

    def _clear_away(self, upload_ids: Sequence[str]) -> None:
        for upload_id in upload_ids:
            # What cannot be removed now is removed at the next start.
            with contextlib.suppress(OSError):
                self._places.unfinished.discard(upload_id)


@dataclass(slots=True)
class _Check:
    """One upload on its way through the steps; an ``error`` means that it must wait."""

    upload: Upload
    sha256: str | None = None
    refusal: Refusal | None = None
    to_sync: set[Path] = field(default_factory=set)
    error: OSError | None = None
    verdict: Verdict | None = None


@dataclass(slots=True)
class _Sync:
    """A directory to sync, once for all the uploads of a batch."""

    path: Path
    error: OSError | None = None

    def do(self) -> None:
        try:
            sync_directory(self.path)
        except OSError as error:
            self.error = error


def _contained(step: Callable[[_Check], None]) -> Callable[[_Check], None]:
    """Let a fault of the file system stay with its own upload (INV-8)."""

    def contained(check: _Check) -> None:
        try:
            step(check)
        except OSError as error:
            check.error = error

    return contained


def _note(upload: Upload, refusal: Refusal) -> dict[str, object]:
    return {
        "error": refusal.error,
        "missing": list(refusal.missing),
        "upload": upload.upload_id,
        "kind": upload.kind,
        "name": display_name(upload.path),
        "size_bytes": upload.size_bytes,
        "dock": upload.dock,
        "camera": upload.camera,
        "visit": upload.visit,
        "announced_sha256": upload.announced_sha256,
        "metadata": upload.metadata,
    }


def _log(upload: Upload, verdict: Verdict) -> None:
    if verdict.refusal is None:
        events.STORE_HELD.log(
            upload=upload.upload_id,
            kind=upload.kind,
            dock=upload.dock,
            camera=upload.camera,
            visit=upload.visit,
            recording=display_name(upload.path),
            size_bytes=upload.size_bytes,
            sha256=verdict.sha256,
        )
        return
    events.STORE_REFUSED.log(
        upload=upload.upload_id,
        kind=upload.kind,
        dock=upload.dock,
        camera=upload.camera,
        visit=upload.visit,
        recording=display_name(upload.path),
        reason=verdict.refusal.error,
        missing=len(verdict.refusal.missing),
    )
