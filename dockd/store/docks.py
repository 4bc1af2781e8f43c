"""Which docks the store knows: their names, keys and tokens, in a database of their own.

Commands change it beside the running store, which reads it at each request; so a revocation acts on the
very next one. A dock is its key: the certificate only carries it. Rows of docks are never deleted. Of
a token only a hash is kept.
"""

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dockd.core.errors import StoreError
from dockd.core.timestamps import from_rfc3339, to_rfc3339
from dockd.evidence.keys import VerifyingKey, parse_verifying_key
from dockd.journal.database import Database

MIGRATIONS = (
    """
    CREATE TABLE docks (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        key_id TEXT NOT NULL,
        public_key BLOB NOT NULL,
        enrolled_at TEXT NOT NULL,
        certified_until TEXT NOT NULL,
        revoked_at TEXT
    ) STRICT;
    CREATE UNIQUE INDEX docks_by_name ON docks (name) WHERE revoked_at IS NULL;
    CREATE UNIQUE INDEX docks_by_key ON docks (key_id) WHERE revoked_at IS NULL;
    CREATE INDEX docks_of_a_key ON docks (key_id);
    CREATE TABLE tokens (
        hash BLOB PRIMARY KEY,
        dock TEXT NOT NULL,
        again INTEGER NOT NULL,
        expires_at TEXT NOT NULL,
        used_at TEXT,
        used_by TEXT
    ) STRICT;
    """,
)


class EnrolmentRefusedError(StoreError):
    """A dock is not enrolled; the message says why to whoever asks."""

    advice = "Make a new token with dockd store token."


@dataclass(frozen=True, slots=True)
class EnrolledDock:
    """A dock with the key that it was enrolled with. ``revoked_at`` is None while it is welcome."""

    name: str
    key: VerifyingKey
    enrolled_at: datetime
    certified_until: datetime
    revoked_at: datetime | None = None


