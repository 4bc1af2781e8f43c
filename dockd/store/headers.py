"""The header fields of the store's protocol, read and written: pure text in, plain values out.

tus 1.0.0 (https://tus.io/protocols/resumable-upload) names the fields; RFC 9530 names Repr-Digest.
Whatever a client sends ends as a value or as :class:`RequestRefusedError`; nothing else is raised.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

from dockd.core.errors import StoreError

TUS_VERSION = "1.0.0"
TUS_EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination,dockd-receipt"
"""The extensions of tus 1.0.0, and our own: receipts, as docs/upload-target.md has them."""
DURABILITY = "offset, receipt"
"""What survives a power cut (docs/upload-target.md, §2.2): offsets that were told, and what is signed."""
OFFSET_CONTENT_TYPE = "application/offset+octet-stream"
RECEIPT_CONTENT_TYPE = "application/jwt"
CHECKSUM_MISMATCH = 460
"""The tus checksum extension's own status code."""

MAX_KEY_CHARS = 255
MAX_CLAIM_BYTES = 1024
"""Bound on dock, camera, visit and custody head: a receipt carries them all."""
_MTIME_DIGITS = 18
_MAX_LENGTH = 2**63 - 1
_DIGITS = re.compile(r"[0-9]{1,19}")
_METADATA_KEY = re.compile(r"[!-+\--~]+")  # visible ASCII without the comma
_SHA256_BYTES = 32


class RequestRefusedError(StoreError):
    """A request is answered with an error status; ``str(error)`` is the line a person reads."""

    def __init__(self, status: int, text: str, *, retry_after_s: int | None = None) -> None:
        """Build from the HTTP status, one line of text, and Retry-After in seconds."""
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s


def parse_length(name: str, value: str | None) -> int:
    """Return a byte count such as Upload-Length or Upload-Offset; 400 when it is not one."""
    if value is None:
        raise RequestRefusedError(400, f"{name} is missing")
    if not _DIGITS.fullmatch(value) or int(value) > _MAX_LENGTH:
        raise RequestRefusedError(400, f"{name} is not a number of bytes: {value[:40]!r}")
    return int(value)


def parse_metadata(value: str) -> Mapping[str, bytes]:
    """Return the pairs of Upload-Metadata; a key without a value has an empty one."""
    pairs: dict[str, bytes] = {}
    for part in value.split(",") if value.strip() else ():
        key, _, encoded = part.strip().partition(" ")
        if not _METADATA_KEY.fullmatch(key):
            raise RequestRefusedError(400, "Upload-Metadata has an empty or odd key")
        if key in pairs:
            raise RequestRefusedError(400, f"Upload-Metadata has the key {key!r} twice")
        pairs[key] = _decode_base64(f"Upload-Metadata {key!r}", encoded.strip())
    return pairs


def parse_checksum(value: str | None) -> bytes | None:
    """Return the SHA-256 of Upload-Checksum (``sha256 <base64>``), None where there is none."""
    if value is None:
        return None
    algorithm, _, encoded = value.strip().partition(" ")
    if algorithm != "sha256":
        raise RequestRefusedError(400, f"Upload-Checksum knows only sha256, not {algorithm[:20]!r}")
    return _sha256("Upload-Checksum", encoded.strip())


def parse_repr_digest(value: str | None) -> str | None:
    """Return the hexadecimal sha-256 of Repr-Digest (RFC 9530 §3), None where it names none.

    Other algorithms are passed over, as §5 asks.
    """
    for part in (value or "").split(","):
        name, equals, encoded = part.strip().partition("=")
        if name.lower() != "sha-256":
            continue
        if not (equals and len(encoded) > 1 and encoded[0] == encoded[-1] == ":"):
            raise RequestRefusedError(400, "Repr-Digest is not sha-256=:<base64>:")
        return _sha256("Repr-Digest", encoded[1:-1]).hex()
    return None


def parse_mtime_ns(value: bytes) -> int | None:
    """Return the camera's time of a recording; None when it is not a number.

    It only describes, so a strange one does not stop footage (INV-7).
    """
    digits = value.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > _MTIME_DIGITS:
        return None
    return int(value)


def parse_claim(name: str, value: bytes) -> str:
    """Return dock, camera, visit or custody head as text, as a receipt repeats it.

    What is not UTF-8 is escaped: it does not stop footage (INV-7).
    """
    if len(value) > MAX_CLAIM_BYTES:
        raise RequestRefusedError(400, f"{name} has more than {MAX_CLAIM_BYTES} bytes")
    return value.decode("utf-8", "backslashreplace")


def parse_idempotency_key(value: str | None) -> str | None:
    """Return the key, None where there is none."""
    if value is None:
        return None
    if not value.isprintable() or not 0 < len(value) <= MAX_KEY_CHARS:
        raise RequestRefusedError(400, f"Idempotency-Key is not 1 to {MAX_KEY_CHARS} characters")
    return value


def format_expires(at: datetime) -> str:
    """Return Upload-Expires: an HTTP date (RFC 9110 §5.6.7)."""
    return format_datetime(at.astimezone(UTC), usegmt=True)


def _sha256(name: str, encoded: str) -> bytes:
    digest = _decode_base64(name, encoded)
    if len(digest) != _SHA256_BYTES:
        raise RequestRefusedError(400, f"{name} is not the 32 bytes of a SHA-256")
    return digest


def _decode_base64(name: str, encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise RequestRefusedError(400, f"{name} is not base64") from None
