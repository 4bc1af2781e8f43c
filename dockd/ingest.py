"""A visit's recordings, each by the same way: read → digest → stream → receipt → journal."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from dockd.attempts import as_journalled
from dockd.core.errors import (
    CameraGoneError,
    CameraUnreadableError,
    DockdError,
    JournalError,
    JournalUnwritableError,
    ReceiptInvalidError,
    ReceiptRejectedError,
    SourceChangedError,
    UploadGoneError,
)
from dockd.core.interfaces import Volume
from dockd.core.model import (
    Recording,
    RecordingState,
    UploadKind,
    UploadSpec,
    Visit,
    display_name,
)
from dockd.core.recording import RecordingEvent, after, upload_key
from dockd.evidence.sidecar import Sidecar
from dockd.ops import events
from dockd.reader import RecordingReader
from dockd.recordings import Recordings
from dockd.services import Services
from dockd.target.tally import Tally
from dockd.target.uploader import Sent
from dockd.worker import Worker

MAX_READINGS = 3
"""A recording that changes under the reader is read again twice, then set aside."""

MAX_SIDECAR_BYTES = 4096


class Ingest:
    """One pass over the recordings of a visit that wait, with the camera open."""

    def __init__(
        self,
        services: Services,
        visit: Visit,
        recordings: Recordings,
        volume: Volume,
        worker: Worker,
        sidecars: Mapping[bytes, Sidecar],
    ) -> None:
        """Build; ``sidecars`` are the camera's own checksum files, by the recording they are about."""
        self._services = services
        self._visit = visit
        self._recordings = recordings
        self._volume = volume
        self._worker = worker
        self._sidecars = sidecars
        self._unproved: dict[bytes, Sent] = {}
        self._unreadable: dict[bytes, CameraUnreadableError] = {}

    async def run(self) -> None:
        """Take every open recording as far as it goes now; each ends confirmed, set aside, or open.

        Raises CameraGoneError and JournalError; every other trouble stays with its recording.
        """
        await self._services.dispatcher.run(
            self._visit.bay, self._recordings.waiting, send=self._send, confirm=self._confirm
        )
        if self._unreadable:
            # A camera that is pulled gives read errors before it is seen to be gone: no fault of its own.
            await asyncio.sleep(self._services.config().cameras.noticed_s)
        for path, error in self._unreadable.items():
            await self._recordings.set_aside(path, error)

    async def _send(self, path: bytes) -> bool:
        """Send a recording up to its last byte, holding one of the dock's streams.

        Return whether there is something to confirm.
        """
        if self._recordings.by_path[path].state is RecordingState.SENT:
            return True
        try:
            for _ in range(MAX_READINGS - 1):
                try:
                    return await self._send_once(path)
                except SourceChangedError as error:
                    events.RECORDING_CHANGED.log(
                        **self._recordings.about(self._recordings.by_path[path]), reason=str(error)
                    )
                    await self._look_again(path)
            return await self._send_once(path)
        except (CameraGoneError, JournalError):
            raise
        except CameraUnreadableError as error:
            self._unreadable[path] = error
            return False
        except DockdError as error:
            await self._recordings.set_aside(path, error)
            return False

    async def _send_once(self, path: bytes) -> bool:
        recording, clock = self._begin(path), self._services.clock
        sidecar = self._sidecars.get(path)
        tally = Tally(partial(self._journal_attempt, recording), recording.furthest_bytes)
        reader = RecordingReader(
            self._volume,
            self._worker,
            recording,
            with_md5=sidecar is not None and sidecar.algorithm == "md5",
        )

        async def on_created(url: str) -> None:
            self._recordings.note_attempt(as_journalled(recording, tally, clock.now()))
            await self._recordings.move(path, RecordingEvent.UPLOAD_STARTED, upload_url=url)

        try:
            sent = await self._services.uploader.send(
                await self._spec(recording),
                reader,
                url=recording.upload_url,
                on_created=on_created,
                on_progress=partial(self._recordings.progress, path),
                on_retry=partial(self._recordings.say_why, path),
                turn=self._services.uploader.pace.turn(
                    self._visit.bay, partial(self._recordings.is_urgent, path)
                ),
                tally=tally,
            )
            self._recordings.note_attempt(as_journalled(recording, tally, clock.now()))
            await reader.check_unchanged()
        finally:
            self._recordings.count_sending(recording, tally)
            reader.close()
        digests = {"sha256": sent.sha256, "md5": reader.md5_hex()}
        all_sent = self._recordings.changed(
            path,
            RecordingEvent.ALL_BYTES_SENT,
            upload_url=sent.url,
            sha256=sent.sha256,
            reason=None,
            container=reader.container(),
            blocks_wipe=await self._compare_with_sidecar(path, sidecar, digests),
        )
        if sent.receipt is None:
            await self._recordings.put(all_sent, None)
        # Else the journal hears of bytes and receipt at once, when the receipt is proved: one commit
        # for a small recording. Until then the store finds the upload by its key.
        self._recordings.by_path[path] = all_sent
        self._unproved[path] = sent
        return True

    def _begin(self, path: bytes) -> Recording:
        """Count the upload. The journal learns of it with the upload's URL, its first durable fact."""
        recording = self._recordings.by_path[path]
        begun = replace(
            recording,
            state=after(recording.state, RecordingEvent.UPLOAD_STARTED),
            upload_key=recording.upload_key or upload_key(self._visit.camera.camera_id, recording),
            attempts=recording.attempts + 1,
            reason=None,
        )
        self._recordings.by_path[path] = begun
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

    async def _journal_attempt(self, begun: Recording, tally: Tally) -> None:
        self._recordings.count_sending(begun, tally)
        attempt = as_journalled(begun, tally, self._services.clock.now())
        # A disk that is full shows soon enough where more depends on it.
        with contextlib.suppress(JournalUnwritableError):
            await self._services.journal.put_recordings(
                [self._recordings.by_path[begun.path]], None, [attempt]
            )

    async def _look_again(self, path: bytes) -> None:
        """Take the size and time that the file has now; what was sent of it before is void."""

        def stat() -> tuple[int, int]:
            file = self._volume.open_file(path)
            try:
                now = file.stat()
                return now.size_bytes, now.mtime_ns
            finally:
                file.close()

        await self._recordings.void(path, *await self._worker.start(stat))

    async def _compare_with_sidecar(
        self, path: bytes, sidecar: Sidecar | None, digests: Mapping[str, str | None]
    ) -> str | None:
        if sidecar is None:
            return None

        def read() -> bytes:
            file = self._volume.open_file(sidecar.path)
            try:
                return file.read(MAX_SIDECAR_BYTES)
            finally:
                file.close()

        mismatch = sidecar.mismatch(
            await self._worker.start(read), digests[sidecar.algorithm] or ""
        )
        if mismatch is not None:
            events.SIDECAR_MISMATCH.log(
                **self._recordings.about(self._recordings.by_path[path]), reason=mismatch
            )
        return mismatch

    async def _confirm(self, path: bytes) -> None:
        """Have a recording proved that the store has all of, holding no stream."""
        try:
            await self._prove(path)
        except JournalError:
            raise
        except (ReceiptRejectedError, UploadGoneError) as error:
            await self._recordings.send_again(path, error, key=None)
        except DockdError as error:
            await self._recordings.set_aside(path, error)

    async def _prove(self, path: bytes) -> None:
        recording = self._recordings.by_path[path]
        if recording.upload_url is None or recording.sha256 is None:
            raise UploadGoneError(f"{display_name(path)} was sent, but not known where to")
        sent = self._unproved.pop(path, None)
        receipt = sent.receipt if sent is not None else None
        if receipt is None:
            receipt = await self._services.uploader.receipt(
                recording.upload_url, partial(self._recordings.say_why, path)
            )
        try:
            claims = await self._services.verify_receipt(receipt)
            camera_id = self._visit.camera.camera_id
            distinct_key = upload_key(camera_id, recording, recording.sha256)
            if claims.sha256 != recording.sha256 and recording.upload_key != distinct_key:
                # The store holds an earlier recording of this name, size and time: this is another.
                await self._recordings.send_again(path, None, key=distinct_key)
                return
            self._recordings.require_proof(recording, claims)
        except ReceiptInvalidError as error:
            events.RECEIPT_REFUSED.log(**self._recordings.about(recording), reason=str(error))
            raise
        confirmed = await self._recordings.move(
            path,
            RecordingEvent.RECEIPT_ACCEPTED,
            self._recordings.custody(
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
            **self._recordings.about(confirmed),
            size_bytes=confirmed.size_bytes,
            sha256=confirmed.sha256,
            container=confirmed.container.verdict if confirmed.container else None,
            flagged=confirmed.flagged,
        )
