"""Uploads whose bytes are still arriving: one plain file each in ``unfinished/``.

An upload's offset is the size of its file, and nothing else remembers it. That holds through SIGKILL
and power cuts because of three rules. Bytes are only ever appended, in order. An offset is told to
anyone only after the data and the directory entry are synced. Bytes under a checksum of their own
(tus checksum extension) wait in a second file, ``<id>.tail``, until that checksum is found right; so
every byte in the first file counts. After a failed sync the file is cut back to the last offset that
a sync vouched for, because the kernel may have dropped the pages (fsync is not repeated).
"""

import errno
import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dockd.core.errors import StoreError
from dockd.journal.durable import sync_directory

WRITEBACK_BYTES = 32 * 1024 * 1024
"""How often the kernel is told to begin writing, so that the sync at the end is short."""

_MAX_BUFFERS = 512  # below IOV_MAX, which is 1024 on Linux


class ChunkChecksumError(StoreError):
    """The bytes of one request are not those of its Upload-Checksum. None of them were kept."""

    advice = "If it repeats, look for faulty memory, network cards or proxies."


def is_full(error: OSError) -> bool:
    """Whether an error of the file system says that there is no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Arrived:
    """How many bytes of an upload are here; ``last_at`` is None when none ever came."""

    size_bytes: int
    last_at: datetime | None


class UnfinishedUploads:
    """The directory of unfinished uploads. Blocking; call from threads."""

    def __init__(self, directory: Path, *, reserve_bytes: int) -> None:
        """Build for a directory. Footage never takes the last ``reserve_bytes`` of the disk."""
        self.directory = directory
        self._reserve_bytes = reserve_bytes
        self._entries_unsynced = False
        self._entries_lock = threading.Lock()

    def path(self, upload_id: str) -> Path:
        """Return where an upload's bytes are."""
        return self.directory / upload_id

    def arrived(self, upload_id: str) -> "Arrived":
        """Return how much of an upload is here, and since when no more came."""
        try:
            stat = self.path(upload_id).stat()
        except FileNotFoundError:
            return Arrived(0, None)
        return Arrived(stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))

    def require_room(self, size_bytes: int) -> None:
        """Raise OSError(ENOSPC) when so many more bytes would touch the reserve."""
        disk = os.statvfs(self.directory)
        if disk.f_bavail * disk.f_frsize < size_bytes + self._reserve_bytes:
            raise OSError(errno.ENOSPC, "the store's reserve would be touched", str(self.directory))

    def tail(self, upload_id: str) -> Path:
        """Return where bytes wait for their checksum."""
        return self.directory / f"{upload_id}.tail"

    def entry_made(self) -> None:
        """Note that a file was made whose directory entry is not synced yet."""
        self._entries_unsynced = True

    def sync_entries(self) -> None:
        """Make every file's directory entry durable, if one is not."""
        with self._entries_lock:
            if not self._entries_unsynced:
                return
            self._entries_unsynced = False
            try:
                sync_directory(self.directory)
            except OSError:
                self._entries_unsynced = True
                raise

    def discard(self, upload_id: str) -> None:
        """Remove an upload's bytes; those that are linked elsewhere stay there."""
        self.path(upload_id).unlink(missing_ok=True)

    def recover(self) -> list[str]:
        """Sync what an earlier process left and return the ids of the uploads found.

        Bytes that a killed process wrote may be in the page cache only; once this returns, every
        file's size may be told as an offset.
        """
        found = []
        self.directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(self.directory.parent)
        for path in sorted(self.directory.iterdir()):
            if path.suffix == ".tail":
                path.unlink()
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            found.append(path.name)
        sync_directory(self.directory)
        return found


