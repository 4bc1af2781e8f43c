"""Answers about what a store holds, from its catalogue and disk, beside a running store or without one.

Everything here blocks and only reads. Objects are gone through by the first two digits of their
digest, so that memory and the time that a database snapshot is held stay small.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dockd.core.errors import StoreError
from dockd.journal.database import open_read_only, schema_version
from dockd.store.catalogue import MIGRATIONS, Upload, UploadState, every_upload
from dockd.store.layout import Layout
from dockd.store.objects import object_path, read_back


@dataclass(slots=True)
class Count:
    """Exact counts. ``uploads`` are those held, ``objects`` their distinct digests.

    Of the objects, ``ok`` ones are whole on the disk, ``damaged`` ones hold other bytes than their name
    says, ``missing`` ones are not there. ``orphan`` files are objects that no row of the catalogue
    names; ``objects`` does not count them.
    """

    uploads: int = 0
    objects: int = 0
    bytes: int = 0
    ok: int = 0
    damaged: int = 0
    missing: int = 0
    orphan: int = 0
    unfinished: int = 0
    quarantined: int = 0

    @property
    def sound(self) -> bool:
        """Whether everything that was signed for is held, whole."""
        return self.damaged == 0 and self.missing == 0


@dataclass(frozen=True, slots=True)
class Problem:
    """An object that is damaged, missing or orphan, and the uploads whose receipts name it."""

    kind: str
    sha256: str
    uploads: tuple[str, ...] = ()


@dataclass(slots=True)
class _Expected:
    size_bytes: int
    uploads: list[str]


def verify(data_dir: Path, tell: Callable[[Problem], None]) -> Count:
    """Hash everything that is held, from the medium, and count. Each problem is told as it is found.

    Raises JournalError or StoreError when there is no catalogue here, and OSError.
    """
    layout, count = Layout(data_dir), Count()
    with _catalogue(data_dir) as connection:
        for number in range(256):
            _verify_some(layout, connection, f"{number:02x}", count, tell)
        count.unfinished = connection.execute(
            "SELECT COUNT(*) FROM uploads WHERE state = 'receiving'"
        ).fetchone()[0]
    if layout.quarantine.exists():
        files = layout.quarantine.iterdir()
        count.quarantined = sum(not entry.name.endswith(".json") for entry in files)
    return count


def held(data_dir: Path) -> Iterator[Upload]:
    """Yield the uploads that the store has given a receipt for, in the order of arrival."""
    with _catalogue(data_dir) as connection:
        yield from every_upload(connection, UploadState.HELD)


def recordings(data_dir: Path) -> Iterator[Upload]:
    """Yield every upload that the store was ever asked to take, in the order of arrival."""
    with _catalogue(data_dir) as connection:
        yield from every_upload(connection)


@contextlib.contextmanager
def _catalogue(data_dir: Path) -> Iterator[sqlite3.Connection]:
    path = Layout(data_dir).catalogue
    with open_read_only(path) as connection:
        version = schema_version(connection)
        if version != len(MIGRATIONS):
            raise StoreError(
                f"{path} is of schema version {version}, not {len(MIGRATIONS)}; start the store first"
            )
        yield connection


def _verify_some(
    layout: Layout,
    connection: sqlite3.Connection,
    prefix: str,
    count: Count,
    tell: Callable[[Problem], None],
) -> None:
    for sha256, expected in _expected(connection, prefix).items():
        kind = _look_at(object_path(layout.objects, sha256), sha256, expected.size_bytes)
        count.uploads += len(expected.uploads)
        count.objects += 1
        count.bytes += expected.size_bytes
        setattr(count, kind, getattr(count, kind) + 1)
        if kind != "ok":
            tell(Problem(kind, sha256, tuple(expected.uploads)))
    # Rows are read again: an upload may have been finished while others were being hashed.
    known = _expected(connection, prefix)
    for path in sorted((layout.objects / prefix).glob("*/*")):
        # A second link is the upload's own: it is being checked at this moment.
        if path.name not in known and path.stat().st_nlink == 1:
            count.orphan += 1
            tell(Problem("orphan", path.name))


def _expected(connection: sqlite3.Connection, prefix: str) -> dict[str, _Expected]:
    found: dict[str, _Expected] = {}
    for sha256, size_bytes, upload_id in connection.execute(
        "SELECT sha256, size_bytes, upload_id FROM uploads"
        " WHERE state = 'held' AND sha256 >= ? AND sha256 < ? ORDER BY sha256, number",
        (prefix, f"{prefix}g"),  # "g" sorts after every hexadecimal digit
    ):
        found.setdefault(sha256, _Expected(size_bytes, [])).uploads.append(upload_id)
    return found


def _look_at(path: Path, sha256: str, size_bytes: int) -> str:
    try:
        content = read_back(path)
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "damaged"
    return "ok" if (content.sha256, content.size_bytes) == (sha256, size_bytes) else "damaged"
