"""A manifest is signed for only when every recording on it is really held."""

import asyncio
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.model import Manifest, ManifestEntry
from dockd.evidence.keys import SigningKey, load_or_create_key
from dockd.evidence.manifests import sign_manifest
from dockd.evidence.receipts import sign_receipt
from dockd.store import finishing
from dockd.store.catalogue import Upload
from tests.store.tus import (
    CAMERA,
    DOCK,
    VISIT,
    Answer,
    Tus,
    as_arguments,
    objects_in,
    repr_digest,
    sha256_hex,
    upload_metadata,
)

KEY = SigningKey(Ed25519PrivateKey.generate())
RECORDINGS = {b"one.mp4": b"one", b"two\xff.mp4": b"two", b"empty.mp4": b""}


def entry(path: bytes, content: bytes, receipt: str) -> ManifestEntry:
    return ManifestEntry(path, len(content), 0, sha256_hex(content), receipt)


async def held(tus: Tus) -> Manifest:
    """Upload the recordings and return the manifest that lists them."""
    entries = []
    for path, content in RECORDINGS.items():
        answer = await tus.send(content, upload_metadata(filename=path))
        entries.append(entry(path, content, answer.receipt))
    return Manifest(DOCK, CAMERA, VISIT, "1", datetime.now(UTC), "0" * 64, tuple(entries))


async def send(
    tus: Tus, manifest: Manifest | str, dock: str = DOCK, camera: str = CAMERA, visit: str = VISIT
) -> Answer:
    text = manifest if isinstance(manifest, str) else sign_manifest(KEY, manifest)
    fields = upload_metadata(
        filename=b"manifest", kind="manifest", dock=dock, camera=camera, visit=visit
    )
    return await tus.send(text.encode(), fields)


async def refusal(tus: Tus, answer: Answer) -> dict[str, Any]:
    """Return why a manifest was refused; there is no receipt for it, and its bytes are kept."""
    assert "Dockd-Receipt" not in answer.headers
    receipt = await tus.receipt(answer.headers["Location"])
    assert receipt.status == 409
    body = json.loads(receipt.text)
    assert isinstance(body, dict)
    return body


async def test_a_manifest_whose_recordings_are_held_is_signed_for(tus: Tus) -> None:
    """INV-1."""
    manifest = await held(tus)
    answer = await send(tus, manifest)
    text = sign_manifest(KEY, manifest).encode()
    assert tus.verifier.verify(answer.receipt).sha256 == sha256_hex(text)


async def test_a_good_manifest_that_is_not_the_one_announced_is_refused(tus: Tus) -> None:
    """INV-1: that it lists nothing missing does not make up for a wrong digest."""
    text = sign_manifest(KEY, await held(tus)).encode()
    wrong = as_arguments(repr_digest(b"another manifest"))
    answer = await tus.send(text, upload_metadata(kind="manifest"), **wrong)
    body = await refusal(tus, answer)
    assert sha256_hex(text) in body["error"]


