"""The store's catalogue: every upload it was ever asked to take, and the receipt of each it holds.

An upload is ``receiving`` from its creation until its bytes were checked; how many bytes have arrived
is the size of its file, not a matter of the catalogue. It then is ``held``, with its receipt, or
``refused``, with the reason; unfinished ones can be ``expired`` or ``terminated``. Rows are never
deleted.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from dockd.core.model import UploadKind
from dockd.core.timestamps import from_rfc3339, to_rfc3339
from dockd.journal.database import Database

MIGRATIONS = (
    """
    CREATE TABLE uploads (
        number INTEGER PRIMARY KEY,
        upload_id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        idempotency_key TEXT,
        kind TEXT NOT NULL,
        path BLOB NOT NULL,
        size_bytes INTEGER NOT NULL,
        mtime_ns INTEGER,
        dock TEXT NOT NULL,
        camera TEXT NOT NULL,
        visit TEXT NOT NULL,
        custody_head TEXT NOT NULL,
        flagged INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        announced_sha256 TEXT,
        created_at TEXT NOT NULL,
        ended_at TEXT,
        sha256 TEXT,
        receipt TEXT,
        refusal TEXT
    ) STRICT;
    CREATE UNIQUE INDEX uploads_by_key ON uploads (dock, idempotency_key, size_bytes)
        WHERE idempotency_key IS NOT NULL AND state IN ('receiving', 'held');
    CREATE INDEX uploads_receiving ON uploads (number) WHERE state = 'receiving';
    CREATE INDEX uploads_held ON uploads (sha256) WHERE state = 'held';
    """,
)

_IDS_A_QUERY = 500  # SQLite takes at least 999 parameters


class UploadState(StrEnum):
    """Where an upload stands."""

    RECEIVING = "receiving"
    HELD = "held"
    REFUSED = "refused"
    EXPIRED = "expired"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why bytes were not accepted. ``missing`` names what a manifest lists and is not held."""

    error: str
    missing: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the body of a 409 answer."""
        return json.dumps({"error": self.error, "missing": list(self.missing)})


@dataclass(frozen=True, slots=True)
class Upload:
    """One row. ``metadata`` is the client's Upload-Metadata as it was sent.

    ``mtime_ns`` is None where the client did not say. ``announced_sha256`` is what the client says
    the whole recording's digest is, ``sha256`` what the store found.
    """

    upload_id: str
    kind: UploadKind
    path: bytes
    size_bytes: int
    dock: str
    camera: str
    visit: str
    custody_head: str
    created_at: datetime
    mtime_ns: int | None = None
    flagged: bool = False
    idempotency_key: str | None = None
    metadata: str = ""
    announced_sha256: str | None = None
    state: UploadState = UploadState.RECEIVING
    ended_at: datetime | None = None
    sha256: str | None = None
    receipt: str | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a complete upload: held, with a receipt, or refused."""

    upload_id: str
    ended_at: datetime
    sha256: str | None = None
    receipt: str | None = None
    refusal: Refusal | None = None


class Catalogue:
    """The uploads of one store. When a change returns, it survives a power cut."""

    def __init__(self, database: Database) -> None:
        """Build on a database opened with :data:`MIGRATIONS`."""
        self._database = database

    async def create(self, upload: Upload) -> Upload:
        """Add an upload, or return the one that its dock made with the same key and size."""

        def write(connection: sqlite3.Connection) -> Upload:
            existing = _with_same_key(connection, upload)
            if existing is not None:
                return existing
            _insert(connection, upload)
            return upload

        return await self._database.write(write)

    async def find(self, upload_id: str) -> Upload | None:
        """Return one upload."""
        return (await self.find_all([upload_id])).get(upload_id)

    async def find_all(self, upload_ids: Sequence[str]) -> Mapping[str, Upload]:
        """Return those of the uploads that exist, by id."""

        def read(connection: sqlite3.Connection) -> Mapping[str, Upload]:
            found = {}
            for first in range(0, len(upload_ids), _IDS_A_QUERY):
                some = upload_ids[first : first + _IDS_A_QUERY]
                marks = ",".join("?" * len(some))
                query = f"SELECT * FROM uploads WHERE upload_id IN ({marks})"  # noqa: S608 (marks)
                for row in connection.execute(query, some):
                    found[row["upload_id"]] = _from_row(row)
            return found

        return await self._database.read(read)

    async def receiving(self) -> Sequence[Upload]:
        """Return the uploads that are not finished or not checked, in the order of arrival."""
        return await self._database.read(
            lambda connection: [
                _from_row(row)
                for row in connection.execute(
                    "SELECT * FROM uploads WHERE state = 'receiving' ORDER BY number"
                )
            ]
        )

    async def announce(self, upload: Upload, sha256: str) -> Upload:
        """Remember the digest that the client says the whole recording has."""
        await self._database.write(
            lambda connection: connection.execute(
                "UPDATE uploads SET announced_sha256 = ? WHERE upload_id = ? AND state = 'receiving'",
                (sha256, upload.upload_id),
            )
        )
        return replace(upload, announced_sha256=sha256)

    async def end(self, upload_id: str, state: UploadState, at: datetime) -> bool:
        """Record that an unfinished upload has expired or was terminated; whether it was unfinished."""

        def write(connection: sqlite3.Connection) -> bool:
            cursor = connection.execute(
                "UPDATE uploads SET state = ?, ended_at = ?"
                " WHERE upload_id = ? AND state = 'receiving'",
                (state, to_rfc3339(at), upload_id),
            )
            return cursor.rowcount == 1

        return await self._database.write(write)

    async def conclude(self, verdicts: Sequence[Verdict]) -> frozenset[str]:
        """Record what became of complete uploads, all in one transaction.

        The caller has made the bytes durable first (INV-1, INV-3). Returns the ids of the uploads
        that were still to be concluded; a verdict on any other has no effect and must not be shown.
        """

        def write(connection: sqlite3.Connection) -> frozenset[str]:
            return frozenset(v.upload_id for v in verdicts if _conclude(connection, v))

        return await self._database.write(write)


