"""A camera's file system, reached through one directory file descriptor and never by its path.

The camera is hostile input: names are any bytes, links point anywhere, FIFOs and devices block who
opens them, directories change between being listed and being opened. Every path is therefore walked
component by component from the root descriptor without following links, every file is checked after
it was opened, and nothing leaves the root's file system. Whoever holds the descriptor decides what
it stands for: a folder, or a read-only mount that appears in no mount table.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from dockd.core.errors import CameraError, CameraGoneError, CameraUnreadableError
from dockd.core.model import (
    FileStat,
    ListedFile,
    Listing,
    SkippedEntry,
    SkipReason,
    display_name,
)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_DEVICE_GONE = frozenset({errno.ENODEV, errno.ENOMEDIUM})
"""Faults that only a vanished device gives, wherever they appear."""
_ROOT_GONE = _DEVICE_GONE | {errno.ENOENT, errno.ENXIO, errno.ESTALE}
"""Faults that mean a vanished camera when its root gives them."""

_DROP_STEP_BYTES = 8 << 20
"""How far reading goes between two requests to the kernel to forget what was read."""


@dataclass(frozen=True, slots=True)
class ListingLimits:
    """Bounds on one listing: entries of any kind, and directories inside each other."""

    max_files: int = 100_000
    max_depth: int = 32


class DirectoryFile:
    """A recording opened for sequential reading; implements core.interfaces.OpenFile."""

    def __init__(self, fd: int, path: bytes, volume: "DirectoryVolume") -> None:
        """Take over the descriptor of a regular file."""
        self._fd = fd
        self._path = path
        self._volume = volume
        self._position = 0
        self._dropped = 0
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read(self, size_bytes: int) -> bytes:
        """Return the next bytes, empty at the end; fewer than asked are no end.

        What was read is dropped from the page cache behind the position, so that a 64 GB recording
        does not push everything else out of memory.
        """
        try:
            data = os.pread(self._fd, size_bytes, self._position)
            self._position += len(data)
            if self._position - self._dropped >= _DROP_STEP_BYTES or not data:
                self._drop_behind()
        except OSError as error:
            raise self._volume.fault(error, self._path) from error
        return data

    def seek(self, offset: int) -> None:
        """Go on reading from this byte; for resuming after a break."""
        self._position = self._dropped = offset

    def forget_cached(self) -> None:
        """Make the next reads come from the medium: write back, then drop the page cache.

        Raises CameraGoneError and CameraUnreadableError when writing back fails.
        """
        try:
            os.fsync(self._fd)
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise self._volume.fault(error, self._path) from error

    def stat(self) -> FileStat:
        """Return what the file system says of the open file now."""
        return file_stat(self._volume.stat(self._fd, self._path))

    def close(self) -> None:
        """Release the descriptor; never raises, may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _close(fd)

    def _drop_behind(self) -> None:
        length = self._position - self._dropped
        os.posix_fadvise(self._fd, self._dropped, length, os.POSIX_FADV_DONTNEED)
        self._dropped = self._position


