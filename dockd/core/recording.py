"""A recording's life, and what a new listing means for recordings that are known already."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256

from dockd.core.model import ListedFile, Listing, Recording, RecordingState


class RecordingEvent(StrEnum):
    """What can happen to a recording."""

    UPLOAD_STARTED = "upload_started"
    ALL_BYTES_SENT = "all_bytes_sent"
    RECEIPT_ACCEPTED = "receipt_accepted"
    TO_DO_AGAIN = "to_do_again"
    SET_ASIDE = "set_aside"
    FILE_CHANGED = "file_changed"
    FILE_GONE = "file_gone"
    ERASED = "erased"


_S = RecordingState
_E = RecordingEvent

TRANSITIONS: Mapping[tuple[RecordingState, RecordingEvent], RecordingState] = {
    (_S.PENDING, _E.UPLOAD_STARTED): _S.UPLOADING,
    (_S.PENDING, _E.SET_ASIDE): _S.QUARANTINED,
    (_S.PENDING, _E.FILE_CHANGED): _S.PENDING,
    (_S.PENDING, _E.FILE_GONE): _S.VANISHED,
    (_S.PENDING, _E.TO_DO_AGAIN): _S.PENDING,
    (_S.UPLOADING, _E.UPLOAD_STARTED): _S.UPLOADING,
    (_S.UPLOADING, _E.ALL_BYTES_SENT): _S.SENT,
    (_S.UPLOADING, _E.TO_DO_AGAIN): _S.PENDING,
    (_S.UPLOADING, _E.SET_ASIDE): _S.QUARANTINED,
    (_S.UPLOADING, _E.FILE_CHANGED): _S.PENDING,
    (_S.UPLOADING, _E.FILE_GONE): _S.VANISHED,
    (_S.SENT, _E.RECEIPT_ACCEPTED): _S.CONFIRMED,
    (_S.SENT, _E.TO_DO_AGAIN): _S.PENDING,
    (_S.SENT, _E.SET_ASIDE): _S.QUARANTINED,
    (_S.SENT, _E.FILE_CHANGED): _S.PENDING,
    (_S.SENT, _E.FILE_GONE): _S.VANISHED,
    (_S.CONFIRMED, _E.FILE_CHANGED): _S.PENDING,
    (_S.CONFIRMED, _E.TO_DO_AGAIN): _S.PENDING,
    (_S.CONFIRMED, _E.SET_ASIDE): _S.QUARANTINED,
    (_S.CONFIRMED, _E.ERASED): _S.ERASED,
    (_S.QUARANTINED, _E.TO_DO_AGAIN): _S.PENDING,
    (_S.QUARANTINED, _E.FILE_CHANGED): _S.PENDING,
    (_S.QUARANTINED, _E.FILE_GONE): _S.VANISHED,
    (_S.ERASED, _E.FILE_CHANGED): _S.PENDING,
    (_S.VANISHED, _E.FILE_CHANGED): _S.PENDING,
}


class IllegalRecordingEventError(ValueError):
    """The event cannot happen in this state: a mistake in the caller."""


def after(state: RecordingState, event: RecordingEvent) -> RecordingState:
    """Return the state that follows; raise :class:`IllegalRecordingEventError` if none does."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalRecordingEventError(f"{event} cannot happen to a {state} recording") from None


@dataclass(frozen=True, slots=True)
class Differences:
    """What a new listing of a camera changes in what the journal holds of it.

    ``new`` files were never seen; ``changed`` ones have another size or time than was known;
    ``vanished`` recordings were known, not confirmed, and are no longer on the camera.
    """

    new: tuple[ListedFile, ...] = ()
    changed: tuple[ListedFile, ...] = ()
    vanished: tuple[bytes, ...] = ()


def compare(listing: Listing, known: Iterable[Recording]) -> Differences:
    """Compare a listing with the known recordings of the same visit.

    Size and time only ever save work until the digest read just before the wipe says otherwise;
    they never make a recording confirmed.
    """
    by_path = {recording.path: recording for recording in known}
    present = {file.path for file in listing.files}
    new, changed = [], []
    for file in listing.files:
        recording = by_path.get(file.path)
        if recording is None:
            new.append(file)
        elif not same_file(file, recording):
            changed.append(file)
    vanished = tuple(
        path
        for path, recording in by_path.items()
        if path not in present and (recording.state, _E.FILE_GONE) in TRANSITIONS
    )
    return Differences(tuple(new), tuple(changed), vanished)


def carry_over(visit_id: str, file: ListedFile, earlier: Recording | None) -> Recording:
    """Return the recording that a newly listed file becomes, with what an earlier visit still gives.

    A receipt, or an upload begun, is carried over when the file looks the same. What it says is
    proved again by the fresh read before a wipe, so a camera that reuses names loses nothing.
    """
    fresh = Recording(visit_id, file.path, file.stat.size_bytes, file.stat.mtime_ns)
    if earlier is None or not same_file(file, earlier):
        return fresh
    carried = replace(
        fresh,
        upload_url=earlier.upload_url,
        upload_key=earlier.upload_key,
        flagged=earlier.flagged,
        furthest_bytes=earlier.furthest_bytes,
    )
    if earlier.state is not RecordingState.CONFIRMED:
        return carried
    return replace(
        carried,
        state=RecordingState.CONFIRMED,
        sha256=earlier.sha256,
        receipt=earlier.receipt,
        container=earlier.container,
        blocks_wipe=earlier.blocks_wipe,
    )


def flagged_paths(paths: Iterable[bytes], patterns: Sequence[str]) -> frozenset[bytes]:
    """Return the paths that a camera marked as evidence: those that match one of the glob patterns.

    Letter case is ignored, as cameras' file systems do.
    """
    lowered = [pattern.lower() for pattern in patterns]
    return frozenset(
        path for path in paths if any(fnmatchcase(_lower(path), pattern) for pattern in lowered)
    )


def _lower(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape").lower()


def upload_key(camera_id: str, recording: Recording, digest: str | None = None) -> str:
    """Return the key under which a recording's upload is found again, even without a journal.

    Without a digest two recordings of one name, size and time share a key; when the store turns out
    to hold the other one, ``digest`` (hexadecimal) tells them apart.
    """
    parts = [
        camera_id.encode(),
        recording.path,
        str(recording.size_bytes).encode(),
        str(recording.mtime_ns).encode(),
        (digest or "").encode(),
    ]
    # No part can hold a NUL, so two different recordings never give the same bytes.
    return sha256(b"\0".join(parts)).hexdigest()


def same_file(file: ListedFile, recording: Recording) -> bool:
    """Whether a listed file looks like the recording that is known under its name."""
    return (
        recording.state not in (RecordingState.ERASED, RecordingState.VANISHED)
        and file.stat.size_bytes == recording.size_bytes
        and file.stat.mtime_ns == recording.mtime_ns
    )