def every_upload(
    connection: sqlite3.Connection, state: UploadState | None = None
) -> Iterable[Upload]:
    """Yield the uploads of a catalogue in the order of arrival, all or those in one state."""
    condition, values = ("WHERE state = ?", (state,)) if state else ("", ())
    query = f"SELECT * FROM uploads {condition} ORDER BY number"  # noqa: S608 (fixed text)
    for row in connection.execute(query, values):
        yield _from_row(row)


def _with_same_key(connection: sqlite3.Connection, upload: Upload) -> Upload | None:
    if upload.idempotency_key is None:
        return None
    row = connection.execute(
        "SELECT * FROM uploads WHERE dock = ? AND idempotency_key = ? AND size_bytes = ?"
        " AND state IN ('receiving', 'held')",
        (upload.dock, upload.idempotency_key, upload.size_bytes),
    ).fetchone()
    return _from_row(row) if row else None


def _conclude(connection: sqlite3.Connection, verdict: Verdict) -> bool:
    cursor = connection.execute(
        "UPDATE uploads SET state = ?, ended_at = ?, sha256 = ?, receipt = ?, refusal = ?"
        " WHERE upload_id = ? AND state = 'receiving'",
        (
            UploadState.REFUSED if verdict.refusal else UploadState.HELD,
            to_rfc3339(verdict.ended_at),
            verdict.sha256,
            verdict.receipt,
            verdict.refusal and verdict.refusal.to_json(),
            verdict.upload_id,
        ),
    )
    return cursor.rowcount == 1


def _insert(connection: sqlite3.Connection, upload: Upload) -> None:
    connection.execute(
        "INSERT INTO uploads (upload_id, state, idempotency_key, kind, path, size_bytes, mtime_ns,"
        " dock, camera, visit, custody_head, flagged, metadata, announced_sha256, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            upload.upload_id,
            upload.state,
            upload.idempotency_key,
            upload.kind,
            upload.path,
            upload.size_bytes,
            upload.mtime_ns,
            upload.dock,
            upload.camera,
            upload.visit,
            upload.custody_head,
            upload.flagged,
            upload.metadata,
            upload.announced_sha256,
            to_rfc3339(upload.created_at),
        ),
    )


def _from_row(row: sqlite3.Row) -> Upload:
    return Upload(
        upload_id=row["upload_id"],
        kind=UploadKind(row["kind"]),
        path=row["path"],
        size_bytes=row["size_bytes"],
        dock=row["dock"],
        camera=row["camera"],
        visit=row["visit"],
        custody_head=row["custody_head"],
        created_at=from_rfc3339(row["created_at"]),
        mtime_ns=row["mtime_ns"],
        flagged=bool(row["flagged"]),
        idempotency_key=row["idempotency_key"],
        metadata=row["metadata"],
        announced_sha256=row["announced_sha256"],
        state=UploadState(row["state"]),
        ended_at=row["ended_at"] and from_rfc3339(row["ended_at"]),
        sha256=row["sha256"],
        receipt=row["receipt"],
        refusal=_refusal(row["refusal"]),
    )


def _refusal(text: str | None) -> Refusal | None:
    if text is None:
        return None
    stored = json.loads(text)
    return Refusal(stored["error"], tuple(stored["missing"]))
