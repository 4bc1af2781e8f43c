"""What dockd and its privileged helper say to each other.

One connection of a Unix socket (SOCK_SEQPACKET) is one request and one answer, each one small JSON
message. A request names a bay and never a path or a device: what is in the bay, the helper finds out
by itself. What is too large for a message goes along as a sealed memfd (memfd_create(2)), so that
nobody can change it after it was looked at; an opened camera comes back as a directory descriptor.
Descriptors travel as SCM_RIGHTS (unix(7)), at most one with a message.

A client that wants no more of a request shuts its side of the connection down, or just closes it; the
helper then stops at the next safe point.
"""

import array
import base64
import fcntl
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from dockd.core.errors import (
    CameraGoneError,
    CameraUnreadableError,
    DeviceRefusedError,
    DockdError,
    HelperError,
    HelperUnavailableError,
    ManifestInvalidError,
)
from dockd.core.model import EndedWipe, IdentifiedBy, Power, WipeReport
from dockd.core.wipe_gate import Reason, WipeRefused
from dockd.evidence.succession import MAX_STATEMENT_CHARS, MAX_STATEMENTS

SOCKET_PATH = "/run/dockd/helper.sock"

LARGEST_MESSAGE_BYTES = 64 * 1024
LARGEST_PAYLOAD_BYTES = 256 << 20
"""Room for the manifest of 100,000 recordings with their receipts."""

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_INT_BYTES = array.array("i").itemsize
_FD_ROOM = 4
"""More descriptors than are allowed, so that a message with too many is seen and refused."""


class MessageError(Exception):
    """The other side said something that is not in this protocol."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_Text = Annotated[str, Field(max_length=1000)]
_Statement = Annotated[str, Field(max_length=MAX_STATEMENT_CHARS)]

# Requests


class Ping(_Message):
    """Is the helper there, and which bays does it serve?"""

    do: Literal["ping"] = "ping"


class Open(_Message):
    """Open the bay's camera read-only. Refused when it is another camera than this one."""

    do: Literal["open"] = "open"
    bay: _Text
    camera: _Text


class Wipe(_Message):
    """Prove, then erase. The manifest, a compact JWS, goes along as a sealed memfd.

    ``key_statements`` lead from the pinned receipt key to its successors.
    """

    do: Literal["wipe"] = "wipe"
    bay: _Text
    camera: _Text
    visit: _Text
    manifest_receipt: Annotated[str, Field(max_length=16 * 1024)]
    hold_until: AwareDatetime
    key_statements: Annotated[
        tuple[_Statement, ...], Field(strict=False, max_length=MAX_STATEMENTS)
    ] = ()


class Charge(_Message):
    """Charge the bay's camera, with its data off where its profile allows; tell how it goes."""

    do: Literal["charge"] = "charge"
    bay: _Text


class SetPower(_Message):
    """Switch the power of the bay's port, where the hub can."""

    do: Literal["power"] = "power"
    bay: _Text
    action: Literal["on", "off", "cycle"]


class AskUnfinished(_Message):
    """Is the bay's medium one whose permitted erasing was cut short? Opening it finishes that."""

    do: Literal["unfinished"] = "unfinished"
    bay: _Text


class AskEnded(_Message):
    """Which wipes, of any camera, are done and not acknowledged yet?"""

    do: Literal["ended"] = "ended"


class Acknowledge(_Message):
    """The end of this visit's wipe is in the dock's journal: it need not be kept any longer."""

    do: Literal["acknowledge"] = "acknowledge"
    visit: _Text


Request = Ping | Open | Wipe | Charge | SetPower | AskUnfinished | AskEnded | Acknowledge

# Answers


class Alive(_Message):
    """The helper is there."""

    answer: Literal["alive"] = "alive"
    version: str
    bays: Annotated[tuple[str, ...], Field(strict=False)]


class Opened(_Message):
    """The root directory of the camera goes along as a descriptor."""

    answer: Literal["opened"] = "opened"


