"""The catalogue of log events: every name, level and key that dockd ever logs.

Code logs through these objects only, as ``events.BAY_STATE.log(bay="1", state="empty")``, so a name
or key that is not in the catalogue cannot be logged. docs/log-events.md is drawn from this file.
No footage content, secret or token is ever a value.
"""

import logging
from dataclasses import dataclass, field

import structlog

_logger = structlog.stdlib.get_logger("dockd")

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR

CATALOGUE: dict[str, "Event"] = {}

RESERVED = frozenset({"timestamp", "level", "event", "exception", "exc_info"})
"""Keys that every line has anyway, or may have."""


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of log line. Every key is always present, so that queries need no special case."""

    name: str
    level: int
    meaning: str
    keys: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Enter the event into the catalogue."""
        if self.name in CATALOGUE:
            raise ValueError(f"event {self.name} is in the catalogue twice")
        if taken := RESERVED.intersection(self.keys):
            raise ValueError(f"event {self.name} has reserved keys: {sorted(taken)}")
        CATALOGUE[self.name] = self

    def log(self, **values: object) -> None:
        """Log one line. Raises ValueError when the keys are not exactly those of the catalogue."""
        if set(values) != set(self.keys):
            raise ValueError(f"event {self.name} takes the keys {self.keys}, not {tuple(values)}")
        _logger.log(self.level, self.name, **values)


DAEMON_STARTED = Event(
    "daemon.started", INFO, "The daemon has read its configuration and begins to look at its bays.",
    ("version", "dock", "bays", "target"),
)  # fmt: skip
DAEMON_STOPPED = Event("daemon.stopped", INFO, "The daemon has stopped in order.", ("reason",))

BAY_STATE = Event(
    "bay.state", INFO, "A bay moved to another state of its lifecycle.",
    ("bay", "camera", "visit", "state", "previous", "cause"),
)  # fmt: skip

# A visit and its bay

VISIT_STARTED = Event(
    "visit.started", INFO, "A camera was docked.", ("bay", "camera", "visit")
)  # fmt: skip
VISIT_RESUMED = Event(
    "visit.resumed", INFO, "After a restart, the visit of a camera that is still docked goes on.",
    ("bay", "camera", "visit"),
)  # fmt: skip
VISIT_FINISHED = Event(
    "visit.finished", INFO,
    "The one line that sums a visit up: written when its verdict is reached, or at unplug before that.",
    (
        "bay", "camera", "visit", "verdict", "recordings", "confirmed", "erased", "pending",
        "quarantined", "vanished", "skipped", "bytes", "resent_bytes", "attempts", "retries",
        "seconds", "camera_clock_ahead_s",
    ),
)  # fmt: skip
BAY_ATTENTION = Event(
    "bay.attention", WARNING,
    "A person is needed at this bay; the footage on its camera is untouched.",
    ("bay", "camera", "visit", "reason"),
)  # fmt: skip
BAY_WAITING = Event(
    "bay.waiting", WARNING, "The bay waits for something that passes by itself.",
    ("bay", "reason", "wait_s"),
)  # fmt: skip
BAY_FAULT = Event(
    "bay.fault", ERROR, "A fault in dockd itself stopped work in this bay; please report it.",
    ("bay", "work", "error"),
)  # fmt: skip
BAY_STALLED = Event(
    "bay.stalled", WARNING, "A call on the camera has not come back; the card or cable may be dying.",
    ("bay", "busy_s"),
)  # fmt: skip
ENTRY_SKIPPED = Event(
    "entry.skipped", WARNING, "Something on the camera is not a recording and was not sent.",
    ("bay", "camera", "visit", "path", "reason", "detail"),
)  # fmt: skip

# A recording and its proof

