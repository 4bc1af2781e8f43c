"""Real receipts and manifests, by real keys, for whatever a test says was stored."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.cameras.wiping import WipeAuthority
from dockd.core.model import (
    Confirm,
    Manifest,
    ManifestEntry,
    Presence,
    ReceiptClaims,
    WipeRequest,
)
from dockd.evidence.keys import SigningKey
from dockd.evidence.manifests import sign_manifest
from dockd.evidence.receipts import ReceiptVerifier, sign_receipt
from tests.simulated.clock import START


@dataclass(slots=True)
class ManualClock:
    """A core.interfaces.Clock that stands still until told otherwise."""

    time: datetime = START
    seconds: float = 1000.0

    def now(self) -> datetime:
        return self.time

    def monotonic_s(self) -> float:
        return self.seconds

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds
        self.time += timedelta(seconds=seconds)


@dataclass(slots=True)
class Proofs:
    """A dock and a store that have proved all they are shown.

    With ``confirm`` readback it is the dock that signs, for a store that cannot.
    """

    dock: str = "dock-1"
    store_id: str = "store-1"
    visit: str = "visit-1"
    dock_key: SigningKey = field(default_factory=lambda: SigningKey(Ed25519PrivateKey.generate()))
    store_key: SigningKey = field(default_factory=lambda: SigningKey(Ed25519PrivateKey.generate()))
    confirm: Confirm = Confirm.RECEIPT
    _receipts: int = 0

    @property
    def proof_key(self) -> SigningKey:
        """Whose receipts count."""
        return self.store_key if self.confirm is Confirm.RECEIPT else self.dock_key

    @property
    def authority(self) -> WipeAuthority:
        """By whom this dock wipes."""
        verifier = ReceiptVerifier(self.store_id, self.proof_key.public, self.confirm)
        return WipeAuthority(self.dock, self.dock_key.public, verifier)

    def receipt(
        self, content: bytes, camera: str, *, key: SigningKey | None = None, **changes: Any
    ) -> str:
        """Return the store's receipt for these bytes, with claims changed on the way."""
        self._receipts += 1
        claims = ReceiptClaims(
            issuer=self.store_id,
            issued_at=START,
            receipt_id=f"receipt-{self._receipts}",
            upload_id=f"upload-{self._receipts}",
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            dock=self.dock,
            camera=camera,
            visit=self.visit,
            custody_head="0" * 64,
            confirm=self.confirm,
        )
        return sign_receipt(key or self.proof_key, replace(claims, **changes))

    def entry(self, path: bytes, content: bytes, camera: str, **changes: Any) -> ManifestEntry:
        """Return a manifest's entry for a recording that the store holds."""
        digest = hashlib.sha256(content).hexdigest()
        receipt = self.receipt(content, camera)
        return replace(ManifestEntry(path, len(content), 0, digest, receipt), **changes)

    def manifest(self, camera: str, *entries: ManifestEntry) -> Manifest:
        """Return a manifest of this visit, not signed yet."""
        return Manifest(self.dock, camera, self.visit, "1", START, "0" * 64, entries)

    def request(
        self, presence: Presence, manifest: Manifest, *, key: SigningKey | None = None
    ) -> WipeRequest:
        """Return the request for a manifest, which is signed here and receipted by the store."""
        signed = sign_manifest(key or self.dock_key, manifest)
        receipt = self.receipt(signed.encode(), presence.camera.camera_id)
        return WipeRequest(presence, self.visit, signed, receipt, START)

    def request_for(self, presence: Presence, contents: Mapping[bytes, bytes]) -> WipeRequest:
        """Return the request to wipe a camera with exactly these files, all of them proved."""
        camera = presence.camera.camera_id
        entries = (self.entry(path, content, camera) for path, content in contents.items())
        return self.request(presence, self.manifest(camera, *entries))
