"""One visit's recordings, each by the same way: read → digest → stream → receipt → journal."""

import asyncio
import base64
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from dockd.attempts import as_journalled
from dockd.config import Config
from dockd.core.errors import (
    CameraGoneError,
    CameraUnreadableError,
    DockdError,
    JournalError,
    JournalUnwritableError,
    ReceiptInvalidError,
    ReceiptKeyUnknownError,
    ReceiptRejectedError,
    SourceChangedError,
    TargetError,
    UploadGoneError,
)
from dockd.core.interfaces import Clock, Journal, Volume
from dockd.core.model import (
    CustodyEvent,
    Listing,
    ReceiptClaims,
    Recording,
    RecordingState,
    UploadAttempt,
    UploadKind,
    UploadSpec,
    Visit,
    display_name,
)
from dockd.core.recording import RecordingEvent, after, upload_key
from dockd.core.schedule import Waiting
from dockd.dispatch import Dispatcher
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import ReceiptVerifier, prove
from dockd.evidence.sidecar import Sidecar
from dockd.ops import events
from dockd.reader import RecordingReader
from dockd.target.tally import Tally
from dockd.target.uploader import Sent, Uploader
from dockd.worker import Worker

MAX_READINGS = 3
"""A recording that changes under the reader is read again twice, then set aside."""

MAX_UPLOADS = 3
"""Uploads of one recording that the store may turn down in one visit before it is set aside."""

MAX_SIDECAR_BYTES = 4096


async def _nothing_to_learn() -> None:
    """Stand for a target whose key never changes."""


@dataclass(frozen=True, slots=True)
class Services:
    """What every bay of a dock works with."""

    config: Callable[[], Config]
    journal: Journal
    uploader: Uploader
    dispatcher: Dispatcher
    verifier: ReceiptVerifier
    key: SigningKey
    clock: Clock
    learn_receipt_keys: Callable[[], Awaitable[None]] = _nothing_to_learn

    @property
    def dock(self) -> str:
        """The dock's name."""
        return self.config().dock.name

    async def verify_receipt(self, jws: str) -> ReceiptClaims:
        """Return what a receipt states, once the store was asked about a key that is not known yet.

        Raises ReceiptInvalidError.
        """
        try:
            return self.verifier.verify(jws)
        except ReceiptKeyUnknownError:
            await self.learn_receipt_keys()
            return self.verifier.verify(jws)


def path_details(path: bytes) -> dict[str, object]:
    """Return a path for the custody log: readable, and exact."""
    return {"path": display_name(path), "path_b64": base64.b64encode(path).decode()}