RECORDING_CONFIRMED = Event(
    "recording.confirmed", INFO, "The store's signed receipt for this recording was accepted.",
    ("bay", "camera", "visit", "recording", "size_bytes", "sha256", "container", "flagged"),
)  # fmt: skip
RECORDING_CHANGED = Event(
    "recording.changed", WARNING, "A recording changed while it was read; it is read again.",
    ("bay", "camera", "visit", "recording", "reason"),
)  # fmt: skip
RECORDING_QUARANTINED = Event(
    "recording.quarantined", WARNING, "A recording was set aside; it stays on the camera.",
    ("bay", "camera", "visit", "recording", "reason"),
)  # fmt: skip
SIDECAR_MISMATCH = Event(
    "recording.sidecar_mismatch", WARNING,
    "The camera's own checksum file does not fit the recording: sent all the same, not erased.",
    ("bay", "camera", "visit", "recording", "reason"),
)  # fmt: skip
RECEIPT_REFUSED = Event(
    "receipt.refused", ERROR, "A receipt does not prove what it should; nothing is erased on it.",
    ("bay", "camera", "visit", "recording", "reason"),
)  # fmt: skip
WIPE_REFUSED = Event(
    "wipe.refused", WARNING, "The wipe gate refused; the camera was not touched.",
    ("bay", "camera", "visit", "count", "reasons"),
)  # fmt: skip
WIPE_DONE = Event(
    "wipe.done", INFO, "Proved recordings were erased from the camera, and their absence checked.",
    (
        "bay", "camera", "visit", "method", "tool", "wipe_level", "files", "bytes", "verified",
        "verification", "resumed",
    ),
)  # fmt: skip
WIPE_UNACKNOWLEDGED = Event(
    "wipe.unacknowledged", WARNING,
    "The helper could not be told that the end of a wipe is in the journal; it offers it again.",
    ("visit", "reason"),
)  # fmt: skip
CHARGE_WAITS = Event(
    "charge.waits", INFO,
    "The power budget is used up, so a camera waits for its turn to charge; unless its port's power is"
    " off now, the port has no switch, and the camera charges all the same.",
    ("bay", "camera", "power"),
)  # fmt: skip
BAY_CROWDED = Event(
    "bay.crowded", WARNING, "A bay holds more than one camera; the others wait for the first to go.",
    ("bay", "waiting"),
)  # fmt: skip

# The configuration

CONFIG_RELOADED = Event(
    "config.reloaded", INFO, "The changed configuration is in force.", ("file",)
)
CONFIG_REFUSED = Event(
    "config.refused", ERROR, "The changed configuration was not taken; the old one stays in force.",
    ("file", "problems"),
)  # fmt: skip

# Folder bays

BAY_FOLDER_MISSING = Event(
    "bay.folder_missing", WARNING,
    "A bay's folder cannot be listed, so the bay counts as empty; it comes back by itself.",
    ("bay", "folder", "reason"),
)  # fmt: skip
BAY_FOLDER_BACK = Event(
    "bay.folder_back", INFO, "A bay's folder can be listed again.", ("bay", "folder")
)
BAY_FOLDER_UNWATCHED = Event(
    "bay.folder_unwatched", WARNING,
    "The system does not let us watch a bay's folder (inotify); it is looked at every few seconds.",
    ("folder", "reason"),
)  # fmt: skip
BAY_ENTRY_IGNORED = Event(
    "bay.entry_ignored", WARNING, "Something in a bay's folder is no camera, and is left alone.",
    ("bay", "name", "reason"),
)  # fmt: skip

# The target

UPLOAD_RETRY = Event(
    "upload.retry", WARNING,
    "A request to the target failed and will be made again after a pause; recording is null for receipts.",
    ("recording", "url", "why", "error", "status", "attempt", "wait_s"),
)  # fmt: skip
UPLOAD_OFFSET_WENT_BACK = Event(
    "upload.offset_went_back", ERROR,
    "The target lost bytes that it had acknowledged; they are sent again. Look into the target's disk.",
    ("recording", "url", "acknowledged_bytes", "offset_bytes"),
)  # fmt: skip
UPLOAD_GONE = Event(
    "upload.gone", WARNING,
    "The target knows neither an upload nor a receipt for it; it is created again and sent anew.",
    ("recording", "url", "acknowledged_bytes"),
)  # fmt: skip
TARGET_UNAVAILABLE = Event(
    "target.unavailable", WARNING,
    "The target takes nothing now; uploads wait and carry on by themselves. Logged once.",
    ("why", "error", "status"),
)  # fmt: skip
TARGET_BACK = Event(
    "target.back", INFO, "The target takes footage again, after being unavailable.", ("away_s",),
)  # fmt: skip
TARGET_ADDRESS = Event(
    "target.address", INFO,
    "The target is now reached at another of its addresses; the first one is tried again every few minutes.",
    ("url", "before"),
)  # fmt: skip
TARGET_CLOCK_DIFFERS = Event(
    "target.clock_differs", WARNING,
    "The target's clock and this dock's are more than a minute apart; one is wrong. Logged once.",
    ("dock_clock", "store_clock", "store_ahead_s"),
)  # fmt: skip
TARGET_FILES_RELOADED = Event(
    "target.files_reloaded", INFO,
    "Certificates, keys or the proxy's password have changed; new connections use them.", ("files",),
)  # fmt: skip
TARGET_FILES_REFUSED = Event(
    "target.files_refused", WARNING,
    "Certificates, keys or the proxy's password have changed and cannot be used; those before stay in force.",
    ("files", "problem"),
)  # fmt: skip
TARGET_FILES_UNWATCHED = Event(
    "target.files_unwatched", WARNING,
    "The system does not tell of changes to these files, so they are only looked at every minute.",
    ("files", "reason"),
)  # fmt: skip

