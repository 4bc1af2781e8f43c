"""Detached mounts: file systems that appear in no mount table and live as long as a descriptor.

By fsopen, fsconfig, fsmount and fspick, which glibc exports since 2.36 and Python does not wrap. When
the last descriptor of such a mount closes, crash included, the mount is gone.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from dockd.core.errors import CameraUnreadableError, HelperError

_libc = ctypes.CDLL(None, use_errno=True)

# From linux/mount.h.
_CLOEXEC = 1
_FSPICK_EMPTY_PATH = 8
_SET_FLAG, _SET_STRING, _CREATE, _RECONFIGURE = 0, 1, 6, 7
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC, _ATTR_NOATIME = 0x1, 0x2, 0x4, 0x8, 0x10

_HARMLESS = _ATTR_NOSUID | _ATTR_NODEV | _ATTR_NOEXEC | _ATTR_NOATIME

_OPTIONS = {
    # Names as UTF-8, and times as they are on the medium: the zone is the profile's business.
    "vfat": {"utf8": "1", "tz": "UTC", "umask": "0077"},
    "exfat": {"iocharset": "utf8", "umask": "0077"},
}
"""FAT keeps no owners: everything belongs to who is given, who may read it."""


class DetachedMount:
    """One file system, mounted at nowhere. ``fd`` is its root (O_PATH); use as a context.

    The file system begins read-only, whatever ``writable`` says.
    """

    def __init__(
        self, source: str, file_system: str, owner: tuple[int, int], *, writable: bool = False
    ) -> None:
        """Mount a block device, for the user and group ``owner`` where the file system knows none.

        Without ``writable`` this mount can never be written through, not even when the file system
        is made writable elsewhere. Raises CameraUnreadableError when the kernel will not mount it.
        """
        attributes = _HARMLESS | (0 if writable else _ATTR_RDONLY)
        with _closing(_open_context(file_system)) as context:
            try:
                _set_string(context, "source", source)
                _set_flag(context, "ro")
                for key, value in _options(file_system, owner):
                    _set_string(context, key, value)
                _command(context, _CREATE)
            except OSError as error:
                words = _kernel_words(context) or error.strerror
                raise CameraUnreadableError(
                    f"its {file_system} is not mountable: {words}"
                ) from error
            self.fd = _checked("fsmount", _libc.fsmount(context, _CLOEXEC, attributes))

    def __enter__(self) -> Self:
        """Return the mount."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unmount."""
        self.close()

    def close(self) -> None:
        """Let go; with the last descriptor of it the mount is gone. May be called twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def make_writable(self) -> None:
        """Make the file system writable. Raises CameraUnreadableError when the medium refuses."""
        self._reconfigure("rw")

    def make_read_only(self) -> None:
        """Write everything back, and make the file system read-only. Raises CameraUnreadableError."""
        self._sync()
        self._reconfigure("ro")

    def _sync(self) -> None:
        with _closing(
            os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        ) as fd:
            try:
                _checked("syncfs", _libc.syncfs(fd))
            except OSError as error:
                raise CameraUnreadableError(f"writing back failed: {error.strerror}") from error

    def _reconfigure(self, flag: str) -> None:
        picked = _libc.fspick(self.fd, b"", _CLOEXEC | _FSPICK_EMPTY_PATH)
        with _closing(_checked("fspick", picked)) as context:
            try:
                _set_flag(context, flag)
                _command(context, _RECONFIGURE)
            except OSError as error:
                words = _kernel_words(context) or error.strerror
                raise CameraUnreadableError(f"cannot be made {flag}: {words}") from error


def _options(file_system: str, owner: tuple[int, int]) -> list[tuple[str, str]]:
    options = _OPTIONS.get(file_system)
    if options is None:
        return []
    return [*options.items(), ("uid", str(owner[0])), ("gid", str(owner[1]))]


def _open_context(file_system: str) -> int:
    try:
        return _checked("fsopen", _libc.fsopen(file_system.encode(), _CLOEXEC))
    except OSError as error:
        raise HelperError(f"this kernel cannot mount {file_system}: {error.strerror}") from error


def _set_string(context: int, key: str, value: str) -> None:
    result = _libc.fsconfig(context, _SET_STRING, key.encode(), value.encode(), 0)
    _checked(f"fsconfig {key}", result)


def _set_flag(context: int, key: str) -> None:
    _checked(f"fsconfig {key}", _libc.fsconfig(context, _SET_FLAG, key.encode(), None, 0))


def _command(context: int, command: int) -> None:
    _checked("fsconfig", _libc.fsconfig(context, command, None, None, 0))


def _kernel_words(context: int) -> str:
    """Return what the kernel wrote into the context about the fault, where it did (fsopen(2))."""
    words: list[str] = []
    with contextlib.suppress(OSError):
        while len(words) < 10:
            words.append(os.read(context, 1024).decode("utf-8", "replace").strip().lstrip("eiw "))
    return "; ".join(words)


def _checked(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
