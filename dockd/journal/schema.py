"""The journal's tables, and how visits and recordings become rows and come back."""

import sqlite3
from datetime import datetime

from dockd.core.model import (
    Camera,
    Container,
    ContainerVerdict,
    IdentifiedBy,
    Recording,
    RecordingState,
    UploadAttempt,
    Verdict,
    Visit,
)
from dockd.core.timestamps import from_rfc3339, to_rfc3339

MIGRATIONS = (
    """
    CREATE TABLE custody (
        seq INTEGER PRIMARY KEY,
        hash TEXT NOT NULL,
        entry BLOB NOT NULL,
        signature BLOB NOT NULL
    ) STRICT;
    CREATE TRIGGER custody_entries_stay BEFORE DELETE ON custody
        BEGIN SELECT RAISE(ABORT, 'the custody log is append-only'); END;
    CREATE TRIGGER custody_entries_stay_the_same BEFORE UPDATE ON custody
        BEGIN SELECT RAISE(ABORT, 'the custody log is append-only'); END;

    CREATE TABLE visits (
        number INTEGER PRIMARY KEY,
        visit_id TEXT NOT NULL UNIQUE,
        bay TEXT NOT NULL,
        camera_id TEXT NOT NULL,
        identified_by TEXT NOT NULL,
        place TEXT NOT NULL,
        started_at TEXT NOT NULL,
        finished_at TEXT,
        verdict TEXT,
        ended_at TEXT,
        manifest TEXT,
        manifest_url TEXT,
        manifest_receipt TEXT,
        hold_until TEXT
    ) STRICT;
    CREATE INDEX visits_of_a_camera ON visits (camera_id);
    CREATE INDEX visits_present ON visits (bay) WHERE ended_at IS NULL;

    CREATE TABLE recordings (
        visit_id TEXT NOT NULL REFERENCES visits (visit_id),
        path BLOB NOT NULL,
        size_bytes INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        flagged INTEGER NOT NULL,
        state TEXT NOT NULL,
        upload_url TEXT,
        upload_key TEXT,
        sha256 TEXT,
        receipt TEXT,
        container_format TEXT,
        container_verdict TEXT,
        container_detail TEXT,
        reason TEXT,
        blocks_wipe TEXT,
        attempts INTEGER NOT NULL,
        resent_bytes INTEGER NOT NULL,
        PRIMARY KEY (visit_id, path)
    ) STRICT;
    """,
    """
    ALTER TABLE recordings ADD COLUMN furthest_bytes INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE attempts (
        visit_id TEXT NOT NULL,
        path BLOB NOT NULL,
        number INTEGER NOT NULL,
        begun_at TEXT NOT NULL,
        ended_at TEXT,
        offset_from INTEGER,
        offset_to INTEGER NOT NULL,
        sent_bytes INTEGER NOT NULL,
        resent_bytes INTEGER NOT NULL,
        error TEXT,
        PRIMARY KEY (visit_id, path, number)
    ) STRICT, WITHOUT ROWID;
    """,
)
"""Scripts that bring the file from one schema version to the next. Never change one that was released."""

INSERT_VISIT = """
    INSERT INTO visits (
        visit_id, bay, camera_id, identified_by, place, started_at, finished_at, verdict,
        ended_at, manifest, manifest_url, manifest_receipt, hold_until
    ) VALUES (
        :visit_id, :bay, :camera_id, :identified_by, :place, :started_at, :finished_at, :verdict,
        :ended_at, :manifest, :manifest_url, :manifest_receipt, :hold_until
    )
"""

UPDATE_VISIT = """
    UPDATE visits SET
        bay = :bay, camera_id = :camera_id, identified_by = :identified_by, place = :place,
        started_at = :started_at, finished_at = :finished_at, verdict = :verdict,
        ended_at = :ended_at, manifest = :manifest, manifest_url = :manifest_url,
        manifest_receipt = :manifest_receipt, hold_until = :hold_until
    WHERE visit_id = :visit_id
"""

PUT_RECORDING = """
    REPLACE INTO recordings (
        visit_id, path, size_bytes, mtime_ns, flagged, state, upload_url, upload_key, sha256, receipt,
        container_format, container_verdict, container_detail, reason, blocks_wipe, attempts,
        resent_bytes, furthest_bytes
    ) VALUES (
        :visit_id, :path, :size_bytes, :mtime_ns, :flagged, :state, :upload_url, :upload_key,
        :sha256, :receipt, :container_format, :container_verdict, :container_detail, :reason,
        :blocks_wipe, :attempts, :resent_bytes, :furthest_bytes
    )
"""

PUT_ATTEMPT = """
    REPLACE INTO attempts VALUES (
        :visit_id, :path, :number, :begun_at, :ended_at, :offset_from, :offset_to, :sent_bytes,
        :resent_bytes, :error
    )
"""

FIRST_ATTEMPTS, LAST_ATTEMPTS = 5, 20
"""Attempts of a recording that are kept; what lies between them is only counted."""

FORGET_ATTEMPTS = f"""
    DELETE FROM attempts
    WHERE visit_id = :visit_id AND path = :path
      AND number > {FIRST_ATTEMPTS} AND number <= :number - {LAST_ATTEMPTS}
"""  # noqa: S608 - two numbers of our own

ATTEMPTS = """
    SELECT attempts.*, visits.camera_id FROM attempts JOIN visits USING (visit_id)
    ORDER BY visits.number, path, attempts.number
"""

# A bare column beside max() is that of the row with the maximum: https://www.sqlite.org/lang_select.html
# What was erased or has vanished gives a later visit nothing, and would pile up over the years.
NEWEST_OF_OTHER_VISITS = """
    SELECT * FROM (
        SELECT recordings.*, max(visits.number)
        FROM visits JOIN recordings USING (visit_id)
        WHERE visits.camera_id = ? AND visits.visit_id <> ?
        GROUP BY recordings.path
    ) WHERE state NOT IN ('erased', 'vanished')
"""

