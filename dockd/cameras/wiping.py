"""Erasing a camera: prove first, then delete exactly what was proved, then look again (INV-1).

:func:`prove` needs a medium that can only be read:

1. the manifest's signature is checked: against the dock's own key where the eraser holds it;
2. the camera is listed anew, and every file is read from the medium and hashed;
3. the wipe gate examines manifest, receipts and fresh reading, and gives a permit or its reasons.

:func:`erase` needs that permit, and the only writable moment of the medium:

4. each permitted file that is still what was read is removed, through the root's descriptor only;
   one directory is written back before the next is begun;
5. the camera is listed once more.

Files are the only thing removed; directories stay. Whatever interrupts this leaves some proved files
erased and all others whole, and the same request can be made again. There is no event loop and no
network here, so that the process which holds the power to erase can run this and nothing else.
"""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dockd import __version__
from dockd.cameras.directory import DirectoryVolume, file_stat
from dockd.core.errors import CameraGoneError, CameraUnreadableError
from dockd.core.interfaces import ShouldStop
from dockd.core.model import ListedFile, WipeReport, WipeRequest, display_name
from dockd.core.wipe_gate import (
    Expected,
    FreshFile,
    FreshReading,
    SealedManifest,
    WipePermit,
    WipeRefused,
    examine,
)
from dockd.evidence.keys import VerifyingKey
from dockd.evidence.manifests import read_manifest
from dockd.evidence.receipts import ReceiptVerifier

METHOD = "delete"
TOOL = f"dockd {__version__}"
LEVEL = "erase for re-use, not sanitisation (NIST SP 800-88r2)"

_CHUNK_BYTES = 1 << 20
_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class WipeAuthority:
    """By whose word this dock erases: its own name and key, and the pinned store's.

    With ``manifest_key`` None a manifest is checked against the key that it carries. That is enough
    where the dock's key is not at hand, because the store's receipt over the manifest's own bytes is
    what proves it (check 14 of the gate).
    """

    dock: str
    manifest_key: VerifyingKey | None
    verifier: ReceiptVerifier

    def knowing(self, statements: Sequence[str]) -> "WipeAuthority":
        """Return this with successors of the pinned receipt key, as far as that key vouches for them.

        Raises ReceiptInvalidError for unsound statements: then nothing is to be erased.
        """
        pinned = self.verifier
        verifier = ReceiptVerifier(pinned.store_id, pinned.key, pinned.confirm, statements)
        return replace(self, verifier=verifier)


class WipeStoppedError(Exception):
    """The caller wants no more of it, and nothing has been erased."""


def prove_and_erase(
    volume: DirectoryVolume,
    request: WipeRequest,
    *,
    authority: WipeAuthority,
    camera: str,
    now: Callable[[], datetime],
    should_stop: ShouldStop,
) -> WipeReport | WipeRefused:
    """Run all steps on an open camera that may be written all the time. Blocking.

    Stopped before the erasing has ended, it returns a report that is not verified. Raises
    CameraGoneError, CameraUnreadableError (the camera cannot be listed), ManifestInvalidError.
    """
    try:
        permit = prove(
            volume,
            request,
            authority=authority,
            camera=camera,
            now=now,
            should_stop=should_stop,
        )
    except WipeStoppedError:
        return _report(now(), [], "stopped before anything was erased", verified=False)
    if isinstance(permit, WipeRefused):
        return permit
    return erase(volume, permit, now=now, should_stop=should_stop)


def prove(
    volume: DirectoryVolume,
    request: WipeRequest,
    *,
    authority: WipeAuthority,
    camera: str,
    now: Callable[[], datetime],
    should_stop: ShouldStop,
) -> WipePermit | WipeRefused:
    """Read the camera afresh and ask the gate. ``camera`` is its id by our own finding. Blocking.

    Raises WipeStoppedError, CameraGoneError, CameraUnreadableError (the camera cannot be listed),
    ManifestInvalidError.
    """
    sealed = _open_manifest(request, authority.manifest_key)
    fresh = read_afresh(volume, should_stop)
    return examine(
        sealed,
        fresh,
        expected=Expected(authority.dock, camera, request.visit_id, authority.verifier.store_id),
        hold_until=request.hold_until,
        now=now(),
        verify_receipt=authority.verifier.verify,
    )


