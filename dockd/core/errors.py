"""The one tree of errors. Each says whether trying again can help, and what a person should do.

``retry`` is what the code acts on; ``advice`` is what a person reads. Faults of the world (a cut
network, a full disk, a lying server) are here; mistakes of the caller are ``ValueError`` and the like.
"""

from enum import Enum
from typing import ClassVar


class Retry(Enum):
    """When the same request may be made again."""

    NEVER = "never"
    """Not without a change by a person: the answer will be the same."""
    AT_ONCE = "at_once"
    """After asking for the true state (HEAD), without waiting."""
    SOON = "soon"
    """After a growing pause, a bounded number of times without progress."""
    WHEN_BACK = "when_back"
    """After a growing pause, for as long as it takes: the other side is away or full."""


class DockdError(Exception):
    """Anything that dockd can explain. ``str(error)`` is one line that names file, key or bay."""

    retry: ClassVar[Retry] = Retry.NEVER
    advice: ClassVar[str] = "Report this with the log lines around it."


class ConfigError(DockdError):
    """The configuration cannot be used. ``problems`` has one line for each fault found."""

    advice = "Correct the named keys, then check with: dockd check-config FILE"

    def __init__(self, file: str, problems: tuple[str, ...]) -> None:
        """Build from the file's name and all its faults."""
        super().__init__(f"{file}: " + "; ".join(problems))
        self.file = file
        self.problems = problems


class CameraError(DockdError):
    """A camera or its file system did not do what was asked."""


class CameraGoneError(CameraError):
    """The camera was pulled, or its device vanished."""

    advice = "Put the camera back into a bay; what was sent already is kept."


class CameraUnreadableError(CameraError):
    """A file or directory of the camera cannot be read (EIO, EACCES)."""

    retry = Retry.SOON
    advice = "Clean the contacts and dock again; if it stays, recover the medium by hand. It is not erased."


class SourceChangedError(CameraError):
    """A file changed while it was read, so the bytes read belong to no single state of it."""

    retry = Retry.AT_ONCE
    advice = "Find out what writes to the camera while it is docked. The file is not erased."


class BayStalledError(CameraError):
    """A read or write on the camera has not come back in time."""

    retry = Retry.SOON
    advice = (
        "Pull the camera and dock it again; if it stays, replace the card, the cable or the bay."
    )


class HelperError(DockdError):
    """The privileged helper failed, or was asked for something that it does not do."""

    advice = "Look at the helper's log: journalctl -u dockd-helper. The camera is not erased."


class HelperUnavailableError(HelperError):
    """The helper does not answer, or is still busy with this bay."""

    retry = Retry.WHEN_BACK
    advice = "If it stays: systemctl status dockd-helper.socket dockd-helper.service."


class DeviceRefusedError(HelperError):
    """The helper will not touch what is in the bay: unknown, in use elsewhere, not tagged, ambiguous."""

    advice = "Take the device out, and find out what it is and what else uses it."