NEWEST_ERASED_VISIT = """
    SELECT * FROM visits
    WHERE verdict = 'wiped' AND manifest_receipt IS NOT NULL
        AND visit_id NOT IN (SELECT value FROM json_each(?))
    ORDER BY number DESC LIMIT 1
"""

COUNT_UNCONFIRMED = """
    SELECT COUNT(*) FROM (
        SELECT recordings.state AS state, max(visits.number)
        FROM visits JOIN recordings USING (visit_id)
        GROUP BY visits.camera_id, recordings.path
    ) WHERE state NOT IN ('confirmed', 'erased', 'vanished')
"""

ERASE_CONFIRMED = """
    UPDATE recordings SET state = 'erased' WHERE visit_id = ? AND state = 'confirmed'
"""

HAS_RECORDINGS = "SELECT EXISTS (SELECT 1 FROM recordings WHERE visit_id = ?)"


def visit_values(visit: Visit) -> dict[str, str | None]:
    """Return the columns of a visit."""
    return {
        "visit_id": visit.visit_id,
        "bay": visit.bay,
        "camera_id": visit.camera.camera_id,
        "identified_by": visit.camera.identified_by.value,
        "place": visit.where,
        "started_at": to_rfc3339(visit.started_at),
        "finished_at": _text(visit.finished_at),
        "verdict": visit.verdict.value if visit.verdict else None,
        "ended_at": _text(visit.ended_at),
        "manifest": visit.manifest,
        "manifest_url": visit.manifest_url,
        "manifest_receipt": visit.manifest_receipt,
        "hold_until": _text(visit.hold_until),
    }


def visit_from(row: sqlite3.Row) -> Visit:
    """Return the visit of a row; raises ValueError for a value that dockd never writes."""
    return Visit(
        visit_id=row["visit_id"],
        bay=row["bay"],
        camera=Camera(row["camera_id"], IdentifiedBy(row["identified_by"])),
        where=row["place"],
        started_at=from_rfc3339(row["started_at"]),
        finished_at=_moment(row["finished_at"]),
        verdict=Verdict(row["verdict"]) if row["verdict"] else None,
        ended_at=_moment(row["ended_at"]),
        manifest=row["manifest"],
        manifest_url=row["manifest_url"],
        manifest_receipt=row["manifest_receipt"],
        hold_until=_moment(row["hold_until"]),
    )


def recording_values(recording: Recording) -> dict[str, str | int | bytes | None]:
    """Return the columns of a recording."""
    container = recording.container
    return {
        "visit_id": recording.visit_id,
        "path": recording.path,
        "size_bytes": recording.size_bytes,
        "mtime_ns": recording.mtime_ns,
        "flagged": recording.flagged,
        "state": recording.state.value,
        "upload_url": recording.upload_url,
        "upload_key": recording.upload_key,
        "sha256": recording.sha256,
        "receipt": recording.receipt,
        "container_format": container.format if container else None,
        "container_verdict": container.verdict.value if container else None,
        "container_detail": container.detail if container else None,
        "reason": recording.reason,
        "blocks_wipe": recording.blocks_wipe,
        "attempts": recording.attempts,
        "resent_bytes": recording.resent_bytes,
        "furthest_bytes": recording.furthest_bytes,
    }


def recording_from(row: sqlite3.Row) -> Recording:
    """Return the recording of a row; raises ValueError for a value that dockd never writes."""
    container = None
    if row["container_verdict"] is not None:
        verdict = ContainerVerdict(row["container_verdict"])
        container = Container(row["container_format"], verdict, row["container_detail"])
    return Recording(
        visit_id=row["visit_id"],
        path=row["path"],
        size_bytes=row["size_bytes"],
        mtime_ns=row["mtime_ns"],
        flagged=bool(row["flagged"]),
        state=RecordingState(row["state"]),
        upload_url=row["upload_url"],
        upload_key=row["upload_key"],
        sha256=row["sha256"],
        receipt=row["receipt"],
        container=container,
        reason=row["reason"],
        blocks_wipe=row["blocks_wipe"],
        attempts=row["attempts"],
        resent_bytes=row["resent_bytes"],
        furthest_bytes=row["furthest_bytes"],
    )


def attempt_values(attempt: UploadAttempt) -> dict[str, str | int | bytes | None]:
    """Return the columns of an attempt."""
    return {
        "visit_id": attempt.visit_id,
        "path": attempt.path,
        "number": attempt.number,
        "begun_at": to_rfc3339(attempt.begun_at),
        "ended_at": _text(attempt.ended_at),
        "offset_from": attempt.offset_from,
        "offset_to": attempt.offset_to,
        "sent_bytes": attempt.sent_bytes,
        "resent_bytes": attempt.resent_bytes,
        "error": attempt.error,
    }


def attempt_from(row: sqlite3.Row) -> UploadAttempt:
    """Return the attempt of a row; raises ValueError for a value that dockd never writes."""
    return UploadAttempt(
        visit_id=row["visit_id"],
        path=row["path"],
        number=row["number"],
        begun_at=from_rfc3339(row["begun_at"]),
        ended_at=_moment(row["ended_at"]),
        offset_from=row["offset_from"],
        offset_to=row["offset_to"],
        sent_bytes=row["sent_bytes"],
        resent_bytes=row["resent_bytes"],
        error=row["error"],
    )


def _text(at: datetime | None) -> str | None:
    return to_rfc3339(at) if at else None


def _moment(text: str | None) -> datetime | None:
    return from_rfc3339(text) if text else None