def erase(
    volume: DirectoryVolume,
    permit: WipePermit,
    *,
    now: Callable[[], datetime],
    should_stop: ShouldStop,
) -> WipeReport:
    """Delete exactly what the permit names, where it is still what was read. Blocking.

    Stopped on the way, it returns a report that is not verified. Raises CameraGoneError, and
    CameraUnreadableError when the camera cannot be listed afterwards.
    """
    erased: list[FreshFile] = []
    kept: list[str] = []
    unwritten: bytes | None = None
    for file in sorted(permit.redeem(), key=lambda file: _split(file.path)):
        if should_stop():
            kept.append("stopped before all files were erased")
            break
        directory, _ = _split(file.path)
        if unwritten not in (None, directory):
            # FAT shares one table: writing back one directory also frees the clusters of what was
            # removed from another, whose entries would be left pointing nowhere by a power cut.
            kept += _write_back(volume, unwritten)
        unwritten = directory
        why_not = _remove(volume, file)
        if why_not is None:
            erased.append(file)
        else:
            kept.append(f"{display_name(file.path)}: {why_not}")
    kept += _write_back(volume, unwritten)
    gone = {(file.path, file.stat) for file in erased}
    kept += [
        f"{display_name(file.path)}: is still there"
        for file in volume.list_files().files
        if (file.path, file.stat) in gone
    ]
    if kept:
        more = f" (and {len(kept) - 1} more)" if len(kept) > 1 else ""
        return _report(now(), erased, kept[0] + more, verified=False)
    words = "directories written back and listed again: no erased file is left"
    return _report(now(), erased, words, verified=True)


def read_afresh(volume: DirectoryVolume, should_stop: ShouldStop) -> FreshReading:
    """List the camera and read every file again, from the medium and not from the page cache.

    Raises WipeStoppedError, CameraGoneError, CameraUnreadableError (the camera cannot be listed).
    """
    listing = volume.list_files()
    files = tuple(_read(volume, file, should_stop) for file in listing.files)
    return FreshReading(files, listing.skipped, listing.unsettled)


def _open_manifest(request: WipeRequest, key: VerifyingKey | None) -> SealedManifest:
    body = request.manifest.encode()
    return SealedManifest(
        read_manifest(request.manifest, key),
        hashlib.sha256(body).hexdigest(),
        len(body),
        request.manifest_receipt,
    )


def _read(volume: DirectoryVolume, listed: ListedFile, should_stop: ShouldStop) -> FreshFile:
    digest = hashlib.sha256()
    try:
        with contextlib.closing(volume.open_file(listed.path)) as file:
            before = file.stat()
            file.forget_cached()
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                if should_stop():
                    raise WipeStoppedError
            after = file.stat()
    except CameraUnreadableError:
        return FreshFile(listed.path, listed.stat, None, held_still=True)
    return FreshFile(listed.path, after, digest.hexdigest(), listed.stat == before == after)


def _remove(volume: DirectoryVolume, file: FreshFile) -> str | None:
    """Remove one file if it is still exactly what was read; return why it was kept otherwise."""
    parent, name = _split(file.path)
    try:
        with volume.directory(parent) as directory_fd:
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode) or file_stat(found) != file.stat:
                return "it changed after it was read"
            os.unlink(name, dir_fd=directory_fd)
    except OSError as error:
        fault = volume.fault(error, file.path)
        if isinstance(fault, CameraGoneError):
            raise fault from error
        return str(error.strerror)
    except CameraUnreadableError as error:
        return str(error)
    return None


def _write_back(volume: DirectoryVolume, path: bytes | None) -> list[str]:
    """Write a directory, if it is one, back to the medium; return what went wrong."""
    if path is None:
        return []
    try:
        with volume.directory(path) as fd:
            os.fsync(fd)
    except OSError as error:
        if error.errno in _NO_DIRECTORY_SYNC:
            return []
        fault = volume.fault(error, path)
        if isinstance(fault, CameraGoneError):
            raise fault from error
        return [str(fault)]
    except CameraUnreadableError as error:
        return [str(error)]
    return []


def _split(path: bytes) -> tuple[bytes, bytes]:
    parent, _, name = path.rpartition(b"/")
    return parent, name


def _report(
    finished_at: datetime, erased: list[FreshFile], verification: str, *, verified: bool
) -> WipeReport:
    return WipeReport(
        method=METHOD,
        level=LEVEL,
        files_erased=len(erased),
        bytes_erased=sum(file.stat.size_bytes for file in erased),
        verified=verified,
        verification=verification,
        finished_at=finished_at,
        tool=TOOL,
    )