async def test_one_manifest_that_breaks_the_check_does_not_hold_up_others(
    tus: Tus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-8: not even a fault of our own in reading it does."""

    def break_down(content: bytes, upload: Upload) -> Manifest:
        raise RuntimeError("a fault of our own")

    with monkeypatch.context() as patch:
        patch.setattr(finishing, "open_manifest", break_down)
        answers = await asyncio.gather(
            send(tus, "broken"), *(tus.send(f"recording {n}".encode()) for n in range(20))
        )
        assert sum("Dockd-Receipt" in answer.headers for answer in answers) == 20
    await refusal(tus, answers[0])


async def test_an_object_that_is_gone_is_missed(tus: Tus, data_dir: Path) -> None:
    """INV-1, INV-2: the answer names what is missing."""
    manifest = await held(tus)
    digest = sha256_hex(RECORDINGS[b"one.mp4"])
    next((data_dir / "objects").glob(f"*/*/{digest}")).unlink()
    body = await refusal(tus, await send(tus, manifest))
    assert body["missing"] == ["one.mp4: its object is not on the store's disk"]
    assert "1 of 3" in str(body["error"])
    assert (data_dir / "quarantine").exists()


async def test_an_object_of_another_size_is_missed(tus: Tus, data_dir: Path) -> None:
    """INV-1."""
    manifest = await held(tus)
    digest = sha256_hex(RECORDINGS[b"one.mp4"])
    path = next((data_dir / "objects").glob(f"*/*/{digest}"))
    path.chmod(0o600)
    path.write_bytes(b"on")
    body = await refusal(tus, await send(tus, manifest))
    assert body["missing"] == ["one.mp4: its object is not on the store's disk"]


async def test_receipts_that_do_not_prove_are_missed(tus: Tus) -> None:
    """INV-1: forged, of another recording, of another camera, of an upload that never was."""
    manifest = await held(tus)
    first = manifest.recordings[0]
    claims = tus.verifier.verify(first.receipt)
    elsewhere = await tus.send(b"one", upload_metadata(camera="camera-2"))
    for receipt, reason in (
        ("", "not a compact JWS"),
        (sign_receipt(KEY, claims), "names the key"),
        (first.receipt[:-6] + "AAAAAA", "does not verify"),
        (manifest.recordings[1].receipt, "covers other bytes"),
        (elsewhere.receipt, "for another camera"),
    ):
        forged = replace(manifest, recordings=(replace(first, receipt=receipt),))
        body = await refusal(tus, await send(tus, forged))
        [missing] = body["missing"]
        assert reason in missing


async def test_a_receipt_for_an_upload_that_the_catalogue_lost_is_missed(
    tus: Tus, data_dir: Path
) -> None:
    """INV-1: a store restored from an old backup signs only for what it has."""
    manifest = await held(tus)
    first = manifest.recordings[0]
    claims = replace(tus.verifier.verify(first.receipt), upload_id="0" * 32)
    own = sign_receipt(load_or_create_key(data_dir / "receipt-key.pem"), claims)
    body = await refusal(
        tus, await send(tus, replace(manifest, recordings=(replace(first, receipt=own),)))
    )
    assert "no finished upload" in str(body["missing"])


async def test_a_receipt_that_does_not_match_its_own_upload_is_missed(
    tus: Tus, data_dir: Path
) -> None:
    """INV-1: the catalogue's row counts, not only the claim."""
    manifest = await held(tus)
    one, two = manifest.recordings[0], manifest.recordings[1]
    other = tus.verifier.verify(two.receipt).upload_id
    claims = replace(tus.verifier.verify(one.receipt), upload_id=other)
    own = sign_receipt(load_or_create_key(data_dir / "receipt-key.pem"), claims)
    body = await refusal(
        tus, await send(tus, replace(manifest, recordings=(replace(one, receipt=own),)))
    )
    assert "is something else" in str(body["missing"])


@pytest.mark.parametrize("who", ["dock", "camera", "visit"])
async def test_a_manifest_of_somebody_else_is_refused(tus: Tus, who: str) -> None:
    manifest = await held(tus)
    body = await refusal(tus, await send(tus, manifest, **{who: "another"}))
    assert who in str(body["error"])


async def test_what_is_no_manifest_is_refused(tus: Tus, data_dir: Path) -> None:
    """INV-2: it is kept in quarantine with the reason."""
    good = sign_manifest(KEY, await held(tus))
    header, payload, signature = good.split(".")
    changed = base64.urlsafe_b64encode(b'{"v":1}').rstrip(b"=").decode()
    for text in (
        "",
        "not a manifest",
        "é",
        f"{header}.{changed}.{signature}",
        f"{header}.{payload}.{signature[:-4]}AAAA",
        good + "\n",
    ):
        body = await refusal(tus, await send(tus, text))
        assert "manifest" in str(body["error"])
    assert len(list((data_dir / "quarantine").glob("*.json"))) == 6
    assert sha256_hex(good.encode()) not in objects_in(data_dir)


async def test_a_manifest_may_be_sent_again_once_all_is_held(tus: Tus, data_dir: Path) -> None:
    manifest = await held(tus)
    digest = sha256_hex(RECORDINGS[b"one.mp4"])
    path = next((data_dir / "objects").glob(f"*/*/{digest}"))
    moved = path.rename(data_dir / "aside")
    fields = upload_metadata(kind="manifest")
    text = sign_manifest(KEY, manifest).encode()
    refused = await tus.send(text, fields, Idempotency_Key="manifest")
    await refusal(tus, refused)
    moved.rename(path)
    again = await tus.send(text, fields, Idempotency_Key="manifest")
    assert again.headers["Location"] != refused.headers["Location"]
    assert again.receipt