class Wiped(_Message):
    """What was done and checked; see core.model.WipeReport."""

    answer: Literal["wiped"] = "wiped"
    method: str
    level: str
    tool: str
    files_erased: int
    bytes_erased: int
    verified: bool
    verification: str
    finished_at: AwareDatetime
    preserved_b64: Annotated[tuple[str, ...], Field(strict=False)]
    resumed: bool

    @classmethod
    def of(cls, report: WipeReport) -> "Wiped":
        """Put a report on the wire."""
        return cls(
            method=report.method,
            level=report.level,
            tool=report.tool,
            files_erased=report.files_erased,
            bytes_erased=report.bytes_erased,
            verified=report.verified,
            verification=report.verification,
            finished_at=report.finished_at,
            preserved_b64=tuple(base64.b64encode(path).decode() for path in report.preserved),
            resumed=report.resumed,
        )

    def report(self) -> WipeReport:
        """Take it off the wire."""
        return WipeReport(
            method=self.method,
            level=self.level,
            files_erased=self.files_erased,
            bytes_erased=self.bytes_erased,
            verified=self.verified,
            verification=self.verification,
            finished_at=self.finished_at,
            preserved=tuple(base64.b64decode(path) for path in self.preserved_b64),
            tool=self.tool,
            resumed=self.resumed,
        )


class Refused(_Message):
    """The wipe gate has said no; its reasons go along as a sealed memfd."""

    answer: Literal["refused"] = "refused"


class Charging(_Message):
    """How the charging goes; see core.model.ChargeStatus."""

    answer: Literal["charging"] = "charging"
    power: Power
    battery_percent: int | None
    minimum_s: float
    wanted_percent: int | None


class Powered(_Message):
    """What is known of the port's power now."""

    answer: Literal["powered"] = "powered"
    power: Power


class Unfinished(_Message):
    """The camera whose erasing is to be finished, or None."""

    answer: Literal["unfinished"] = "unfinished"
    camera: str | None
    identified_by: IdentifiedBy | None


class Ended(_Message):
    """The wipes that are done go along as a sealed memfd."""

    answer: Literal["ended"] = "ended"


class Acknowledged(_Message):
    """It is not kept any longer."""

    answer: Literal["acknowledged"] = "acknowledged"


class Failed(_Message):
    """It did not work. ``kind`` names the error of core.errors that the client raises."""

    answer: Literal["failed"] = "failed"
    kind: str
    text: str


Answer = (
    Alive
    | Opened
    | Wiped
    | Refused
    | Charging
    | Powered
    | Unfinished
    | Ended
    | Acknowledged
    | Failed
)

_REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="do")])
_ANSWERS: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="answer")])

_KINDS: Sequence[tuple[str, type[DockdError]]] = (
    ("gone", CameraGoneError),
    ("unreadable", CameraUnreadableError),
    ("refused", DeviceRefusedError),
    ("busy", HelperUnavailableError),
    ("manifest", ManifestInvalidError),
)
_OTHER_KIND = "failed"


def failure(error: DockdError) -> Failed:
    """Put an error on the wire."""
    kinds = (kind for kind, type_ in _KINDS if isinstance(error, type_))
    return Failed(kind=next(kinds, _OTHER_KIND), text=str(error)[:1000])


def error_of(failed: Failed) -> DockdError:
    """Take an error off the wire."""
    types = (type_ for kind, type_ in _KINDS if kind == failed.kind)
    return next(types, HelperError)(failed.text)


def read_request(data: bytes) -> Request:
    """Read a request. Raises :class:`MessageError`."""
    try:
        return _REQUESTS.validate_json(data)
    except ValidationError as error:
        raise MessageError(f"not a request: {_first(error)}") from error


def read_answer(data: bytes) -> Answer:
    """Read an answer. Raises :class:`MessageError`."""
    try:
        return _ANSWERS.validate_json(data)
    except ValidationError as error:
        raise MessageError(f"not an answer: {_first(error)}") from error