class Ingest:
    """The recordings of one visit: their state, mirrored in the journal, and their progress."""

    def __init__(self, services: Services, visit: Visit, recordings: Iterable[Recording]) -> None:
        """Build from what the journal knows."""
        self._services = services
        self._visit = visit
        self.recordings: dict[bytes, Recording] = {item.path: item for item in recordings}
        self._sent_bytes: dict[bytes, int] = {}
        self._unproved: dict[bytes, Sent] = {}
        self._sidecars: Mapping[bytes, Sidecar] = {}
        self._unreadable: dict[bytes, CameraUnreadableError] = {}
        self._attempts: dict[bytes, UploadAttempt] = {}
        self._turned_down: Counter[bytes] = Counter()
        self._hurried: set[bytes] = set()
        self._all_hurried = False
        self._volume: Volume | None = None
        self._worker: Worker | None = None

    # What others ask

    @property
    def waiting(self) -> list[Waiting]:
        """The recordings that still have to be sent or confirmed."""
        return [
            Waiting(item.path, item.size_bytes, self._is_urgent(item.path))
            for item in self.recordings.values()
            if item.state in _OPEN
        ]

    def hurry(self, paths: Collection[bytes] | None) -> int:
        """Send some recordings, or all of the visit (None), before all others; return how many wait."""
        if paths is None:
            self._all_hurried = True
        self._hurried.update(paths or ())
        waiting = {item.path for item in self.waiting if paths is None or item.path in paths}
        self._services.dispatcher.hurry(self._visit.bay, waiting)
        return len(waiting)

    def _is_urgent(self, path: bytes) -> bool:
        return self._all_hurried or path in self._hurried or self.recordings[path].flagged

    def count(self, *states: RecordingState) -> int:
        """Return how many recordings are in one of the states."""
        return sum(item.state in states for item in self.recordings.values())

    @property
    def delay(self) -> str | None:
        """Why a recording has not got any further yet, for one that met trouble."""
        reasons = (item.reason for item in self.recordings.values() if item.state in _OPEN)
        return next(filter(None, reasons), None)

    @property
    def quarantined(self) -> list[Recording]:
        """The recordings that were set aside, each with its reason."""
        return [
            item for item in self.recordings.values() if item.state is RecordingState.QUARANTINED
        ]

    @property
    def size_bytes(self) -> int:
        """Bytes of all recordings."""
        return sum(item.size_bytes for item in self.recordings.values())

    @property
    def sent_bytes(self) -> int:
        """Bytes that the store has acknowledged, of all recordings."""
        return sum(
            item.size_bytes
            if item.state in _AT_STORE
            else min(self._sent_bytes.get(item.path, 0), item.size_bytes)
            for item in self.recordings.values()
        )

    @property
    def bytes_left(self) -> int:
        """Bytes that are still to be sent, of the recordings that will be."""
        return sum(
            item.size_bytes - min(self._sent_bytes.get(item.path, 0), item.size_bytes)
            for item in self.recordings.values()
            if item.state in _TO_SEND
        )

    # What the bay does

    async def run(self, volume: Volume, worker: Worker, sidecars: Mapping[bytes, Sidecar]) -> None:
        """Take every open recording as far as it goes now; each ends confirmed, set aside, or open.

        Raises CameraGoneError and JournalError; every other trouble stays with its recording.
        """
        self._volume, self._worker, self._sidecars = volume, worker, sidecars
        self._unreadable.clear()
        await self._services.dispatcher.run(
            self._visit.bay, self.waiting, send=self._send, confirm=self._confirm
        )
        if self._unreadable:
            # A camera that is pulled gives read errors before it is seen to be gone: no fault of its own.
            await asyncio.sleep(self._services.config().cameras.noticed_s)
        for path, error in self._unreadable.items():
            await self.set_aside(path, error)

    async def move(
        self,
        path: bytes,
        event: RecordingEvent,
        custody: CustodyEvent | None = None,
        **changes: object,
    ) -> Recording:
        """Apply an event to a recording, in the journal first, and return it."""
        moved = self._after(path, event, **changes)
        await self._put(moved, custody)
        self.recordings[path] = moved
        return moved

    async def set_aside(self, path: bytes, error: DockdError) -> None:
        """Quarantine a recording with a reason that a person can act on."""
        reason = f"{error} ({error.advice})"
        recording = await self.move(
            path,
            RecordingEvent.SET_ASIDE,
            self._custody("recording.quarantined", path, reason=reason),
            reason=reason,
        )
        events.RECORDING_QUARANTINED.log(**self._about(recording), reason=reason)

    async def ask_again(self) -> bool:
        """Ask the store for each receipt again; say whether it lost any, which then goes anew.

        For a store that turns the manifest down, because it does not hold all that it signed for.
        """
        lost = False
        for recording in list(self.recordings.values()):
            if recording.state is not RecordingState.CONFIRMED:
                continue
            try:
                await self._services.uploader.receipt(recording.upload_url or "")
            except (ReceiptRejectedError, UploadGoneError) as error:
                await self._send_again(recording.path, error, key=None)
                lost = True
        return lost

    async def changed_unseen(self, path: bytes) -> None:
        """Send a recording anew whose bytes are others than its receipt says, whatever its stat."""
        recording = self.recordings[path]
        await self._void(path, recording.size_bytes, recording.mtime_ns)

    def unproved(self, listing: Listing) -> list[bytes]:
        """Return the confirmed recordings on the camera whose receipts do not prove them any more: the
        pinned store was changed, say. Blocking.
        """
        known = (self.recordings.get(file.path) for file in listing.files)
        return [
            recording.path
            for recording in known
            if recording is not None
            and recording.state is RecordingState.CONFIRMED
            and not self._is_proved(recording)
        ]

    async def prove_again(self, paths: Iterable[bytes]) -> None:
        """Have recordings proved anew. What the store holds is not sent to it again."""
        for path in paths:
            await self._send_again(path, None, key=None)

    async def all_erased(self, custody: CustodyEvent) -> None:
        """Record that every confirmed recording was erased from the camera."""
        await self._services.journal.end_wipe(self._visit.visit_id, custody)
        for path, item in self.recordings.items():
            if item.state is RecordingState.CONFIRMED:
                erased = after(item.state, RecordingEvent.ERASED)
                self.recordings[path] = replace(item, state=erased)

    # One recording, up to its last byte; holds one of the dock's streams

    async def _send(self, path: bytes) -> bool:
        if self.recordings[path].state is RecordingState.SENT:
            return True
        try:
            for _ in range(MAX_READINGS - 1):
                try:
                    return await self._send_once(path)
                except SourceChangedError as error:
                    events.RECORDING_CHANGED.log(
                        **self._about(self.recordings[path]), reason=str(error)
                    )
                    await self._look_again(path)
            return await self._send_once(path)
        except (CameraGoneError, JournalError):
            raise
        except CameraUnreadableError as error:
            self._unreadable[path] = error
            return False
        except DockdError as error:
            await self.set_aside(path, error)
            return False

    async def _send_once(self, path: bytes) -> bool:
        recording = self._begin(path)
        sidecar = self._sidecars.get(path)
        volume, worker = self._opened()
        tally = Tally(partial(self._journal_attempt, recording), recording.furthest_bytes)
        reader = RecordingReader(
            volume, worker, recording, with_md5=sidecar is not None and sidecar.algorithm == "md5"
        )

        async def on_created(url: str) -> None:
            self._attempts[path] = as_journalled(recording, tally, self._services.clock.now())
            await self.move(path, RecordingEvent.UPLOAD_STARTED, upload_url=url)

        def on_progress(offset: int) -> None:
            self._sent_bytes[path] = offset

        try:
            sent = await self._services.uploader.send(
                await self._spec(recording),
                reader,
                url=recording.upload_url,
                on_created=on_created,
                on_progress=on_progress,
                on_retry=partial(self._say_why, path),
                turn=self._services.uploader.pace.turn(
                    self._visit.bay, partial(self._is_urgent, path)
                ),
                tally=tally,
            )
            self._attempts[path] = as_journalled(recording, tally, self._services.clock.now())
            await reader.check_unchanged()
        finally:
            self._count(recording, tally)
            reader.close()
        digests = {"sha256": sent.sha256, "md5": reader.md5_hex()}
        all_sent = self._after(
            path,
            RecordingEvent.ALL_BYTES_SENT,
            upload_url=sent.url,
            sha256=sent.sha256,
            reason=None,
            container=reader.container(),
            blocks_wipe=await self._compare_with_sidecar(path, sidecar, digests),
        )
        if sent.receipt is None:
            await self._put(all_sent, None)
        # Else the journal hears of bytes and receipt at once, when the receipt is proved: one commit
        # for a small recording. Until then the store finds the upload by its key.
        self.recordings[path] = all_sent
        self._unproved[path] = sent
        return True

    def _count(self, begun: Recording, tally: Tally) -> None:
        """Take over what sending has cost so far; the journal hears of it with what it hears next."""
        self.recordings[begun.path] = replace(
            self.recordings[begun.path],
            attempts=begun.attempts + max(0, tally.attempts - 1),
            resent_bytes=begun.resent_bytes + tally.resent_bytes,
            furthest_bytes=tally.furthest_bytes,
        )

    async def _journal_attempt(self, begun: Recording, tally: Tally) -> None:
        self._count(begun, tally)
        attempt = as_journalled(begun, tally, self._services.clock.now())
        # A disk that is full shows soon enough where more depends on it.
        with contextlib.suppress(JournalUnwritableError):
            await self._services.journal.put_recordings(
                [self.recordings[begun.path]], None, [attempt]
            )

    async def _put(self, recording: Recording, custody: CustodyEvent | None) -> None:
        attempt = self._attempts.get(recording.path)
        attempts = [] if attempt is None else [attempt]
        await self._services.journal.put_recordings([recording], custody, attempts)
        self._attempts.pop(recording.path, None)

    def _begin(self, path: bytes) -> Recording:
        """Count the upload. The journal learns of it with the upload's URL, its first durable fact."""
        recording = self.recordings[path]
        begun = replace(
            recording,
            state=after(recording.state, RecordingEvent.UPLOAD_STARTED),
            upload_key=recording.upload_key or upload_key(self._visit.camera.camera_id, recording),
            attempts=recording.attempts + 1,
            reason=None,
        )
        self.recordings[path] = begun
        return begun

    async def _spec(self, recording: Recording) -> UploadSpec:
        return UploadSpec(
            key=recording.upload_key or "",
            kind=UploadKind.RECORDING,
            path=recording.path,
            size_bytes=recording.size_bytes,
            mtime_ns=recording.mtime_ns,
            dock=self._services.dock,
            camera=self._visit.camera.camera_id,
            visit=self._visit.visit_id,
            custody_head=await self._services.journal.custody_head(),
            flagged=recording.flagged,
        )

    async def _look_again(self, path: bytes) -> None:
        """Take the size and time that the file has now; what was sent of it before is void."""
        volume, worker = self._opened()

        def stat() -> tuple[int, int]:
            file = volume.open_file(path)
            try:
                now = file.stat()
                return now.size_bytes, now.mtime_ns
            finally:
                file.close()

        await self._void(path, *await worker.start(stat))

    async def _void(self, path: bytes, size_bytes: int, mtime_ns: int) -> None:
        self._sent_bytes.pop(path, None)
        await self.move(
            path,
            RecordingEvent.FILE_CHANGED,
            self._custody("recording.changed", path, size_bytes=size_bytes, mtime_ns=mtime_ns),
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            upload_url=None,
            upload_key=None,
            furthest_bytes=0,
        )

    async def _compare_with_sidecar(
        self, path: bytes, sidecar: Sidecar | None, digests: Mapping[str, str | None]
    ) -> str | None:
        if sidecar is None:
            return None
        volume, worker = self._opened()

        def read() -> bytes:
            file = volume.open_file(sidecar.path)
            try:
                return file.read(MAX_SIDECAR_BYTES)
            finally:
                file.close()

        mismatch = sidecar.mismatch(await worker.start(read), digests[sidecar.algorithm] or "")
        if mismatch is not None:
            events.SIDECAR_MISMATCH.log(**self._about(self.recordings[path]), reason=mismatch)
        return mismatch

    # Its proof; holds no stream

    async def _confirm(self, path: bytes) -> None:
        try:
            await self._prove(path)
        except JournalError:
            raise
        except (ReceiptRejectedError, UploadGoneError) as error:
            await self._send_again(path, error, key=None)
        except DockdError as error:
            await self.set_aside(path, error)

    async def _prove(self, path: bytes) -> None:
        recording = self.recordings[path]
        if recording.upload_url is None or recording.sha256 is None:
            raise UploadGoneError(f"{display_name(path)} was sent, but not known where to")
        sent = self._unproved.pop(path, None)
        receipt = sent.receipt if sent is not None else None
        if receipt is None:
            receipt = await self._services.uploader.receipt(
                recording.upload_url, partial(self._say_why, path)
            )
        try:
            claims = await self._services.verify_receipt(receipt)
            camera_id = self._visit.camera.camera_id
            distinct_key = upload_key(camera_id, recording, recording.sha256)
            if claims.sha256 != recording.sha256 and recording.upload_key != distinct_key:
                # The store holds an earlier recording of this name, size and time: this is another.
                await self._send_again(path, None, key=distinct_key)
                return
            self._require_proof(recording, claims)
        except ReceiptInvalidError as error:
            events.RECEIPT_REFUSED.log(**self._about(recording), reason=str(error))
            raise
        confirmed = await self.move(
            path,
            RecordingEvent.RECEIPT_ACCEPTED,
            self._custody(
                "recording.confirmed",
                path,
                sha256=recording.sha256,
                size_bytes=recording.size_bytes,
                receipt=receipt,
            ),
            receipt=receipt,
            reason=None,
        )
        events.RECORDING_CONFIRMED.log(
            **self._about(confirmed),
            size_bytes=confirmed.size_bytes,
            sha256=confirmed.sha256,
            container=confirmed.container.verdict if confirmed.container else None,
            flagged=confirmed.flagged,
        )

    def _require_proof(self, recording: Recording, claims: ReceiptClaims) -> None:
        prove(
            claims,
            dock=self._services.dock,
            camera=self._visit.camera.camera_id,
            sha256=recording.sha256 or "",
            size_bytes=recording.size_bytes,
            now=self._services.clock.now(),
        )

    def _is_proved(self, recording: Recording) -> bool:
        try:
            claims = self._services.verifier.verify(recording.receipt or "")
            self._require_proof(recording, claims)
        except ReceiptInvalidError:
            return False
        return True

    async def _send_again(self, path: bytes, error: DockdError | None, *, key: str | None) -> None:
        if error is not None:
            self._turned_down[path] += 1
            if self._turned_down[path] >= MAX_UPLOADS:
                await self.set_aside(path, error)
                return
        self._sent_bytes.pop(path, None)
        await self.move(
            path,
            RecordingEvent.TO_DO_AGAIN,
            upload_url=None,
            upload_key=key,
            reason=str(error or ""),
        )

    # Small helpers

    def _say_why(self, path: bytes, error: TargetError) -> None:
        self.recordings[path] = replace(self.recordings[path], reason=f"{error} ({error.advice})")

    def _after(self, path: bytes, event: RecordingEvent, **changes: object) -> Recording:
        recording = self.recordings[path]
        return replace(recording, state=after(recording.state, event), **changes)  # type: ignore[arg-type]

    def _opened(self) -> tuple[Volume, Worker]:
        if self._volume is None or self._worker is None:
            raise CameraGoneError(f"bay {self._visit.bay}: the camera is not open")
        return self._volume, self._worker

    def _about(self, recording: Recording) -> dict[str, object]:
        return {
            "bay": self._visit.bay,
            "camera": self._visit.camera.camera_id,
            "visit": self._visit.visit_id,
            "recording": display_name(recording.path),
        }

    def _custody(self, event: str, path: bytes, **details: object) -> CustodyEvent:
        return CustodyEvent(
            event,
            visit=self._visit.visit_id,
            camera=self._visit.camera.camera_id,
            details={**path_details(path), **details},
        )


_OPEN = frozenset({RecordingState.PENDING, RecordingState.UPLOADING, RecordingState.SENT})
_TO_SEND = frozenset({RecordingState.PENDING, RecordingState.UPLOADING})
_AT_STORE = frozenset({RecordingState.SENT, RecordingState.CONFIRMED, RecordingState.ERASED})
