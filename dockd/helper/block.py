"""The medium of a camera as a block device: claimed, write-blocked, read and written past the cache.

Everything goes through descriptors of the very device that was checked, never through its name again:
a name may belong to another disk a moment later, but an open descriptor keeps its device.
"""

import array
import contextlib
import errno
import fcntl
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from dockd.core.errors import (
    CameraError,
    CameraGoneError,
    CameraUnreadableError,
    DeviceRefusedError,
    HelperUnavailableError,
)

# From linux/fs.h.
_BLKROSET, _BLKROGET, _BLKFLSBUF = 0x125D, 0x125E, 0x1261
_BLKSSZGET, _BLKGETSIZE64 = 0x1268, 0x80081272

SECTOR_BYTES = 512
"""The unit of sysfs and of partition tables, whatever the device's own blocks are."""

BLOCK_BYTES = 4096
"""What direct reads and writes are aligned to in size; no medium has larger logical blocks."""

RELEASE_TIMEOUT_S = 5.0
"""How long others may take to let go of a disk: udev looking at it, a mount just closed."""

_POLL_S = 0.05
_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.ENOMEDIUM})


class Medium:
    """A disk and the volume on it, held open and locked; use as a context.

    While it is held, udev leaves the disk alone (systemd's BLOCK_DEVICE_LOCKING convention).
    ``volume`` is a path that mounts exactly the volume that was checked, ``offset`` is where it
    begins on the disk and ``volume_size`` how long it is, in bytes. ``logical_block`` is the least
    that the disk writes at once, and never tears.
    """

    def __init__(
        self, disk: str, volume: str, belongs_to: str, *, sysfs: Path = Path("/sys")
    ) -> None:
        """Open both device nodes, if they are of the device at ``belongs_to`` in sysfs.

        Raises DeviceRefusedError when they are not, or when another program uses the disk,
        HelperUnavailableError when it is only being looked at for longer than usual, and
        CameraGoneError.
        """
        self._sysfs = sysfs
        self._device = Path(belongs_to).resolve()
        with contextlib.ExitStack() as stack:
            self._disk_fd = self._open(disk, stack)
            self._partition_fds = [
                self._open(f"/dev/{entry.name}", stack) for entry in self._partitions(self._disk_fd)
            ]
            self._volume_fd = self._open(volume, stack)
            self._lock()
            self.require_unused()
            place = self._of_sysfs(self._volume_fd)
            start = place / "start"
            self.offset = _number(start) * SECTOR_BYTES if start.exists() else 0
            self.size = _size(self._disk_fd)
            self.volume_size = _size(self._volume_fd)
            self.logical_block = _query(self._disk_fd, _BLKSSZGET, "i")
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Return the medium."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of it."""
        self._stack.close()

    @property
    def volume(self) -> str:
        """A path for mounting, which nobody can turn into another device."""
        return f"/proc/self/fd/{self._volume_fd}"

    @property
    def partitioned(self) -> bool:
        """Whether the volume is a partition."""
        return self.offset > 0

    @property
    def partition_count(self) -> int:
        """How many partitions the disk has."""
        return len(self._partition_fds)

    def require_unused(self) -> None:
        """Wait a little until nothing in any mount namespace uses the disk or a partition of it.

        Opening a disk O_EXCL fails while it, or a partition, is mounted or claimed (open(2)).
        Raises DeviceRefusedError when it stays in use, CameraGoneError.
        """
        try:
            _patiently(lambda: os.close(self._reopen(os.O_RDONLY | os.O_EXCL)), errno.EBUSY)
        except TimeoutError:
            raise DeviceRefusedError(
                "another program uses the disk: it is mounted or claimed"
            ) from None

    def block_writes(self) -> None:
        """Have the kernel refuse every write to the disk and all its partitions, and check that.

        Raises CameraUnreadableError when it cannot be done.
        """
        for fd in (self._disk_fd, *self._partition_fds, self._volume_fd):
            if not _set_read_only(fd, read_only=True):
                raise CameraUnreadableError("the kernel does not write-block the disk")

    def allow_writes(self) -> None:
        """Lift the write block of the disk and the volume. Raises CameraUnreadableError.

        It cannot be lifted where the medium itself is locked, by the switch of an SD card say.
        """
        for fd in (self._disk_fd, self._volume_fd):
            if _set_read_only(fd, read_only=False):
                raise CameraUnreadableError("the medium is write-protected by its own switch")

    @contextlib.contextmanager
    def writable(self) -> Iterator[None]:
        """Lift the write block for the time of a ``with`` block only."""
        try:
            self.allow_writes()
            yield
        finally:
            self.block_writes()

    def forget_cached(self) -> None:
        """Make the next reads come from the medium: drop what the kernel has buffered of it.

        Raises CameraGoneError, CameraUnreadableError.
        """
        for fd in (self._disk_fd, self._volume_fd):
            try:
                fcntl.ioctl(fd, _BLKFLSBUF)
            except OSError as error:
                raise camera_fault(error) from error

    def direct(self, *, write: bool) -> "DirectDisk":
        """Open the whole disk past the cache; for writing, it is claimed for ourselves alone."""
        flags = os.O_RDWR | os.O_EXCL if write else os.O_RDONLY
        try:
            return DirectDisk(self._reopen(flags | os.O_DIRECT))
        except OSError as error:
            raise camera_fault(error) from error

    def _open(self, node: str, stack: contextlib.ExitStack) -> int:
        try:
            fd = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise camera_fault(error) from error
        stack.callback(os.close, fd)
        place = self._of_sysfs(fd)
        if not place.is_relative_to(self._device):
            raise DeviceRefusedError(f"{node} does not belong to the device in the bay")
        return fd

    def _reopen(self, flags: int) -> int:
        return os.open(f"/proc/self/fd/{self._disk_fd}", flags | os.O_CLOEXEC)

    def _of_sysfs(self, fd: int) -> Path:
        found = os.fstat(fd)
        if not stat.S_ISBLK(found.st_mode):
            raise DeviceRefusedError("not a block device")
        number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
        return (self._sysfs / "dev/block" / number).resolve()

    def _partitions(self, disk_fd: int) -> list[Path]:
        return sorted(path.parent for path in self._of_sysfs(disk_fd).glob("*/partition"))

    def _lock(self) -> None:
        try:
            _patiently(
                lambda: fcntl.flock(self._disk_fd, fcntl.LOCK_EX | fcntl.LOCK_NB), errno.EAGAIN
            )
        except TimeoutError:
            raise HelperUnavailableError("another program is looking at the disk") from None