# Logging itself

LIBRARY_MESSAGE = Event(
    "library.message", WARNING, "A library or Python itself has something to report.",
    ("logger", "message", "error"),
)  # fmt: skip
LOG_LINES_LOST = Event(
    "log.lines_lost", ERROR, "The output could not be written for a while; so many lines are lost.",
    ("count",),
)  # fmt: skip

# The store

STORE_STARTED = Event(
    "store.started", INFO, "The store listens. ``unchecked`` uploads of an earlier run are checked now.",
    ("url", "store", "receipt_key", "unfinished", "unchecked"),
)  # fmt: skip
STORE_STOPPED = Event("store.stopped", INFO, "The store has stopped in order.", ("store",))
STORE_HELD = Event(
    "store.held", INFO, "An upload was read back, is kept durably, and has its receipt.",
    ("upload", "kind", "dock", "camera", "visit", "recording", "size_bytes", "sha256"),
)  # fmt: skip
STORE_REFUSED = Event(
    "store.refused", WARNING, "An upload is not what was announced; its bytes are in quarantine.",
    ("upload", "kind", "dock", "camera", "visit", "recording", "reason", "missing"),
)  # fmt: skip
STORE_CHECK_FAILED = Event(
    "store.check_failed", ERROR, "An upload could not be checked now; its bytes are safe, it is retried.",
    ("upload", "recording", "reason", "retry_s"),
)  # fmt: skip
STORE_EXPIRED = Event(
    "store.expired", WARNING, "An unfinished upload was dropped, for nothing came for too long.",
    ("upload", "dock", "camera", "recording", "offset_bytes", "size_bytes"),
)  # fmt: skip
STORE_FAULT = Event(
    "store.fault", ERROR, "A request failed because of the store's own disk or catalogue.",
    ("method", "path", "status", "reason"),
)  # fmt: skip
STORE_LOST = Event(
    "store.lost", ERROR, "An object that the store has signed for is not on its disk.",
    ("upload", "sha256"),
)  # fmt: skip
STORE_STRAY = Event(
    "store.stray", WARNING, "Bytes that belong to no upload of the catalogue were put in quarantine.",
    ("name",),
)  # fmt: skip

# Rate and order

UPLOAD_LIMIT = Event(
    "upload.limit", INFO,
    "Another limit of the rate is in force, by the timetable or the configuration; null is none.",
    ("limit_mbit_s",),
)  # fmt: skip
UPLOAD_PAUSED = Event(
    "upload.paused", INFO, "An upload stopped, as nothing is to be sent now; it goes on later from there.",
    ("recording", "url", "acknowledged_bytes", "why"),
)  # fmt: skip
UPLOAD_SEND_NOW = Event(
    "upload.send_now", INFO, "Somebody asked for a camera, or a recording, to be sent before all others.",
    ("bay", "camera", "visit", "recordings", "what"),
)  # fmt: skip

# Setting up

DAEMON_NOT_SET_UP = Event(
    "daemon.not_set_up", WARNING,
    "The configuration names no store or no bay yet, so there is nothing to do; see ``dockd doctor``.",
    ("file", "missing"),
)  # fmt: skip

# USB bays

USB_ELSEWHERE = Event(
    "usb.elsewhere", WARNING,
    "Storage, or a camera, is plugged into a USB port that is no bay; it is left alone.",
    ("port", "vendor", "product", "model"),
)  # fmt: skip
USB_SLOW = Event(
    "usb.slow", WARNING,
    "A camera connects slower than USB high speed: replace the cable, then look at plug, bay and hub.",
    ("bay", "camera", "port", "speed_mbps"),
)  # fmt: skip
UDEV_OVERRUN = Event(
    "udev.overrun", WARNING, "More USB events came at once than could be queued; the bays are looked at anew."
)  # fmt: skip
UDEV_UNHEARD = Event(
    "udev.unheard", WARNING,
    "udev cannot be listened to, so bays are only looked at every few seconds; tried again. Logged once.",
    ("reason",),
)  # fmt: skip

# The privileged helper