class Docks:
    """The docks of one store. When a change returns, it survives a power cut."""

    def __init__(self, database: Database) -> None:
        """Build on a database opened with :data:`MIGRATIONS`; see :func:`open_docks`."""
        self._database = database

    async def add_token(
        self, secret: bytes, dock: str, *, again: bool, now: datetime, expires_at: datetime
    ) -> None:
        """Let whoever knows the secret enrol as this dock, once. Forgets tokens that have ended.

        Raises EnrolmentRefusedError for a name that was enrolled before, unless ``again`` says that
        this is meant.
        """

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM tokens WHERE expires_at < ?", (to_rfc3339(now),))
            known = _newest(connection, "name", dock)
            if known is not None and not again:
                state = "was revoked" if known.revoked_at else "is enrolled already"
                raise EnrolmentRefusedError(
                    f"dock {dock} {state}; if another enrolment is meant, say --again"
                )
            connection.execute(
                "INSERT INTO tokens (hash, dock, again, expires_at) VALUES (?, ?, ?, ?)",
                (_hash(secret), dock, again, to_rfc3339(expires_at)),
            )

        await self._database.write(write)

    async def enrol(
        self, secret: bytes, dock: str, key: VerifyingKey, *, now: datetime, until: datetime
    ) -> None:
        """Enrol a dock with its key against a token, which is used up by this.

        The same key may come again with the same token, because an answer can be lost on its way.
        An earlier enrolment of the name, or of the key under this name, ends. Raises
        EnrolmentRefusedError.
        """

        def write(connection: sqlite3.Connection) -> None:
            token = connection.execute(
                "SELECT * FROM tokens WHERE hash = ?", (_hash(secret),)
            ).fetchone()
            repeated = token is not None and token["used_by"] == key.key_id
            _require_token(token, dock, now, repeated=repeated)
            _require_free(connection, dock, key, again=bool(token["again"]) or repeated)
            connection.execute(
                "UPDATE tokens SET used_at = ?, used_by = ? WHERE hash = ?",
                (to_rfc3339(now), key.key_id, _hash(secret)),
            )
            _revoke(connection, dock, now)
            connection.execute(
                "INSERT INTO docks (name, key_id, public_key, enrolled_at, certified_until)"
                " VALUES (?, ?, ?, ?, ?)",
                (dock, key.key_id, key.pem(), to_rfc3339(now), to_rfc3339(until)),
            )

        await self._database.write(write)

    async def renewed(self, key: VerifyingKey, until: datetime) -> None:
        """Note until when a dock's newest certificate is valid."""
        await self._database.write(
            lambda connection: connection.execute(
                "UPDATE docks SET certified_until = ? WHERE key_id = ? AND revoked_at IS NULL",
                (to_rfc3339(until), key.key_id),
            )
        )

    async def revoke(self, dock: str, now: datetime) -> bool:
        """Turn a dock away from its next request on; return whether it was enrolled."""

        def write(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM tokens WHERE dock = ?", (dock,))
            return _revoke(connection, dock, now)

        return await self._database.write(write)

    async def by_key(self, key_id: str) -> EnrolledDock | None:
        """Return the dock of a key, the newest revoked one if there is no other."""
        return await self._database.read(lambda connection: _newest(connection, "key_id", key_id))

    async def by_name(self, name: str) -> EnrolledDock | None:
        """Return the dock of a name, the newest revoked one if there is no other."""
        return await self._database.read(lambda connection: _newest(connection, "name", name))

    async def all(self) -> Sequence[EnrolledDock]:
        """Return the newest enrolment of each name, in the order of names."""

        def read(connection: sqlite3.Connection) -> list[EnrolledDock]:
            names = connection.execute("SELECT DISTINCT name FROM docks ORDER BY name").fetchall()
            found = (_newest(connection, "name", row["name"]) for row in names)
            return [dock for dock in found if dock is not None]

        return await self._database.read(read)


@asynccontextmanager
async def open_docks(path: Path) -> AsyncIterator[Docks]:
    """Open the database, made if it is missing, for the time of a ``with`` block.

    Raises JournalError.
    """
    database = await Database.open(path, MIGRATIONS)
    try:
        yield Docks(database)
    finally:
        await database.close()


def _require_token(token: sqlite3.Row | None, dock: str, now: datetime, *, repeated: bool) -> None:
    if token is None:
        raise EnrolmentRefusedError("this token is unknown: mistyped, too old, or used up")
    if token["dock"] != dock:
        raise EnrolmentRefusedError(
            f"this token is for dock {token['dock']!r}, and this dock is {dock!r}"
        )
    if from_rfc3339(token["expires_at"]) <= now:
        raise EnrolmentRefusedError(f"this token was good until {token['expires_at']}")
    if token["used_at"] is not None and not repeated:
        raise EnrolmentRefusedError(
            f"this token was used at {token['used_at']}, with key {token['used_by']}:"
            " if that was not this dock, revoke it at the store"
        )


def _require_free(
    connection: sqlite3.Connection, dock: str, key: VerifyingKey, *, again: bool
) -> None:
    same_name = _newest(connection, "name", dock)
    if same_name is not None and not again:
        raise EnrolmentRefusedError(f"dock {dock!r} was enrolled meanwhile, by another token")
    same_key = _newest(connection, "key_id", key.key_id)
    if same_key is not None and same_key.revoked_at is None and same_key.name != dock:
        raise EnrolmentRefusedError(
            f"this dock's key is that of dock {same_key.name!r}: a copied disk must make a key of its"
            " own; a dock that was renamed is to be revoked first, under its old name"
        )


def _revoke(connection: sqlite3.Connection, dock: str, now: datetime) -> bool:
    cursor = connection.execute(
        "UPDATE docks SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL",
        (to_rfc3339(now), dock),
    )
    return cursor.rowcount > 0


def _newest(connection: sqlite3.Connection, column: str, value: str) -> EnrolledDock | None:
    row = connection.execute(
        f"SELECT * FROM docks WHERE {column} = ?"  # noqa: S608 (one of two fixed names)
        " ORDER BY revoked_at IS NULL DESC, number DESC LIMIT 1",
        (value,),
    ).fetchone()
    if row is None:
        return None
    return EnrolledDock(
        name=row["name"],
        key=parse_verifying_key(row["public_key"]),
        enrolled_at=from_rfc3339(row["enrolled_at"]),
        certified_until=from_rfc3339(row["certified_until"]),
        revoked_at=row["revoked_at"] and from_rfc3339(row["revoked_at"]),
    )


def _hash(secret: bytes) -> bytes:
    # The secret is random and long, so a plain hash is enough.
    return hashlib.sha256(secret).digest()