class DirectDisk:
    """A disk read and written past the page cache (O_DIRECT); use as a context.

    Offsets and lengths must be whole sectors. Raises CameraGoneError, CameraUnreadableError.
    """

    BUFFER_BYTES = 1 << 20

    def __init__(self, fd: int) -> None:
        """Take over a descriptor that was opened O_DIRECT."""
        self._fd = fd
        # Anonymous mappings are aligned to pages, as O_DIRECT wants it.
        self._buffer = mmap.mmap(-1, self.BUFFER_BYTES)

    def __enter__(self) -> Self:
        """Return the disk."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self._buffer.close()
        os.close(self._fd)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly these bytes, at most BUFFER_BYTES; fewer at the end of the disk."""
        with memoryview(self._buffer)[:length] as view:
            try:
                count = os.preadv(self._fd, [view], offset)
            except OSError as error:
                raise camera_fault(error) from error
            return bytes(view[:count])

    def write(self, offset: int, data: bytes) -> None:
        """Write all of these bytes, at most BUFFER_BYTES."""
        self._buffer[: len(data)] = data
        with memoryview(self._buffer)[: len(data)] as view:
            try:
                count = os.pwritev(self._fd, [view], offset)
            except OSError as error:
                raise camera_fault(error) from error
        if count != len(data):
            raise CameraUnreadableError(f"only {count} of {len(data)} bytes could be written")

    def sync(self) -> None:
        """Have the device write its own cache to the medium."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise camera_fault(error) from error


def partition_at(disk: str, offset: int, *, sysfs: Path = Path("/sys")) -> str:
    """Return the node of the partition of a disk that begins at this byte. Raises CameraGoneError."""
    for start in (sysfs / "class/block" / Path(disk).name).glob("*/start"):
        if _number(start) * SECTOR_BYTES == offset:
            return f"/dev/{start.parent.name}"
    raise CameraGoneError(f"{disk}: its partition is gone")


def camera_fault(error: OSError) -> CameraError:
    """Return the CameraError that says what an error of the system means for the medium."""
    if error.errno in _GONE:
        return CameraGoneError(f"the camera is gone ({error.strerror})")
    return CameraUnreadableError(f"the medium: {error.strerror}")


def _patiently(attempt: Callable[[], None], while_: int) -> None:
    """Try again while the attempt fails with this error; raises TimeoutError, CameraError."""
    deadline_s = time.monotonic() + RELEASE_TIMEOUT_S
    while True:
        try:
            return attempt()
        except OSError as error:
            if error.errno != while_:
                raise camera_fault(error) from error
            if time.monotonic() > deadline_s:
                raise TimeoutError from error
        time.sleep(_POLL_S)


def _set_read_only(fd: int, *, read_only: bool) -> bool:
    """Set the kernel's read-only flag and return what it is then."""
    state = array.array("i", [int(read_only)])
    try:
        fcntl.ioctl(fd, _BLKROSET, state)
        fcntl.ioctl(fd, _BLKROGET, state, True)
    except OSError as error:
        raise camera_fault(error) from error
    return bool(state[0])


def _size(fd: int) -> int:
    return _query(fd, _BLKGETSIZE64, "Q")


def _query(fd: int, request: int, type_code: str) -> int:
    value = array.array(type_code, [0])
    try:
        fcntl.ioctl(fd, request, value, True)
    except OSError as error:
        raise camera_fault(error) from error
    return int(value[0])


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