HELPER_STARTED = Event(
    "helper.started", INFO, "The helper listens, and serves these bays.",
    ("version", "dock", "store", "confirm", "receipt_key", "bays", "unfinished"),
)  # fmt: skip
HELPER_STOPPED = Event("helper.stopped", INFO, "The helper has stopped.", ("unfinished_requests",))
HELPER_STRANGER = Event(
    "helper.stranger", WARNING, "A process of a user who may not ask was turned away.", ("pid", "uid"),
)  # fmt: skip
HELPER_NOT_UNDERSTOOD = Event(
    "helper.not_understood", WARNING, "What came through the socket is no request; it was refused.",
    ("pid", "uid", "reason"),
)  # fmt: skip
HELPER_REFUSED = Event(
    "helper.refused", WARNING, "The helper did not do what it was asked for; nothing was erased by this.",
    ("bay", "request", "reason"),
)  # fmt: skip
HELPER_FAULT = Event(
    "helper.fault", ERROR, "A fault in the helper itself ended a request; please report it.",
    ("bay", "request", "error"),
)  # fmt: skip
HELPER_OPENED = Event(
    "helper.opened", INFO, "A camera was write-blocked, mounted read-only and passed on.",
    ("bay", "camera", "port", "profile", "file_system"),
)  # fmt: skip
HELPER_PREPARED = Event(
    "helper.prepared", INFO, "The profile's step before mounting was taken.", ("bay", "port", "profile"),
)  # fmt: skip
HELPER_WIPE_REFUSED = Event(
    "helper.wipe_refused", WARNING, "The wipe gate refused; the camera was not written to.",
    ("bay", "camera", "visit", "count", "reasons"),
)  # fmt: skip
HELPER_ERASING = Event(
    "helper.erasing", INFO, "The wipe gate has permitted it; the erasing begins, or goes on.",
    ("bay", "camera", "visit", "method", "manifest_sha256", "resumed"),
)  # fmt: skip
HELPER_WIPED = Event(
    "helper.wiped", INFO, "An erasing has ended, and this is what was done and checked.",
    (
        "bay", "camera", "visit", "method", "wipe_level", "tool", "files", "bytes", "preserved", "verified",
        "verification", "resumed",
    ),
)  # fmt: skip
HELPER_POWER = Event(
    "helper.power", INFO, "Data or power of a bay's port was switched.", ("bay", "action", "power"),
)  # fmt: skip
HELPER_LEDGER_UNREADABLE = Event(
    "helper.ledger_unreadable", ERROR,
    "An entry of the ledger of wipes cannot be read; its medium must be formatted by hand.",
    ("file", "error"),
)  # fmt: skip

# Enrolment: the store's side

STORE_ENROLLED = Event(
    "store.enrolled", INFO, "A dock was enrolled with its key, against a token.",
    ("dock", "key", "address", "until"),
)  # fmt: skip
STORE_ENROLMENT_REFUSED = Event(
    "store.enrolment_refused", WARNING,
    "A dock was not enrolled. An unknown or used token may be a stolen one: look who is asking.",
    ("dock", "key", "address", "reason"),
)  # fmt: skip
STORE_RENEWED = Event(
    "store.renewed", INFO, "A dock's certificate was renewed.", ("dock", "key", "until"),
)  # fmt: skip
STORE_DOCK_REFUSED = Event(
    "store.dock_refused", WARNING,
    "A caller was turned away: no certificate, or that of an unknown or revoked dock, or one that has ended."
    " Logged once a minute for each address and reason.",
    ("address", "reason"),
)  # fmt: skip
STORE_CERTIFIED = Event(
    "store.certified", INFO, "The store's own TLS certificate was renewed.", ("names",),
)  # fmt: skip
STORE_RECEIPT_KEY = Event(
    "store.receipt_key", INFO, "The store signs with this receipt key from now on.", ("key",),
)  # fmt: skip

# Enrolment: the dock's side

DOCK_CERTIFIED = Event(
    "dock.certified", INFO, "The store has renewed this dock's certificate.", ("until",),
)  # fmt: skip
DOCK_NOT_CERTIFIED = Event(
    "dock.not_certified", WARNING,
    "This dock's certificate could not be renewed yet; tried again every hour. Until it ends all goes on.",
    ("until", "reason"),
)  # fmt: skip
DOCK_RECEIPT_KEY = Event(
    "dock.receipt_key", INFO,
    "The store has changed its receipt key, and the pinned key vouches for the new one.", ("key",),
)  # fmt: skip
DOCK_RECEIPT_KEY_REFUSED = Event(
    "dock.receipt_key_refused", ERROR,
    "What the store, or a file, says about new receipt keys is not vouched for by the pinned one; ignored.",
    ("reason",),
)  # fmt: skip

# Stores that lose what they signed for

MANIFEST_LOST = Event(
    "manifest.lost", ERROR,
    "The store has lost what it signed for, before the camera was erased: what it lacks is sent again.",
    ("bay", "camera", "visit", "url"),
)  # fmt: skip
FOOTAGE_LOST = Event(
    "footage.lost", ERROR,
    "The store has lost footage that it signed for and that was erased from its camera. Act at once.",
    ("bay", "camera", "visit", "recordings", "url"),
)  # fmt: skip
RECHECK_FAILED = Event(
    "recheck.failed", WARNING,
    "The store could not say whether it still holds what was erased from cameras; it is asked again later.",
    ("reason",),
)  # fmt: skip
