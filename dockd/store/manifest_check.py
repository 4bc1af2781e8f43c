"""Is everything on a manifest really here? Asked before the store signs for a manifest.

A receipt for a manifest is what lets a dock erase a camera, so the store relies on nothing but its own
receipts, its own catalogue and its own disk.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dockd.core.errors import ManifestInvalidError, ReceiptInvalidError
from dockd.core.model import Manifest, ManifestEntry, ReceiptClaims, display_name
from dockd.evidence.keys import VerifyingKey
from dockd.evidence.manifests import read_manifest
from dockd.evidence.receipts import ReceiptVerifier
from dockd.store.catalogue import Refusal, Upload, UploadState

MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_MISSING_SHOWN = 1000

Holds = Callable[[str, int], bool]
"""Whether there is an object of this digest and size."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A recording on a manifest with what its receipt states, or why that receipt is worth nothing."""

    entry: ManifestEntry
    claims: ReceiptClaims | None
    fault: str = ""


def open_manifest(content: bytes, upload: Upload, key: VerifyingKey | None) -> Manifest | Refusal:
    """Read a manifest that was uploaded, and see that it is about the dock and camera that sent it.

    ``key`` is the one that its dock was enrolled with; None in a store that enrols nobody.
    """
    try:
        manifest = read_manifest(content.decode("ascii"), key)
    except (UnicodeDecodeError, ManifestInvalidError) as error:
        return Refusal(f"not a manifest: {error}")
    for what, found, wanted in (
        ("dock", manifest.dock, upload.dock),
        ("camera", manifest.camera, upload.camera),
        ("visit", manifest.visit, upload.visit),
    ):
        if found != wanted:
            return Refusal(f"the manifest is for {what} {found!r}; {wanted!r} has sent it")
    return manifest


def read_receipts(manifest: Manifest, verifier: ReceiptVerifier) -> tuple[Listed, ...]:
    """Verify the receipt of every recording against the store's own key."""
    return tuple(_listed(entry, verifier) for entry in manifest.recordings)


def find_missing(
    listed: tuple[Listed, ...], upload: Upload, known: Mapping[str, Upload], holds: Holds
) -> Refusal | None:
    """Return what the store does not hold of a manifest's recordings, None when it holds all.

    ``upload`` is the manifest's own, ``known`` the catalogue's rows by upload id. Blocking, for it
    looks at every object.
    """
    missing = [
        f"{display_name(item.entry.path)}: {reason}"
        for item in listed
        for reason in _reasons(item, upload, known, holds)
    ]
    if not missing:
        return None
    error = f"the store does not hold {len(missing)} of {len(listed)} recordings on the manifest"
    return Refusal(error, tuple(missing[:_MISSING_SHOWN]))


def _listed(entry: ManifestEntry, verifier: ReceiptVerifier) -> Listed:
    try:
        return Listed(entry, verifier.verify(entry.receipt))
    except ReceiptInvalidError as error:
        return Listed(entry, None, str(error))


def _reasons(
    item: Listed, upload: Upload, known: Mapping[str, Upload], holds: Holds
) -> Iterator[str]:
    """Yield the first thing wrong with a listed recording, or nothing."""
    entry, claims = item.entry, item.claims
    if claims is None:
        yield item.fault
        return
    row = known.get(claims.upload_id)
    if (claims.dock, claims.camera) != (upload.dock, upload.camera):
        yield "its receipt was given to another dock or for another camera"
    elif (claims.sha256, claims.size_bytes) != (entry.sha256, entry.size_bytes):
        yield "its receipt covers other bytes"
    elif row is None or row.state is not UploadState.HELD:
        yield f"the store knows no finished upload {claims.upload_id}"
    elif (row.dock, row.camera, row.sha256, row.size_bytes) != (
        upload.dock,
        upload.camera,
        entry.sha256,
        entry.size_bytes,
    ):
        yield f"upload {claims.upload_id} is something else"
    elif not holds(entry.sha256, entry.size_bytes):
        yield "its object is not on the store's disk"
