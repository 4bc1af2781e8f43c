"""Manifests: the dock's signed list of all recordings of a visit.

A manifest is a compact JWS (RFC 7515) of type ``dockd-manifest+jwt`` that carries the dock's public
key in its header. A name is in it twice: ``path`` for people, ``path_b64`` (base64 of the exact bytes)
for everything else. ``mtime_ns`` is decimal text, because nanoseconds do not fit the numbers that
all JSON readers share (RFC 7493 section 2.2).
"""

import base64
import json
from typing import Annotated

from pydantic import AfterValidator, Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from dockd.core.errors import ManifestInvalidError
from dockd.core.model import (
    Container,
    ContainerVerdict,
    Manifest,
    ManifestEntry,
    SkippedEntry,
    SkipReason,
    display_name,
)
from dockd.core.timestamps import from_rfc3339, to_rfc3339
from dockd.evidence import jws as compact
from dockd.evidence.keys import SigningKey, VerifyingKey

TYPE = "dockd-manifest+jwt"
VERSION = 1


def sign_manifest(key: SigningKey, manifest: Manifest) -> str:
    """Return the manifest as a compact JWS."""
    payload = {
        "v": VERSION,
        "dock": manifest.dock,
        "camera": manifest.camera,
        "visit": manifest.visit,
        "bay": manifest.bay,
        "created_at": to_rfc3339(manifest.created_at),
        "custody_head": manifest.custody_head,
        "recordings": [_entry_to_wire(entry) for entry in manifest.recordings],
        "skipped": [
            {**_path_to_wire(entry.path), "reason": entry.reason.value, "detail": entry.detail}
            for entry in manifest.skipped
        ],
    }
    return compact.sign(
        key, TYPE, json.dumps(payload, separators=(",", ":")).encode(), embed_key=True
    )


def read_manifest(jws: str, key: VerifyingKey | None) -> Manifest:
    """Return the manifest in a JWS signed by ``key``. Raises :class:`ManifestInvalidError`.

    With ``key`` None the signature is checked against the key in the manifest's own header: that
    shows that nothing was changed since, not that a known dock wrote it.
    """
    try:
        return _Payload.model_validate_json(compact.verify(jws, TYPE, key)).to_manifest()
    except ValidationError as error:
        raise ManifestInvalidError(f"the manifest is not well formed: {_first(error)}") from error
    except ValueError as error:
        raise ManifestInvalidError(f"the manifest does not verify: {error}") from error


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _moment(text: str) -> str:
    from_rfc3339(text)
    return text


_Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
_Size = Annotated[int, Field(ge=0)]
_Decimal = Annotated[str, Field(pattern=r"\A(0|-?[1-9][0-9]{0,18})\z")]
_Moment = Annotated[str, AfterValidator(_moment)]


class _Container(_Wire):
    format: str
    verdict: ContainerVerdict
    detail: str

    def to_container(self) -> Container:
        return Container(self.format, self.verdict, self.detail)


class _Named(_Wire):
    path: str
    path_b64: Base64Bytes


class _Recording(_Named):
    size: _Size
    mtime_ns: _Decimal
    sha256: _Sha256
    receipt: str
    flagged: bool
    container: _Container | None
    blocks_wipe: str | None

    def to_entry(self) -> ManifestEntry:
        return ManifestEntry(
            path=self.path_b64,
            size_bytes=self.size,
            mtime_ns=int(self.mtime_ns),
            sha256=self.sha256,
            receipt=self.receipt,
            flagged=self.flagged,
            container=self.container.to_container() if self.container else None,
            blocks_wipe=self.blocks_wipe,
        )


class _Skipped(_Named):
    reason: SkipReason
    detail: str


class _Payload(_Wire):
    v: Annotated[int, Field(ge=VERSION, le=VERSION)]
    dock: str
    camera: str
    visit: str
    bay: str
    created_at: _Moment
    custody_head: str
    recordings: tuple[_Recording, ...]
    skipped: tuple[_Skipped, ...]

    def to_manifest(self) -> Manifest:
        return Manifest(
            dock=self.dock,
            camera=self.camera,
            visit=self.visit,
            bay=self.bay,
            created_at=from_rfc3339(self.created_at),
            custody_head=self.custody_head,
            recordings=tuple(recording.to_entry() for recording in self.recordings),
            skipped=tuple(
                SkippedEntry(entry.path_b64, entry.reason, entry.detail) for entry in self.skipped
            ),
        )


def _entry_to_wire(entry: ManifestEntry) -> dict[str, object]:
    container = entry.container
    return {
        **_path_to_wire(entry.path),
        "size": entry.size_bytes,
        "mtime_ns": str(entry.mtime_ns),
        "sha256": entry.sha256,
        "receipt": entry.receipt,
        "flagged": entry.flagged,
        "container": container
        and {
            "format": container.format,
            "verdict": container.verdict.value,
            "detail": container.detail,
        },
        "blocks_wipe": entry.blocks_wipe,
    }


def _path_to_wire(path: bytes) -> dict[str, str]:
    return {"path": display_name(path), "path_b64": base64.b64encode(path).decode()}


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else detail["msg"]
