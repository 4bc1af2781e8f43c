"""The doors between the core and the world. Adapters implement them; tests implement them again.

Three kinds of door: to cameras (blocking, called in the bay's own thread, because a dying card can
hold a call for minutes), to the target (asynchronous), and to the journal (asynchronous).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from dockd.core.model import (
    Appended,
    Camera,
    ChargeStatus,
    Created,
    CustodyEvent,
    EndedWipe,
    FileStat,
    Listing,
    Power,
    Presence,
    ReceiptPending,
    Recording,
    TargetProperties,
    UploadAttempt,
    UploadSpec,
    Visit,
    WipeReport,
    WipeRequest,
)
from dockd.core.wipe_gate import WipeRefused

ShouldStop = Callable[[], bool]
"""Asked between pieces of long blocking work; true means: stop now, leaving a state to resume from."""


class Clock(Protocol):
    """The time. Waiting is the event loop's business."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""

    def monotonic_s(self) -> float:
        """Return seconds that never go back."""


class OpenFile(Protocol):
    """A recording opened for sequential reading. Blocking."""

    def read(self, size_bytes: int) -> bytes:
        """Return the next bytes, empty at the end.

        Raises CameraGoneError and CameraUnreadableError.
        """

    def seek(self, offset: int) -> None:
        """Go on reading from this byte; for resuming after a break."""

    def stat(self) -> FileStat:
        """Return what the file system says of the open file now."""

    def close(self) -> None:
        """Release it; never raises for a camera that is gone."""


class Volume(Protocol):
    """The opened file system of a camera, read-only. Blocking."""

    def list_files(self) -> Listing:
        """List everything, within limits, following no symbolic link.

        Raises CameraGoneError, and CameraUnreadableError when not even the root can be listed.
        """

    def open_file(self, path: bytes) -> OpenFile:
        """Open a regular file at its beginning; raises as ``OpenFile.read`` does."""

    def close(self) -> None:
        """Let go of the camera; may be called twice."""


class CameraSource(Protocol):
    """Where cameras come from: folders, USB ports, a simulation."""

    bays: Sequence[str]
    """Their names, in the order in which people see them."""

    watches_when_ready: bool
    """Whether footage can arrive on a ready camera without it being docked anew."""

    def enumerate_cameras(self) -> Mapping[str, Sequence[Presence]]:
        """Return who is in each bay now, by looking. Blocking, quick; never raises for one bad bay."""

    def hints(self) -> AsyncGenerator[None, None]:
        """Yield whenever something may have changed. Only a hint: the truth is an enumeration."""

    def open_camera(self, presence: Presence) -> Volume:
        """Open the camera read-only. Blocking. Raises CameraGoneError, CameraUnreadableError."""

    def wipe(self, request: WipeRequest, should_stop: ShouldStop) -> WipeReport | WipeRefused:
        """Read the camera afresh, run the wipe gate, and erase only with its permit. Blocking.

        Stopped or interrupted anywhere, some listed files may be erased and the others are whole;
        the same request may be made again. Raises CameraGoneError, CameraUnreadableError.
        """

    def is_half_erased(self, presence: Presence) -> bool:
        """Whether an erasing of this camera was cut short; opening it then finishes that first,
        however long it takes. Blocking. Raises as ``open_camera``.
        """

    def ended_wipes(self) -> Sequence[EndedWipe]:
        """Return the wipes, of any camera, that are done and not acknowledged yet. Blocking.

        Those are among them whose end nobody heard of, because this process or the one that erased
        was cut short.
        """

    def acknowledge(self, visit_id: str) -> None:
        """Say that the journal holds the end of a visit's wipe. Blocking; never raises."""

    def charge(self, presence: Presence) -> ChargeStatus:
        """Charge the camera, with its data off where that can be; say how it goes. Blocking.

        May be called again, and is asked repeatedly. Raises CameraGoneError.
        """

    def rest(self, presence: Presence) -> Power:
        """Take the power from the camera's port until it is charged again; return what came of it.

        Unless that is ``off``, the port has no switch, and the camera draws on. One that was off counts
        as docked anew when it comes back, for nobody can see whether it was pulled meanwhile. Blocking.
        """


