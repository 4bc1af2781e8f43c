"""Recordings that are held: one read-only file for each digest, ``objects/ab/cd/<sha256>``.

An object gets its name by a hard link from the upload's own file, and that file goes away only after
the catalogue knows the object. So a crash at any point leaves a complete upload that is simply checked
again, and never an object that nobody can account for.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dockd.journal import durable

READ_BYTES = 1024 * 1024


class StoppedError(Exception):
    """The store is shutting down; the work is done again after the next start."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, as read from the medium."""

    sha256: str
    size_bytes: int


def read_back(path: Path, should_stop: Callable[[], bool] = lambda: False) -> Content:
    """Hash a file as it is on the medium: its clean pages are dropped from the page cache first.

    The caller has synced it. Constant memory. Raises OSError and StoppedError.
    """
    digest, size_bytes = hashlib.sha256(), 0
    buffer = bytearray(READ_BYTES)
    view = memoryview(buffer)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while count := os.readv(descriptor, [buffer]):
            digest.update(view[:count])
            size_bytes += count
            if should_stop():
                raise StoppedError
    finally:
        os.close(descriptor)
    return Content(digest.hexdigest(), size_bytes)


def object_path(root: Path, sha256: str) -> Path:
    """Return where the object with this digest is under the directory of objects."""
    return root / sha256[:2] / sha256[2:4] / sha256


class Objects:
    """The directory of objects. Blocking; call from threads."""

    def __init__(self, directory: Path, quarantine: "Quarantine") -> None:
        """Build; a damaged object that is replaced goes to ``quarantine``."""
        self._root = directory
        self._quarantine = quarantine
        self._durable: set[Path] = set()

    def prepare(self) -> None:
        """Make the directory, durably, if it is not there."""
        self._root.mkdir(mode=0o700, exist_ok=True)
        durable.sync_directory(self._root.parent)

    def path(self, sha256: str) -> Path:
        """Return where the object with this digest is, if it is held."""
        return object_path(self._root, sha256)

    def holds(self, sha256: str, size_bytes: int) -> bool:
        """Whether there is an object of this digest and size. The bytes are not read."""
        try:
            return self.path(sha256).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    def add(self, upload: Path, sha256: str, should_stop: Callable[[], bool]) -> set[Path]:
        """Give a checked upload its object name; return the directories to sync before it counts.

        An object that is there already is hashed again before it stands in for the upload; were it
        damaged, the upload's bytes take its place. Raises OSError and StoppedError.
        """
        target = self.path(sha256)
        to_sync = self._make_directory(target.parent)
        upload.chmod(0o400)
        try:
            os.link(upload, target)
        except FileExistsError:
            if target.samefile(upload):
                return to_sync
            if read_back(target, should_stop).sha256 != sha256:
                self._replace_damaged(upload, target)
        return to_sync

    def synced(self, directories: Iterable[Path]) -> None:
        """Note that these directories' names are durable, so that they are not synced for every object."""
        self._durable.update(directories)

    def _replace_damaged(self, upload: Path, target: Path) -> None:
        self._quarantine.add(target, f"damaged-{upload.name}", {"error": "object was damaged"})
        temporary = target.with_name(f"{upload.name}.tmp")
        temporary.unlink(missing_ok=True)
        os.link(upload, temporary)
        temporary.replace(target)

    def _make_directory(self, directory: Path) -> set[Path]:
        """Make ``objects/ab/cd``; return it, and those above it whose names may not be durable yet.

        One that exists may have been made by a process that was killed before it could sync.
        """
        directory.mkdir(parents=True, exist_ok=True)
        if directory in self._durable:
            return {directory}
        if directory.parent in self._durable:
            return {directory, directory.parent}
        return {directory, directory.parent, self._root}


class Quarantine:
    """The directory of refused bytes, each file with a JSON note beside it. Blocking."""

    def __init__(self, directory: Path) -> None:
        """Build for a directory."""
        self._directory = directory

    def prepare(self) -> None:
        """Make the directory, durably, if it is not there."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        durable.sync_directory(self._directory.parent)

    def add(self, file: Path, name: str, note: dict[str, object]) -> None:
        """Link a file's bytes into the quarantine with a note, durably. The file itself stays."""
        text = json.dumps(note, indent=2, ensure_ascii=True) + "\n"
        durable.write_file(self._directory / f"{name}.json", text.encode())
        try:
            os.link(file, self._directory / name)
        except FileExistsError:
            if not (self._directory / name).samefile(file):
                raise
        durable.sync_directory(self._directory)
