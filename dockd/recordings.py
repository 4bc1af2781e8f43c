"""The recordings of one visit: their state, mirrored in the journal, and their progress."""

import base64
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

from dockd.core.errors import (
    DockdError,
    ReceiptInvalidError,
    ReceiptRejectedError,
    TargetError,
    UploadGoneError,
)
from dockd.core.model import (
    CustodyEvent,
    Listing,
    ReceiptClaims,
    Recording,
    RecordingState,
    UploadAttempt,
    Visit,
    display_name,
)
from dockd.core.recording import RecordingEvent, after
from dockd.core.schedule import Waiting
from dockd.evidence.receipts import prove
from dockd.ops import events
from dockd.services import Services
from dockd.target.tally import Tally

MAX_UPLOADS = 3
"""Uploads of one recording that the store may turn down in one visit before it is set aside."""


def path_details(path: bytes) -> dict[str, object]:
    """Return a path for the custody log: readable, and exact."""
    return {"path": display_name(path), "path_b64": base64.b64encode(path).decode()}


class Recordings:
    """What is known of each recording of a visit. Every change is in the journal first."""

    def __init__(self, services: Services, visit: Visit, known: Iterable[Recording]) -> None:
        """Build from what the journal knows."""
        self._services = services
        self._visit = visit
        self.by_path: dict[bytes, Recording] = {item.path: item for item in known}
        self._sent_bytes: dict[bytes, int] = {}
        self._attempts: dict[bytes, UploadAttempt] = {}
        self._turned_down: Counter[bytes] = Counter()
        self._hurried: set[bytes] = set()
        self._all_hurried = False

    # What others ask

    @property
    def waiting(self) -> list[Waiting]:
        """The recordings that still have to be sent or confirmed."""
        return [
            Waiting(item.path, item.size_bytes, self.is_urgent(item.path))
            for item in self.by_path.values()
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

    def is_urgent(self, path: bytes) -> bool:
        """Whether it goes before others: flagged by the camera, or hurried by a person."""
        return self._all_hurried or path in self._hurried or self.by_path[path].flagged

    def count(self, *states: RecordingState) -> int:
        """Return how many recordings are in one of the states."""
        return sum(item.state in states for item in self.by_path.values())

    @property
    def delay(self) -> str | None:
        """Why a recording has not got any further yet, for one that met trouble."""
        reasons = (item.reason for item in self.by_path.values() if item.state in _OPEN)
        return next(filter(None, reasons), None)

    @property
    def quarantined(self) -> list[Recording]:
        """The recordings that were set aside, each with its reason."""
        return [item for item in self.by_path.values() if item.state is RecordingState.QUARANTINED]

    @property
    def size_bytes(self) -> int:
        """Bytes of all recordings."""
        return sum(item.size_bytes for item in self.by_path.values())

    @property
    def sent_bytes(self) -> int:
        """Bytes that the store has acknowledged, of all recordings."""
        return sum(
            item.size_bytes
            if item.state in _AT_STORE
            else min(self._sent_bytes.get(item.path, 0), item.size_bytes)
            for item in self.by_path.values()
        )

    @property
    def bytes_left(self) -> int:
        """Bytes that are still to be sent, of the recordings that will be."""
        return sum(
            item.size_bytes - min(self._sent_bytes.get(item.path, 0), item.size_bytes)
            for item in self.by_path.values()
            if item.state in _TO_SEND
        )

    # Changes

    async def move(
        self,
        path: bytes,
        event: RecordingEvent,
        custody: CustodyEvent | None = None,
        **changes: object,
    ) -> Recording:
        """Apply an event to a recording, in the journal first, and return it."""
        moved = self.changed(path, event, **changes)
        await self.put(moved, custody)
        self.by_path[path] = moved
        return moved

    async def set_aside(self, path: bytes, error: DockdError) -> None:
        """Quarantine a recording with a reason that a person can act on."""
        reason = f"{error} ({error.advice})"
        recording = await self.move(
            path,
            RecordingEvent.SET_ASIDE,
            self.custody("recording.quarantined", path, reason=reason),
            reason=reason,
        )
        events.RECORDING_QUARANTINED.log(**self.about(recording), reason=reason)

    async def ask_again(self) -> bool:
        """Ask the store for each receipt again; say whether it lost any, which then goes anew.

        For a store that turns the manifest down, because it does not hold all that it signed for.
        """
        lost = False
        for recording in list(self.by_path.values()):
            if recording.state is not RecordingState.CONFIRMED:
                continue
            try:
                await self._services.uploader.receipt(recording.upload_url or "")
            except (ReceiptRejectedError, UploadGoneError) as error:
                await self.send_again(recording.path, error, key=None)
                lost = True
        return lost

    async def changed_unseen(self, path: bytes) -> None:
        """Send a recording anew whose bytes are others than its receipt says, whatever its stat."""
        recording = self.by_path[path]
        await self.void(path, recording.size_bytes, recording.mtime_ns)

    def unproved(self, listing: Listing) -> list[bytes]:
        """Return the confirmed recordings on the camera whose receipts do not prove them any more: the
        pinned store was changed, say. Blocking.
        """
        known = (self.by_path.get(file.path) for file in listing.files)
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
            await self.send_again(path, None, key=None)

    async def all_erased(self, custody: CustodyEvent) -> None:
        """Record that every confirmed recording was erased from the camera."""
        await self._services.journal.end_wipe(self._visit.visit_id, custody)
        for path, item in self.by_path.items():
            if item.state is RecordingState.CONFIRMED:
                erased = after(item.state, RecordingEvent.ERASED)
                self.by_path[path] = replace(item, state=erased)

    async def void(self, path: bytes, size_bytes: int, mtime_ns: int) -> None:
        """Begin anew with a file that has this size and time now; nothing sent of it counts."""
        self._sent_bytes.pop(path, None)
        await self.move(
            path,
            RecordingEvent.FILE_CHANGED,
            self.custody("recording.changed", path, size_bytes=size_bytes, mtime_ns=mtime_ns),
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            upload_url=None,
            upload_key=None,
            furthest_bytes=0,
        )

    async def send_again(self, path: bytes, error: DockdError | None, *, key: str | None) -> None:
        """Have a recording sent anew, with this key; set it aside where the store, by ``error``, has
        turned it down too often.
        """
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

    async def put(self, recording: Recording, custody: CustodyEvent | None) -> None:
        """Write a recording to the journal, together with its newest attempt."""
        attempt = self._attempts.get(recording.path)
        attempts = [] if attempt is None else [attempt]
        await self._services.journal.put_recordings([recording], custody, attempts)
        self._attempts.pop(recording.path, None)

    def changed(self, path: bytes, event: RecordingEvent, **changes: object) -> Recording:
        """Return a recording as an event makes it; nothing is written."""
        recording = self.by_path[path]
        return replace(recording, state=after(recording.state, event), **changes)  # type: ignore[arg-type]

    # Progress, which the journal need not hear of at once

    def progress(self, path: bytes, offset: int) -> None:
        """Note how many bytes of a recording the store has."""
        self._sent_bytes[path] = offset

    def note_attempt(self, attempt: UploadAttempt) -> None:
        """Keep an attempt for the journal, which gets it with the next change of its recording."""
        self._attempts[attempt.path] = attempt

    def count_sending(self, begun: Recording, tally: Tally) -> None:
        """Take over what sending has cost so far; the journal hears of it with what it hears next."""
        self.by_path[begun.path] = replace(
            self.by_path[begun.path],
            attempts=begun.attempts + max(0, tally.attempts - 1),
            resent_bytes=begun.resent_bytes + tally.resent_bytes,
            furthest_bytes=tally.furthest_bytes,
        )

    def say_why(self, path: bytes, error: TargetError) -> None:
        """Keep for people why a recording gets no further just now."""
        self.by_path[path] = replace(self.by_path[path], reason=f"{error} ({error.advice})")

    # Proof, and words

    def require_proof(self, recording: Recording, claims: ReceiptClaims) -> None:
        """Raise ReceiptInvalidError unless a verified receipt speaks of exactly this recording."""
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
            self.require_proof(recording, claims)
        except ReceiptInvalidError:
            return False
        return True

    def about(self, recording: Recording) -> dict[str, object]:
        """Return what every log event of a recording carries."""
        return {
            "bay": self._visit.bay,
            "camera": self._visit.camera.camera_id,
            "visit": self._visit.visit_id,
            "recording": display_name(recording.path),
        }

    def custody(self, event: str, path: bytes, **details: object) -> CustodyEvent:
        """Return an event of a recording for the custody log."""
        return CustodyEvent(
            event,
            visit=self._visit.visit_id,
            camera=self._visit.camera.camera_id,
            details={**path_details(path), **details},
        )


_OPEN = frozenset({RecordingState.PENDING, RecordingState.UPLOADING, RecordingState.SENT})
_TO_SEND = frozenset({RecordingState.PENDING, RecordingState.UPLOADING})
_AT_STORE = frozenset({RecordingState.SENT, RecordingState.CONFIRMED, RecordingState.ERASED})
