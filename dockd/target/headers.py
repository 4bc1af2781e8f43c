"""The header fields of the upload contract, as pure functions.

Sources: tus resumable upload protocol 1.0.0; RFC 9530 (Repr-Digest); RFC 9110 (Retry-After, dates).
"""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from dockd.core.errors import ProtocolViolationError
from dockd.core.model import TargetProperties, UploadSpec

TUS_VERSION = "1.0.0"
RECEIPT_EXTENSION = "dockd-receipt"
MAX_RETRY_AFTER_S = 3600.0

_DECIMAL = re.compile(r"[0-9]{1,19}")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def encode_metadata(values: Mapping[str, bytes | None]) -> str:
    """Return an Upload-Metadata value; None is a key without a value (tus, Creation)."""
    return ",".join(f"{key} {_base64(raw)}" if raw else key for key, raw in values.items())


def metadata_of(spec: UploadSpec) -> str:
    """Return the Upload-Metadata of an upload, with the file name's exact bytes."""
    values: dict[str, bytes | None] = {
        "filename": spec.path,
        "kind": spec.kind.value.encode(),
        "mtime_ns": str(spec.mtime_ns).encode(),
        "dock": spec.dock.encode(),
        "camera": spec.camera.encode(),
        "visit": spec.visit.encode(),
        "custody_head": spec.custody_head.encode(),
    }
    if spec.flagged:
        values["flagged"] = None
    return encode_metadata(values)


def upload_checksum(sha256: bytes) -> str:
    """Return the Upload-Checksum value for the digest of one request's body (tus, Checksum)."""
    return f"sha256 {_base64(sha256)}"


def repr_digest(sha256: bytes) -> str:
    """Return the Repr-Digest value for the digest of the whole recording (RFC 9530 §3)."""
    return f"sha-256=:{_base64(sha256)}:"


def decode_metadata(value: str) -> dict[str, bytes]:
    """Return the pairs of an Upload-Metadata value; raises ProtocolViolationError."""
    pairs: dict[str, bytes] = {}
    for part in filter(None, map(str.strip, value.split(","))):
        key, _, encoded = part.partition(" ")
        try:
            pairs[key] = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise ProtocolViolationError(
                f"the answer's Upload-Metadata {key!r} is not base64"
            ) from error
    return pairs


def upload_offset(headers: Mapping[str, str]) -> int:
    """Return the Upload-Offset that an answer must carry; raises ProtocolViolationError."""
    return _size(headers, "Upload-Offset")


def upload_length(headers: Mapping[str, str]) -> int:
    """Return the Upload-Length that an answer to HEAD must carry; raises ProtocolViolationError."""
    return _size(headers, "Upload-Length")


def _size(headers: Mapping[str, str], name: str) -> int:
    value = headers.get(name)
    if value is None or not _DECIMAL.fullmatch(value.strip()):
        raise ProtocolViolationError(f"the answer's {name} is {value!r}, not a size in bytes")
    return int(value)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the wait that an answer asks for, at most an hour; None where it asks for none.

    A date (RFC 9110 §10.2.3) is measured against the answer's own Date, because the dock's clock may
    be wrong by a year; ``now`` stands in where there is no Date.
    """
    value = headers.get("Retry-After", "").strip()
    if _DECIMAL.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER_S)
    until = http_date(value)
    if until is None:
        return None
    seconds = (until - (http_date(headers.get("Date", "")) or now)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def http_date(value: str) -> datetime | None:
    """Return an HTTP date (RFC 9110 §5.6.7), aware; None for anything else."""
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def properties_of(headers: Mapping[str, str]) -> TargetProperties:
    """Return what an OPTIONS answer offers; raises ProtocolViolationError for no tus 1.0.0 server."""
    if TUS_VERSION not in _items(headers, "Tus-Version"):
        versions = headers.get("Tus-Version")
        raise ProtocolViolationError(f"the target speaks tus {versions}, not {TUS_VERSION}")
    extensions = _items(headers, "Tus-Extension")
    if "creation" not in extensions:
        raise ProtocolViolationError("the target does not offer the tus extension 'creation'")
    max_size = headers.get("Tus-Max-Size", "").strip()
    return TargetProperties(
        creation_with_upload="creation-with-upload" in extensions,
        checksum_sha256="checksum" in extensions
        and "sha256" in _items(headers, "Tus-Checksum-Algorithm"),
        receipts=RECEIPT_EXTENSION in extensions,
        max_size_bytes=int(max_size) if _DECIMAL.fullmatch(max_size) else None,
        store_id=headers.get("Dockd-Store"),
    )


def _items(headers: Mapping[str, str], name: str) -> set[str]:
    return {item.strip().lower() for item in headers.get(name, "").split(",")}