class TargetError(DockdError):
    """The store did not take or prove footage. ``retry_after_s`` is its own wish, if it had one."""

    retry = Retry.SOON
    advice = "Look at the store's log for this upload."

    def __init__(
        self, message: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        """Build from one line of text, the HTTP status if there was one, and Retry-After in seconds."""
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class TargetUnavailableError(TargetError):
    """No connection, a timeout, a broken connection, or 429, 502, 503, 504."""

    retry = Retry.WHEN_BACK
    advice = "Check the network and the store; the dock carries on by itself when it answers again."


class TargetFullError(TargetError):
    """507: the store has no room."""

    retry = Retry.WHEN_BACK
    advice = "Make room on the store; the dock carries on by itself."


class SendingPausedError(DockdError):
    """The timetable lets nothing be sent now; what is under way stops, to go on later where it was."""

    retry = Retry.WHEN_BACK
    advice = "Nothing to do: sending goes on at the time that [upload.timetable] names."


class UploadLockedError(TargetError):
    """423: another request holds the upload, perhaps a connection of ours that died."""

    retry = Retry.WHEN_BACK
    advice = "Nothing to do: the store gives the lock back by itself."


class TargetFaultError(TargetError):
    """500 and other server faults that may pass."""


class OffsetConflictError(TargetError):
    """409: the upload's offset is not where we thought; ask with HEAD and go on from there."""

    retry = Retry.AT_ONCE
    advice = "Nothing to do."


class RequestTooLargeError(TargetError):
    """413 for a request with bytes: the target, or something before it, takes only smaller ones."""

    retry = Retry.AT_ONCE
    advice = "Nothing to do: smaller requests follow. Fewer of them are faster: raise the limit."


class UploadMovedError(TargetError):
    """A redirect to another address on the target itself, ``url``, in answer to bytes that are gone."""

    retry = Retry.AT_ONCE
    advice = "Nothing to do: the dock goes on at the new address."

    def __init__(self, message: str, *, url: str, status: int) -> None:
        """Build with the address at which to go on."""
        super().__init__(message, status=status)
        self.url = url


class UploadGoneError(TargetError):
    """404 or 410: the upload is not there. Ask for its receipt, then create it again."""

    retry = Retry.AT_ONCE
    advice = "Nothing to do: the recording is sent again."


class ChecksumMismatchError(TargetError):
    """460: bytes were changed on the way; they were not kept."""

    advice = "If it repeats, look for faulty memory, network cards or proxies."


class AdministrativeRefusalError(TargetError):
    """401, 402, 403, 407: the store will not take it now, for a reason that a person can lift."""

    retry = Retry.WHEN_BACK
    advice = (
        "Mend the dock's registration, licence or permission at the store; footage waits unharmed."
    )


class TargetRefusedError(TargetError):
    """400, 413 and other 4xx: this request will never be taken as it is."""

    retry = Retry.NEVER
    advice = (
        "Compare the store's limits and version with the dock's; the recording stays on the camera."
    )


class ProtocolViolationError(TargetError):
    """The server said something that cannot be: an offset past the end, one that went backwards."""

    advice = "Run the target's conformance check; until it passes, nothing is erased."


class ReceiptRejectedError(TargetError):
    """409 on a receipt: the store's bytes are not ours, or too few; it has put them aside."""

    advice = (
        "The recording is sent again. If it repeats, check the memory and disks of dock and store."
    )


class ReceiptInvalidError(DockdError):
    """A receipt does not prove what it should: signature, key, issuer, digest, size, camera, time."""

    advice = (
        "Compare the store's id and receipt key with those pinned on the dock. Nothing is erased."
    )


class ReceiptKeyUnknownError(ReceiptInvalidError):
    """A receipt is signed with a key that is neither pinned nor, as far as known, a successor of one."""

    retry = Retry.SOON


class ManifestInvalidError(DockdError):
    """A manifest is not well formed, or not signed by the key it must be signed by."""

    advice = "Keep the file; find out who wrote it."


class CustodyBrokenError(DockdError):
    """The custody log does not fit together: an entry was changed, removed, swapped or cut."""

    advice = "Keep the journal as it is, export it, and compare it with the store's receipts."


class JournalError(DockdError):
    """The dock's durable state cannot be read or written."""


class JournalDamagedError(JournalError):
    """The journal's file is not a sound database, or of a newer version."""

    advice = (
        "Stop dockd, move the journal aside (keep it) and start again: recordings are read and "
        "checked with the store anew, and nothing is erased without proof. See docs/operations.md."
    )


class JournalUnwritableError(JournalError):
    """The journal cannot be written now: the disk is full or read-only."""

    retry = Retry.WHEN_BACK
    advice = "Make room on the dock's disk; the dock carries on by itself."


class KeyFileError(DockdError):
    """A key file is missing, unreadable, open to others, or not a key."""

    advice = "Restore the key file from its backup, or enrol again."


class StoreError(DockdError):
    """The central store cannot do its work."""

    advice = "Look at the store's disk, its permissions and its log."


class ListenRefusedError(StoreError):
    """The store was asked to listen where it would be open to others without protection."""

    advice = (
        "Give it certificates with: dockd store init; or use a loopback address (127.0.0.1 or ::1)."
    )


class EnrolmentError(DockdError):
    """A dock could not be enrolled at a store, or does not get its certificate renewed."""

    advice = "Mend what it names and try again; docs/enrolment.md has the steps. Nothing is lost."


class AlreadyRunningError(DockdError):
    """Another process has this state directory in use."""

    advice = "Stop the other process first; two must never share a state directory."


class FileAccessError(DockdError):
    """A file or directory of dockd's own cannot be used, and nothing more is known than the system says."""

    advice = "Look at its owner and permissions, and at its disk."