class UploadSource(Protocol):
    """One recording being read for upload. It keeps the digest of all bytes up to its position."""

    size_bytes: int

    @property
    def position(self) -> int:
        """Bytes that the digest covers."""

    async def seek(self, offset: int) -> None:
        """Make the digest cover exactly the bytes up to ``offset``, reading again where needed."""

    def chunks(self, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from the position up to ``end``.

        Raises SourceChangedError when the file ends early or is not what it was.
        """

    def sha256(self) -> bytes:
        """Return the digest of all bytes up to the position."""


class UploadTurn(Protocol):
    """A stream's place among all that the dock sends now; each piece of a body asks before it goes."""

    async def take(self, size_bytes: int) -> int:
        """Wait until a piece may be sent; return its size, at most ``size_bytes``.

        Raises SendingPausedError when nothing is to be sent now.
        """

    def rest(self) -> None:
        """Say that nothing is there to be sent until the next :meth:`take`."""


class UploadTarget(Protocol):
    """Where recordings go. One call is one request and one answer; nothing here retries.

    Every method raises the TargetError that says what the answer means. The contract for servers is
    docs/upload-target.md.
    """

    async def discover(self) -> TargetProperties:
        """Ask what the target can do."""

    async def create(
        self,
        spec: UploadSpec,
        body: bytes | None,
        sha256: bytes | None,
        *,
        turn: UploadTurn | None = None,
    ) -> Created:
        """Create the upload, or find the one that was created with the same key.

        With ``body`` (the whole recording) and its ``sha256``, the bytes go along where the target
        can take them; ``Created.offset`` says what it has. Without ``turn``, bytes wait for nobody.
        """

    async def offset(self, url: str) -> int:
        """Return how many bytes the upload holds (HEAD)."""

    async def append(
        self,
        url: str,
        offset: int,
        length: int,
        body: AsyncIterator[bytes],
        *,
        chunk_sha256: bytes | None = None,
        whole_sha256: bytes | None = None,
        turn: UploadTurn | None = None,
    ) -> Appended:
        """Send exactly ``length`` bytes from ``offset`` on (PATCH).

        ``chunk_sha256`` covers this body, ``whole_sha256`` the whole recording (with its last bytes).
        """

    async def receipt(self, url: str) -> str | ReceiptPending:
        """Return the receipt, a compact JWS, or when to ask again.

        Raises ReceiptRejectedError when the store's bytes are not what was announced.
        """


class Journal(Protocol):
    """The dock's durable state. When a call returns, it survives a power cut.

    Each change is one transaction with its custody entries, so state and history cannot disagree.
    Raises JournalUnwritableError (disk full; may be tried again) and JournalDamagedError.
    """

    async def custody_head(self) -> str:
        """Return the hash of the newest custody entry, hexadecimal."""

    async def add_custody(self, event: CustodyEvent) -> str:
        """Append to the custody log alone; return the new head."""

    async def begin_visit(self, visit: Visit, event: CustodyEvent) -> None:
        """Record a new visit."""

    async def update_visit(self, visit: Visit, event: CustodyEvent | None) -> None:
        """Replace what is known of a visit."""

    async def present_visit(self, bay: str) -> Visit | None:
        """Return the bay's visit that has not ended, if there is one."""

    async def newest_erased_visit(self, but: Iterable[str] = ()) -> Visit | None:
        """Return the newest visit that was wiped on its manifest's receipt, and is none of these."""

    async def recordings(self, visit_id: str) -> Sequence[Recording]:
        """Return the recordings of a visit, in the order of their paths."""

    async def earlier_recordings(self, camera: Camera, visit_id: str) -> Mapping[bytes, Recording]:
        """Return the newest known recording of each path from other visits of the same camera."""

    async def put_recordings(
        self,
        recordings: Sequence[Recording],
        event: CustodyEvent | None,
        attempts: Sequence[UploadAttempt] = (),
    ) -> None:
        """Insert or replace recordings of a visit, and attempts to send them, all or none."""

    async def end_wipe(self, visit_id: str, event: CustodyEvent) -> bool:
        """Mark the confirmed recordings of a visit as erased; return whether that was news.

        When the visit has none, but others, its wipe's end is known already, and nothing is written.
        """