def send(connection: socket.socket, message: Request | Answer, fd: int | None = None) -> None:
    """Send one message, with a descriptor where there is one. Raises OSError."""
    data = message.model_dump_json().encode()
    if fd is None:
        connection.send(data)
    else:
        socket.send_fds(connection, [data], [fd])


def receive(connection: socket.socket) -> tuple[bytes, int | None]:
    """Receive one message and its descriptor, which is the caller's to close.

    No data at all means that the other side has closed. Raises :class:`MessageError` for what is too
    large or brings too many descriptors, and OSError (TimeoutError among them).
    """
    # Not socket.recv_fds: it leaves the flags out, and with them close-on-exec.
    data, ancillary, flags, _ = connection.recvmsg(
        LARGEST_MESSAGE_BYTES, socket.CMSG_SPACE(_FD_ROOM * _INT_BYTES), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % _INT_BYTES])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(fds) > 1:
        _close_all(fds)
        raise MessageError("the message is too large, or brings more than one descriptor")
    return data, fds[0] if fds else None


def sealed(data: bytes) -> int:
    """Return a memfd with these bytes, which nobody can change any more. Raises OSError."""
    fd = os.memfd_create("dockd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_sealed(fd: int) -> bytes:
    """Return the content of a sealed memfd. Raises :class:`MessageError` when it is anything else."""
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise MessageError("the memfd is not sealed")
        size = os.fstat(fd).st_size
        if size > LARGEST_PAYLOAD_BYTES:
            raise MessageError(f"the memfd has {size} bytes, far too many")
        pieces = []
        position = 0
        while piece := os.pread(fd, 1 << 20, position):
            pieces.append(piece)
            position += len(piece)
    except OSError as error:
        raise MessageError(f"the descriptor is not a memfd ({error.strerror})") from error
    return b"".join(pieces)


class _Reason(_Message):
    check: int
    text: str
    path_b64: str | None


_REASONS: TypeAdapter[list[_Reason]] = TypeAdapter(list[_Reason])


def reasons_to_bytes(refused: WipeRefused) -> bytes:
    """Put the reasons of a refusal on the wire."""
    return _REASONS.dump_json(
        [
            _Reason(
                check=reason.check,
                text=reason.text,
                path_b64=base64.b64encode(reason.path).decode()
                if reason.path is not None
                else None,
            )
            for reason in refused.reasons
        ]
    )


def reasons_from_bytes(data: bytes) -> WipeRefused:
    """Take them off the wire. Raises :class:`MessageError`."""
    try:
        reasons = tuple(
            Reason(
                reason.check,
                reason.text,
                base64.b64decode(reason.path_b64) if reason.path_b64 is not None else None,
            )
            for reason in _REASONS.validate_json(data)
        )
    except ValueError as error:
        raise MessageError(f"not the reasons of a refusal: {error}") from error
    if not reasons:
        raise MessageError("a refusal without a reason")
    return WipeRefused(reasons)


class KeptWipe(_Message):
    """A wipe that is done, as it is sent, and as the helper keeps it; see core.model.EndedWipe."""

    visit: str
    camera: str
    wiped: Wiped

    @classmethod
    def of(cls, ended: EndedWipe) -> "KeptWipe":
        """Put it into this form."""
        return cls(visit=ended.visit_id, camera=ended.camera_id, wiped=Wiped.of(ended.report))

    def ended(self) -> EndedWipe:
        """Take it out of this form."""
        return EndedWipe(self.visit, self.camera, self.wiped.report())


_KEPT: TypeAdapter[list[KeptWipe]] = TypeAdapter(list[KeptWipe])


def ended_to_bytes(ended: Iterable[EndedWipe]) -> bytes:
    """Put wipes that are done on the wire."""
    return _KEPT.dump_json([KeptWipe.of(one) for one in ended])


def ended_from_bytes(data: bytes) -> Sequence[EndedWipe]:
    """Take them off the wire. Raises :class:`MessageError`."""
    try:
        return [one.ended() for one in _KEPT.validate_json(data)]
    except ValueError as error:
        raise MessageError(f"not a list of wipes: {error}") from error


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else detail["msg"]