class UploadWriter:
    """Appends the bytes of one request to an upload. Blocking; safe to call from several threads.

    ``offset`` is what may be promised: the bytes up to there are synced, and their checksum, where
    the request has one, was right.
    """

    def __init__(
        self, uploads: UnfinishedUploads, upload_id: str, *, offset: int, sha256: bytes | None
    ) -> None:
        """Prepare; nothing is opened before the first bytes."""
        self.offset = offset
        self._uploads = uploads
        self._upload_path = uploads.path(upload_id)
        self._start = offset
        self._sha256 = sha256
        self._digest = hashlib.sha256()
        self._path = uploads.tail(upload_id) if sha256 is not None else self._upload_path
        self._base = 0 if sha256 is not None else offset
        self._written = 0
        self._handed_over = 0
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        self.finished = False

    def write(self, pieces: Sequence[bytes]) -> None:
        """Write the next bytes.

        Raises OSError; with ENOSPC when the disk is full or only the reserve is left. What was
        written before stays, and :meth:`finish` makes it durable.
        """
        with self._lock:
            self._write(pieces)

    def sync(self) -> int:
        """Make what was written durable and return the offset that may be promised now."""
        with self._lock:
            if self._sha256 is None:
                self._sync_appended()
            return self.offset

    def finish(self, pieces: Sequence[bytes], *, whole: bool) -> int:
        """Write the last bytes of the request, make all durable, close; return the new offset.

        With ``whole`` false the request broke off: bytes under a checksum are dropped, because it
        cannot be told whether they are right. Raises ChunkChecksumError and OSError.
        """
        with self._lock:
            try:
                if self._sha256 is None:
                    try:
                        self._write(pieces)
                    finally:
                        self._sync_appended()
                elif whole:
                    self._write(pieces)
                    self._accept_tail()
            finally:
                self._close()
            return self.offset

    def _write(self, pieces: Sequence[bytes]) -> None:
        size_bytes = sum(map(len, pieces))
        if size_bytes == 0:
            return
        self._uploads.require_room(size_bytes)
        descriptor = self._open()
        for first in range(0, len(pieces), _MAX_BUFFERS):
            buffers = [memoryview(piece) for piece in pieces[first : first + _MAX_BUFFERS]]
            while buffers:
                count = os.pwritev(descriptor, buffers, self._base + self._written)
                self._written += count
                buffers = _after(buffers, count)
        if self._sha256 is not None:
            for piece in pieces:
                self._digest.update(piece)
        self._begin_writeback(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            # Only a beginning may make the file: a hole must never stand in for bytes that are gone.
            create = os.O_CREAT | os.O_TRUNC if self._base == 0 else 0
            flags = os.O_WRONLY | create | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
            if create:
                self._uploads.entry_made()
        return self._descriptor

    def _begin_writeback(self, descriptor: int) -> None:
        pending = self._written - self._handed_over
        if pending >= WRITEBACK_BYTES:
            # On dirty pages Linux takes this as "write them out soon"; it does not wait.
            start = self._base + self._handed_over
            os.posix_fadvise(descriptor, start, pending, os.POSIX_FADV_DONTNEED)
            self._handed_over = self._written

    def _sync_appended(self) -> None:
        if self._descriptor is None or self.offset == self._start + self._written:
            return
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.offset)
            self._written = self.offset - self._start
            raise
        self.offset = self._start + self._written

    def _accept_tail(self) -> None:
        if self._digest.digest() != self._sha256:
            raise ChunkChecksumError("the bytes received are not those of Upload-Checksum")
        if self._descriptor is None:
            return
        if self._start == 0:
            os.fdatasync(self._descriptor)
            self._path.replace(self._upload_path)
            self._uploads.entry_made()
        else:
            _append(self._path, self._upload_path, self._start, self._written)
        self.offset = self._start + self._written

    def _close(self) -> None:
        self.finished = True
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._sha256 is not None:
            self._path.unlink(missing_ok=True)


def _after(buffers: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left of the buffers after their first ``count`` bytes."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [buffer[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []


def _append(source: Path, destination: Path, offset: int, size_bytes: int) -> None:
    """Append a file's bytes to another at ``offset``, durably; all of them or none."""
    with source.open("rb", buffering=0) as read, destination.open("rb+", buffering=0) as written:
        copied, count = 0, 1
        try:
            while count:
                count = os.copy_file_range(
                    read.fileno(), written.fileno(), size_bytes - copied, copied, offset + copied
                )
                copied += count
            os.fdatasync(written.fileno())
        except OSError:
            os.ftruncate(written.fileno(), offset)
            raise
        if copied < size_bytes:
            os.ftruncate(written.fileno(), offset)
            raise OSError(errno.EIO, "bytes just written cannot be read", str(source))
