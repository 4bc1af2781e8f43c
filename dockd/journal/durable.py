"""Files that survive a power cut whole: the one place that writes or publishes a file.

A file is written under a temporary name, fsynced, renamed, and its directory is fsynced. Whoever
looks finds the old content or the new, never a mixture. A failed fsync is never repeated: Linux may
have dropped the dirty pages and would report success for bytes that are gone, so the caller must
write again from the source. Everything here blocks and raises OSError.
"""

import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from dockd.core.errors import AlreadyRunningError

_TEMPORARY = ".tmp"


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the content of ``path``, or create it, in one step. ``mode`` is subject to the umask.

    After an error the old content is there, or the new one when only the directory's fsync failed.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}{_TEMPORARY}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            inherit_owner(descriptor, path.parent)
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
    except BaseException:
        _remove(temporary)
        raise
    sync_directory(path.parent)


def publish(temporary: Path, final: Path) -> None:
    """Give a finished file its final name, on the same file system, so that both are durable."""
    descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(final)
    sync_directory(final.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Remove what a process that was killed in :func:`write_file` left there.

    Only for a directory that the caller has locked: another's write may be under way.
    """
    for temporary in directory.glob(f".*{_TEMPORARY}"):
        temporary.unlink()


def inherit_owner(descriptor: int, directory: Path) -> None:
    """Give a file that root has made to whoever its directory belongs to.

    Commands that root says must not leave anything behind that a service cannot read.
    """
    if os.geteuid() == 0 and (owner := directory.stat()).st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


class DirectoryLock:
    """Keeps a second process out of a state directory, for as long as the ``with`` block lasts.

    The kernel lets go of the lock when the process ends, however it ends.
    """

    def __init__(self, path: Path) -> None:
        """Build for an existing directory; nothing is locked yet."""
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take the lock at once, or raise :class:`AlreadyRunningError`."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise AlreadyRunningError(f"{self._path} is in use by another process") from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _remove(temporary: Path) -> None:
    # The first error is the one to report; a leftover temporary is only untidy.
    with contextlib.suppress(OSError):
        temporary.unlink()