class DirectoryVolume:
    """The tree below one directory descriptor; implements core.interfaces.Volume.

    ``name`` is what errors call the camera. The descriptor belongs to the volume from then on.
    ``close`` may come from another thread while a call is under way: the call then ends on its own
    copy of the descriptor, and the next one raises CameraGoneError.
    """

    def __init__(self, root_fd: int, limits: ListingLimits, name: str) -> None:
        """Take over an open directory. Raises CameraGoneError, CameraUnreadableError."""
        self._root_fd = root_fd
        self._limits = limits
        self._name = name
        self._lock = threading.Lock()
        try:
            self._device = os.fstat(root_fd).st_dev
        except OSError as error:
            fault = self.fault(error, b"")
            self.close()
            raise fault from error

    def list_files(self) -> Listing:
        """List everything below the root, in the order of its paths; see core.interfaces.Volume."""
        return _Walk(self, self._limits, self._device).run()

    def open_file(self, path: bytes) -> DirectoryFile:
        """Open a regular file at its beginning, following no link and never blocking on a FIFO."""
        *parents, name = self._components(path)
        with self.directory(b"/".join(parents)) as directory_fd:
            try:
                fd = _open(name, _FILE, directory_fd)
            except OSError as error:
                raise self.fault(error, path) from error
        try:
            found = self.stat(fd, path)
            if not stat.S_ISREG(found.st_mode) or found.st_dev != self._device:
                raise self._unreadable(path, "is not a regular file of the camera any more")
        except CameraError:
            _close(fd)
            raise
        return DirectoryFile(fd, path, self)

    @contextlib.contextmanager
    def directory(self, path: bytes) -> Iterator[int]:
        """Open a directory of the camera for the time of a ``with`` block; empty is the root.

        Walks from the root one component at a time, so that a directory swapped for a link, or
        anything mounted over one, is refused. Raises CameraGoneError, CameraUnreadableError.
        """
        fd = self._root()
        try:
            if self.stat(fd, b"").st_nlink == 0:
                raise CameraGoneError(f"{self._name}: the camera's directory was removed")
            for component in self._components(path) if path else ():
                try:
                    inner = _open(component, _DIRECTORY, fd)
                except OSError as error:
                    raise self.fault(error, path) from error
                _close(fd)
                fd = inner
                if self.stat(fd, path).st_dev != self._device:
                    raise self._unreadable(path, "is on another file system")
            yield fd
        finally:
            _close(fd)

    def stat(self, fd: int, path: bytes) -> os.stat_result:
        """Return the stat of something opened; ``path`` is for the error."""
        try:
            return os.fstat(fd)
        except OSError as error:
            raise self.fault(error, path) from error

    def fault(self, error: OSError, path: bytes) -> CameraError:
        """Return the CameraError that says what an error of the system means for this camera."""
        if error.errno in _DEVICE_GONE or self._root_is_gone():
            return CameraGoneError(f"{self._name}: the camera is gone ({error.strerror})")
        return self._unreadable(path, str(error.strerror))

    def _unreadable(self, path: bytes, why: str) -> CameraUnreadableError:
        where = display_name(path) or "its root directory"
        return CameraUnreadableError(f"{self._name}: {where}: {why}")

    def _components(self, path: bytes) -> list[bytes]:
        components = path.split(b"/")
        if b"\0" in path or not {b"", b".", b".."}.isdisjoint(components):
            raise self._unreadable(path, "is not a path on a camera")
        return components

    def close(self) -> None:
        """Let go of the camera; may be called twice, and never raises."""
        with self._lock:
            fd, self._root_fd = self._root_fd, -1
        if fd >= 0:
            _close(fd)

    @contextlib.contextmanager
    def _root_copy(self) -> Iterator[int]:
        """Lend the root to one system call, which may hang, while ``close`` stays free to come."""
        with self._lock:
            if self._root_fd < 0:
                raise CameraGoneError(f"{self._name}: the camera was let go")
            copy = os.dup(self._root_fd)
        try:
            yield copy
        finally:
            _close(copy)

    def _root(self) -> int:
        try:
            with self._root_copy() as root_fd:
                return _open(b".", _DIRECTORY, root_fd)
        except OSError as error:
            raise self.fault(error, b"") from error

    def _root_is_gone(self) -> bool:
        try:
            with self._root_copy() as root_fd:
                _close(_open(b".", _DIRECTORY, root_fd))
        except CameraGoneError:
            return True
        except OSError as error:
            return error.errno in _ROOT_GONE
        return False


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory that waits to be looked into, with the inodes of the directories around it."""

    path: bytes = b""
    around: tuple[int, ...] = ()


@dataclass(slots=True)
class _Walk:
    """One listing under way. Directories wait in a list, so depth costs no recursion."""

    volume: DirectoryVolume
    limits: ListingLimits
    device: int
    waiting: list[_Directory] = field(default_factory=lambda: [_Directory()])
    files: list[ListedFile] = field(default_factory=list)
    skipped: list[SkippedEntry] = field(default_factory=list)
    entries: int = 0

    def run(self) -> Listing:
        while self.waiting:
            directory = self.waiting.pop()
            if self.entries > self.limits.max_files:
                self.skip(directory.path, SkipReason.TOO_MANY, "not looked into")
            else:
                self.look_into(directory)
        with self.volume.directory(b""):
            pass  # a camera that went away meanwhile has given an incomplete listing
        return Listing(
            tuple(sorted(self.files, key=lambda file: file.path)),
            tuple(sorted(self.skipped, key=lambda entry: entry.path)),
        )

    def look_into(self, directory: _Directory) -> None:
        path = directory.path
        try:
            with self.volume.directory(path) as fd:
                inode = self.volume.stat(fd, path).st_ino
                if inode in directory.around:
                    self.skip(path, SkipReason.UNREADABLE, "a directory that contains itself")
                else:
                    self.look_at_entries(fd, path, (*directory.around, inode))
        except CameraUnreadableError as error:
            if not path:
                raise
            if not isinstance(error.__cause__, FileNotFoundError):
                self.skip(path, SkipReason.UNREADABLE, str(error))

    def look_at_entries(self, fd: int, path: bytes, around: tuple[int, ...]) -> None:
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    self.entries += 1
                    if self.entries > self.limits.max_files:
                        limit = self.limits.max_files
                        self.skip(path, SkipReason.TOO_MANY, f"over {limit} entries in all")
                        return
                    self.look_at(fd, path, os.fsencode(entry.name), around)
        except OSError as error:
            raise self.volume.fault(error, path) from error

    def look_at(self, fd: int, parent: bytes, name: bytes, around: tuple[int, ...]) -> None:
        path = parent + b"/" + name if parent else name
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return  # removed since the directory was read: there is nothing left to see
        except OSError as error:
            fault = self.volume.fault(error, path)
            if isinstance(fault, CameraGoneError):
                raise fault from error
            self.skip(path, SkipReason.UNREADABLE, str(fault))
            return
        reason = _reason_to_skip(found, self.device)
        if reason is not None:
            self.skip(path, reason)
        elif not stat.S_ISDIR(found.st_mode):
            self.files.append(ListedFile(path, file_stat(found)))
        elif len(around) > self.limits.max_depth:
            self.skip(path, SkipReason.TOO_DEEP, f"over {self.limits.max_depth} directories deep")
        else:
            self.waiting.append(_Directory(path, around))

    def skip(self, path: bytes, reason: SkipReason, detail: str = "") -> None:
        self.skipped.append(SkippedEntry(path, reason, detail))


def file_stat(found: os.stat_result) -> FileStat:
    """Return the part of a stat that tells whether a file changed."""
    return FileStat(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


_SKIPPED_TYPES = {
    stat.S_IFLNK: SkipReason.SYMLINK,
    stat.S_IFSOCK: SkipReason.SOCKET,
    stat.S_IFIFO: SkipReason.FIFO,
    stat.S_IFCHR: SkipReason.DEVICE_NODE,
    stat.S_IFBLK: SkipReason.DEVICE_NODE,
}


def _reason_to_skip(found: os.stat_result, device: int) -> SkipReason | None:
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        return None if found.st_dev == device else SkipReason.OTHER_FILE_SYSTEM
    return _SKIPPED_TYPES.get(stat.S_IFMT(found.st_mode), SkipReason.UNREADABLE)


def _open(name: bytes, flags: int, directory_fd: int) -> int:
    """Open without leaving an access time behind, where the system grants that (open(2))."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=directory_fd)
    except PermissionError:
        return os.open(name, flags, dir_fd=directory_fd)


def _close(fd: int) -> None:
    """Close what was only read; Linux gives the descriptor back whatever it answers (close(2))."""
    with contextlib.suppress(OSError):
        os.close(fd)
