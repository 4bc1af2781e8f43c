"""Questions to the helper from inside the guest, past the daemon; and the proof that they bring."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.model import Manifest
from dockd.evidence.keys import SigningKey
from dockd.evidence.manifests import read_manifest, sign_manifest
from dockd.evidence.receipts import read_receipt, sign_receipt
from tests.e2e.machine import Machine

_HERE = Path(__file__).parent
_SCRIPT = "/usr/local/lib/e2e/ask_helper.py"
_QUESTIONS = "/run/e2e-questions.json"


Question = Mapping[str, str]
Answer = Mapping[str, Any]


def ask_helper(machine: Machine, *questions: Question, user: str = "dockd") -> list[Answer]:
    """Ask as a user, through the package's own client; return what ``ask_helper.py`` says to each."""
    machine.send(
        {
            _SCRIPT: (_HERE / "ask_helper.py").read_bytes(),
            _QUESTIONS: json.dumps(questions).encode(),
        }
    )
    command = f"/usr/lib/dockd/bin/python3 -I {_SCRIPT} < {_QUESTIONS}"
    answers: list[Answer] = json.loads(machine.check(command, user=user))
    return answers


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """A manifest as the dock signed it, and the store's receipt for it."""

    manifest_jws: str
    receipt: str

    @property
    def manifest(self) -> Manifest:
        """What the manifest says."""
        return read_manifest(self.manifest_jws, None)


def to_wipe(bay: str, camera: str, proof: Proof) -> Question:
    """Return the wish to erase a camera on this proof, with its hold said to be over."""
    return {
        "do": "wipe",
        "bay": bay,
        "camera": camera,
        "visit": proof.manifest.visit,
        "manifest": proof.manifest_jws,
        "receipt": proof.receipt,
    }


def composed_anew(
    proof: Proof, store: SigningKey, signer: SigningKey, change: Callable[[str], str]
) -> Proof:
    """Return a proof in which every recording's receipt is changed.

    The manifest fits them and has a receipt in the words of the store, by the key of ``signer``.
    """
    entries = tuple(
        dataclasses.replace(entry, receipt=change(entry.receipt))
        for entry in proof.manifest.recordings
    )
    anybody = SigningKey(Ed25519PrivateKey.generate())
    jws = sign_manifest(anybody, dataclasses.replace(proof.manifest, recordings=entries))
    body = jws.encode()
    claims = dataclasses.replace(
        read_receipt(proof.receipt, store.public),
        sha256=hashlib.sha256(body).hexdigest(),
        size_bytes=len(body),
    )
    return Proof(jws, sign_receipt(signer, claims))


def tampered(jws: str) -> str:
    """Return a signed text that says something else under the same signature."""
    head, payload, signature = jws.split(".")
    said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    other = json.dumps(said | {"jti": "another"}).encode()
    return f"{head}.{base64.urlsafe_b64encode(other).decode().rstrip('=')}.{signature}"
