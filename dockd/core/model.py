"""The things dockd talks about: cameras, recordings, visits, receipts and manifests, as plain data.

Sizes are bytes, times are aware UTC datetimes or nanoseconds since 1970 where a file system says so,
digests are lower-case hexadecimal SHA-256 (FIPS 180-4), and file names are the camera's own bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


def display_name(path: bytes) -> str:
    r"""Return a path for people and logs: printable, on one line, never an error.

    Bytes that are not UTF-8, control characters and backslashes appear as ``\xNN`` or ``\uNNNN``
    escapes, so two different paths never look the same. The exact bytes travel beside it.
    """
    text = path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass(frozen=True, slots=True)
class FileStat:
    """What the file system says of a file; two equal stats mean "not changed in between"."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A regular file seen on a camera: its path relative to the camera's root, and its stat."""

    path: bytes
    stat: FileStat


class SkipReason(StrEnum):
    """Why an entry of a listing is not a recording."""

    SYMLINK = "symlink"
    SOCKET = "socket"
    FIFO = "fifo"
    DEVICE_NODE = "device_node"
    UNREADABLE = "unreadable"
    TOO_DEEP = "too_deep"
    TOO_MANY = "too_many"
    OTHER_FILE_SYSTEM = "other_file_system"
    SETTINGS = "settings"

    @property
    def hides_footage(self) -> bool:
        """Whether there may be recordings behind this entry that nobody has seen."""
        return self in _HIDING


_HIDING = frozenset(
    {
        SkipReason.UNREADABLE,
        SkipReason.TOO_DEEP,
        SkipReason.TOO_MANY,
        SkipReason.OTHER_FILE_SYSTEM,
    }
)


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """An entry of a listing that is not a recording, shown with its reason (INV-2)."""

    path: bytes
    reason: SkipReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything found on a camera at one moment.

    ``unsettled`` names the files, among ``files``, that something may still be writing; ``flagged``
    those that the camera marked as evidence. ``time_zone`` is the zone that the times of its files were
    taken to be in, where the file system does not say (FAT): an IANA name, or None for UTC.
    """

    files: tuple[ListedFile, ...]
    skipped: tuple[SkippedEntry, ...] = ()
    unsettled: frozenset[bytes] = frozenset()
    flagged: frozenset[bytes] = frozenset()
    time_zone: str | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing can be hidden behind what was skipped."""
        return not any(entry.reason.hides_footage for entry in self.skipped)


class IdentifiedBy(StrEnum):
    """How a camera's id was found."""

    FOLDER_NAME = "folder_name"
    SERIAL = "serial"
    MEDIA_ID = "media_id"
    LABEL = "label"
    PORT = "port"


@dataclass(frozen=True, slots=True)
class Camera:
    """Who is in a bay."""

    camera_id: str
    identified_by: IdentifiedBy


@dataclass(frozen=True, slots=True)
class Presence:
    """A camera seen in a bay by an enumeration.

    ``where`` names this stay: a folder, or a device as it was plugged in this time, so that a camera
    which was pulled and put back while nobody looked is told from one that stayed. ``refusal`` is why
    this device must not be let in, in words for people. ``draw_ma`` is what it may draw from its port.
    """

    bay: str
    camera: Camera
    where: str
    refusal: str | None = None
    draw_ma: int = field(default=0, compare=False)


class ContainerVerdict(StrEnum):
    """What the structure of a file says; it describes and never blocks."""

    OK = "ok"
    TRUNCATED = "truncated"
    UNFINALISED = "unfinalised"
    UNRECOGNISED = "unrecognised"


@dataclass(frozen=True, slots=True)
class Container:
    """The outcome of a container check. ``format`` is a short name such as ``mp4`` or ``avi``."""

    format: str
    verdict: ContainerVerdict
    detail: str = ""


class RecordingState(StrEnum):
    """Where a recording stands. Its moves are in :mod:`dockd.core.recording`."""

    PENDING = "pending"
    UPLOADING = "uploading"
    SENT = "sent"
    CONFIRMED = "confirmed"
    QUARANTINED = "quarantined"
    ERASED = "erased"
    VANISHED = "vanished"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording of a visit, as the journal knows it.

    ``reason`` says why it is pending or quarantined, in words a person can act on.
    ``blocks_wipe`` says why this recording stops the wipe although it may be confirmed
    (a checksum beside it that does not match, say). ``attempts`` counts uploads begun,
    ``resent_bytes`` the bytes that crossed the network more than once; ``furthest_bytes`` is how far
    it has gone to the network at any time.
    """

    visit_id: str
    path: bytes
    size_bytes: int
    mtime_ns: int
    flagged: bool = False
    state: RecordingState = RecordingState.PENDING
    upload_url: str | None = None
    upload_key: str | None = None
    sha256: str | None = None
    receipt: str | None = None
    container: Container | None = None
    reason: str | None = None
    blocks_wipe: str | None = None
    attempts: int = 0
    resent_bytes: int = 0
    furthest_bytes: int = 0


@dataclass(frozen=True, slots=True)
class UploadAttempt:
    """One attempt to send a recording: when, how far it came, what it cost, and why it failed.

    ``ended_at`` is None while it lasts, and for ever when the daemon was cut short in it. ``offset_from``
    is where the target was, None if it never said so; ``offset_to`` how far bytes went to the network.
    """

    visit_id: str
    path: bytes
    number: int
    begun_at: datetime
    ended_at: datetime | None
    offset_from: int | None
    offset_to: int
    sent_bytes: int
    resent_bytes: int
    error: str | None


class Verdict(StrEnum):
    """How a visit ended."""

    WIPED = "wiped"
    KEPT = "kept"
    EMPTY = "empty"
    ATTENTION = "attention"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Visit:
    """One stay of one camera in one bay; ``where`` is that of its presence.

    ``finished_at`` is when its verdict was reached, ``ended_at`` when the camera was gone.
    """

    visit_id: str
    bay: str
    camera: Camera
    where: str
    started_at: datetime
    finished_at: datetime | None = None
    verdict: Verdict | None = None
    ended_at: datetime | None = None
    manifest: str | None = None
    manifest_url: str | None = None
    manifest_receipt: str | None = None
    hold_until: datetime | None = None


class Confirm(StrEnum):
    """What proves that a target holds footage. There is nothing weaker."""

    RECEIPT = "receipt"
    """The store's signed word, given after reading back what it holds."""
    READBACK = "readback"
    """The dock's own: it has fetched the bytes from a target that signs nothing, and hashed them."""


