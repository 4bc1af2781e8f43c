"""What a camera gets back after its medium was formatted: its directories and its settings files.

Cameras look for their own directories, and some for files that they wrote once at the factory. Both
are read while the medium is still write-blocked, and put into the new file system with their bytes.
"""

import contextlib
import os
import stat
from collections.abc import Sequence

from dockd.cameras.directory import DirectoryFile, DirectoryVolume
from dockd.core.errors import CameraUnreadableError, DeviceRefusedError
from dockd.core.model import SkipReason, display_name
from dockd.helper.block import camera_fault
from dockd.helper.ledger import SettingsFile, settings_file

MOST_DIRECTORIES = 10_000
MOST_SETTINGS = 200
MOST_SETTINGS_BYTES = 16 << 20

_PIECE_BYTES = 1 << 20


def directories(volume: DirectoryVolume) -> list[bytes]:
    """Return every directory, outer ones first. Raises CameraError, DeviceRefusedError."""
    found: list[bytes] = []
    waiting = [b""]
    while waiting:
        parent = waiting.pop()
        inside = _inside(volume, parent)
        found += inside
        waiting += inside
        if len(found) > MOST_DIRECTORIES:
            raise DeviceRefusedError(f"more than {MOST_DIRECTORIES} directories to put back")
    return sorted(found)


def settings(volume: DirectoryVolume) -> list[SettingsFile]:
    """Read every file that is no recording. Raises CameraError.

    Raises DeviceRefusedError where formatting would lose something that is neither on the manifest
    nor such a file, or where there is too much to put back.
    """
    kept: list[SettingsFile] = []
    total = 0
    for entry in volume.list_files().skipped:
        if entry.reason is not SkipReason.SETTINGS:
            raise DeviceRefusedError(
                f"{display_name(entry.path)} ({entry.reason}) would be lost: use the method delete"
            )
        with contextlib.closing(volume.open_file(entry.path)) as file:
            before = file.stat()
            total += before.size_bytes
            if total > MOST_SETTINGS_BYTES or len(kept) >= MOST_SETTINGS:
                raise DeviceRefusedError(
                    "too much that is no recording to put back: use the method delete"
                )
            content = _whole(file)
        if len(content) != before.size_bytes:
            raise CameraUnreadableError(f"{display_name(entry.path)} could not be read whole")
        kept.append(settings_file(entry.path, content, before.mtime_ns))
    return kept


def put_back(
    root_fd: int, volume: DirectoryVolume, paths: Sequence[bytes], files: Sequence[SettingsFile]
) -> None:
    """Make the directories and write the files, where they are not there yet. Raises CameraError.

    ``root_fd`` is the root of a writable mount, ``volume`` a view of the same.
    """
    try:
        for path in paths:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o755, dir_fd=root_fd)
        for file in files:
            _write(root_fd, file)
    except OSError as error:
        raise camera_fault(error) from error
    if problem := missing(volume, paths, files):
        raise CameraUnreadableError(f"what the camera gets back is not all there: {problem}")


def missing(
    volume: DirectoryVolume, paths: Sequence[bytes], files: Sequence[SettingsFile]
) -> str | None:
    """Return the first directory or file that is not there as it should be. Raises CameraError."""
    present = set(directories(volume))
    for path in paths:
        if path not in present:
            return display_name(path)
    for file in files:
        try:
            with contextlib.closing(volume.open_file(file.path)) as opened:
                opened.forget_cached()
                same = _whole(opened) == file.content
        except CameraUnreadableError:
            same = False
        if not same:
            return display_name(file.path)
    return None


def _inside(volume: DirectoryVolume, parent: bytes) -> list[bytes]:
    found = []
    with volume.directory(parent) as fd:
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                    if stat.S_ISDIR(mode):
                        found.append(parent + b"/" + name if parent else name)
        except OSError as error:
            raise volume.fault(error, parent) from error
    return found


def _write(root_fd: int, file: SettingsFile) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(file.path, flags, 0o644, dir_fd=root_fd)
    try:
        view = memoryview(file.content)
        while view:
            view = view[os.write(fd, view) :]
        os.utime(fd, ns=(file.mtime_ns, file.mtime_ns))
        os.fsync(fd)
    finally:
        os.close(fd)


def _whole(file: DirectoryFile) -> bytes:
    pieces = []
    while piece := file.read(_PIECE_BYTES):
        pieces.append(piece)
    return b"".join(pieces)