@dataclass(frozen=True, slots=True)
class ReceiptClaims:
    """What a verified receipt states; see docs/upload-target.md for the JWS that carries it."""

    issuer: str
    issued_at: datetime
    receipt_id: str
    upload_id: str
    sha256: str
    size_bytes: int
    dock: str
    camera: str
    visit: str
    custody_head: str
    confirm: Confirm = Confirm.RECEIPT


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One recording on a manifest: what it is, and the store's receipt (a compact JWS) for it."""

    path: bytes
    size_bytes: int
    mtime_ns: int
    sha256: str
    receipt: str
    flagged: bool = False
    container: Container | None = None
    blocks_wipe: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """All recordings of a visit. ``skipped`` names what was seen and is not a recording."""

    dock: str
    camera: str
    visit: str
    bay: str
    created_at: datetime
    custody_head: str
    recordings: tuple[ManifestEntry, ...]
    skipped: tuple[SkippedEntry, ...] = ()


class UploadKind(StrEnum):
    """What an upload carries."""

    RECORDING = "recording"
    MANIFEST = "manifest"


@dataclass(frozen=True, slots=True)
class UploadSpec:
    """What a target is told when an upload is created.

    ``key`` makes creation idempotent: the same key from the same dock is the same upload.
    """

    key: str
    kind: UploadKind
    path: bytes
    size_bytes: int
    mtime_ns: int
    dock: str
    camera: str
    visit: str
    custody_head: str
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class Created:
    """An upload exists at ``url`` and holds ``offset`` bytes; a receipt when it is ready at once."""

    url: str
    offset: int
    receipt: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """An upload now holds ``offset`` bytes; a receipt when it is complete and ready at once."""

    offset: int
    receipt: str | None = None


@dataclass(frozen=True, slots=True)
class HeldUpload:
    """What a target says of an upload: how far it is, and what it was told when it was created."""

    offset: int
    size_bytes: int
    metadata: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class ReceiptPending:
    """The store is still checking; ask again after this time."""

    retry_after_s: float


@dataclass(frozen=True, slots=True)
class TargetProperties:
    """What a target says it can do. ``max_size_bytes`` is None where it states no limit.

    ``store_id`` is whose receipts it gives, None where it does not say; only a receipt proves it.
    """

    creation_with_upload: bool
    checksum_sha256: bool
    receipts: bool
    max_size_bytes: int | None = None
    store_id: str | None = None


@dataclass(frozen=True, slots=True)
class WipeRequest:
    """All that a wipe must be able to show: the manifest with its receipts, and its own receipt.

    ``key_statements`` are the store's, about successors of the pinned receipt key.
    """

    presence: Presence
    visit_id: str
    manifest: str
    manifest_receipt: str
    hold_until: datetime
    key_statements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WipeReport:
    """What an eraser did and checked, in the words of NIST SP 800-88r2 for the level.

    ``tool`` names the programs that did it, with their versions; ``preserved`` are the camera's own
    settings files that were left or put back; ``resumed`` says that it had been cut short before.
    """

    method: str
    level: str
    files_erased: int
    bytes_erased: int
    verified: bool
    verification: str
    finished_at: datetime
    preserved: tuple[bytes, ...] = ()
    tool: str = ""
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class EndedWipe:
    """A verified wipe that is done, and the visit in which the gate permitted it."""

    visit_id: str
    camera_id: str
    report: WipeReport


class Power(StrEnum):
    """What is known of the power at a bay's port."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ChargeStatus:
    """How the charging of a camera goes. What is not known is None or ``unknown``, never guessed.

    ``minimum_s`` and ``wanted_percent`` are what the camera's profile asks for.
    """

    power: Power = Power.UNKNOWN
    battery_percent: int | None = None
    minimum_s: float = 0.0
    wanted_percent: int | None = None


@dataclass(frozen=True, slots=True)
class CustodyEvent:
    """Something that happened to footage, before the log gives it a number, a time and a link."""

    event: str
    visit: str | None = None
    camera: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)


GENESIS = "0" * 64
"""The head of a custody log that has no entry yet; its first entry follows this."""


@dataclass(frozen=True, slots=True)
class SealedEntry:
    """One entry of the custody log as it is kept.

    ``entry`` is RFC 8785 canonical JSON, ``hash`` its SHA-256, ``signature`` the dock's Ed25519
    signature of the same bytes. ``seq`` counts from 1.
    """

    seq: int
    hash: str
    entry: bytes
    signature: bytes
