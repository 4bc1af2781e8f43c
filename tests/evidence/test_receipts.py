import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.errors import ReceiptInvalidError
from dockd.core.model import Confirm, ReceiptClaims
from dockd.evidence.keys import SigningKey, verifying_key_from_jwk
from dockd.evidence.receipts import ReceiptVerifier, prove, sign_receipt

VECTORS = json.loads((Path(__file__).parents[2] / "docs/receipt-vectors.json").read_text())
KEYS = {
    name: verifying_key_from_jwk({part: key["jwk"][part] for part in ("kty", "crv", "x")})
    for name, key in VECTORS["keys"].items()
}
KEY = SigningKey(Ed25519PrivateKey.generate())
ISSUED = datetime(2026, 1, 1, tzinfo=UTC)
CLAIMS = ReceiptClaims(
    issuer="store-1",
    issued_at=ISSUED,
    receipt_id="0001",
    upload_id="upload-1",
    sha256="ab" * 32,
    size_bytes=7,
    dock="dock-1",
    camera="camera-1",
    visit="visit-1",
    custody_head="cd" * 32,
)
PROVED: dict[str, Any] = {
    "dock": "dock-1",
    "camera": "camera-1",
    "sha256": "ab" * 32,
    "size_bytes": 7,
    "now": ISSUED,
}


def verifier_of(case: dict[str, Any]) -> ReceiptVerifier:
    """Return what a verifier is that was told what the case says."""
    pinned = case["pinned"]
    return ReceiptVerifier(VECTORS["store_id"], KEYS[pinned["key"]], Confirm(pinned["confirm"]))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    """INV-1: only a receipt that is right in every part verifies."""
    verifier = verifier_of(case)
    if case["valid"]:
        claims = verifier.verify(case["jws"])
        assert claims.upload_id == VECTORS["claims"]["sub"]
        assert claims.confirm is verifier.confirm
    else:
        with pytest.raises(ReceiptInvalidError) as caught:
            verifier.verify(case["jws"])
        assert case["error"] in str(caught.value)


def test_the_keys_are_those_that_their_names_say() -> None:
    for name, key in VECTORS["keys"].items():
        assert KEYS[name].key_id == key["kid"]
        assert KEYS[name].pem().decode() == key["public_pem"]


def test_a_sound_receipt_of_one_kind_is_none_of_the_other() -> None:
    """INV-1: whatever key is pinned, a receipt never passes for the kind that it is not."""
    valid = [case for case in VECTORS["cases"] if case["valid"]]
    assert {case["pinned"]["confirm"] for case in valid} == set(Confirm)
    for case in valid:
        verifier = verifier_of(case)
        (other,) = set(Confirm) - {verifier.confirm}
        with pytest.raises(ReceiptInvalidError, match=f"by {verifier.confirm}, and only {other}"):
            ReceiptVerifier(verifier.store_id, verifier.key, other).verify(case["jws"])


def test_vector_has_the_claims_it_says() -> None:
    wire = VECTORS["claims"]
    verifier = ReceiptVerifier("store-1", KEYS["store"])
    assert verifier.verify(VECTORS["cases"][0]["jws"]) == ReceiptClaims(
        issuer=wire["iss"],
        issued_at=ISSUED,
        receipt_id=wire["jti"],
        upload_id=wire["sub"],
        sha256=wire["sha256"],
        size_bytes=wire["size"],
        dock=wire["dock"],
        camera=wire["camera"],
        visit=wire["visit"],
        custody_head=wire["custody_head"],
    )


@given(
    claims=st.builds(
        ReceiptClaims,
        issuer=st.just("store-1"),
        issued_at=st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 (a bound)
            lambda at: at.replace(microsecond=0)
        ),
        receipt_id=st.text(min_size=1, max_size=50),
        upload_id=st.text(min_size=1, max_size=50),
        sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
        size_bytes=st.integers(0, 2**63),
        dock=st.text(max_size=50),
        camera=st.text(max_size=50),
        visit=st.text(max_size=50),
        custody_head=st.text(max_size=64),
        confirm=st.sampled_from(Confirm),
    )
)
def test_claims_come_back_as_they_were_signed(claims: ReceiptClaims) -> None:
    verifier = ReceiptVerifier("store-1", KEY.public, claims.confirm)
    assert verifier.verify(sign_receipt(KEY, claims)) == claims


@given(position=st.integers(0), character=st.characters(codec="ascii"))
def test_any_other_character_anywhere_is_found(position: int, character: str) -> None:
    """INV-1: a receipt with one character changed proves nothing."""
    receipt = sign_receipt(KEY, CLAIMS)
    position %= len(receipt)
    altered = receipt[:position] + character + receipt[position + 1 :]
    verifier = ReceiptVerifier("store-1", KEY.public)
    if altered == receipt:
        return
    with pytest.raises(ReceiptInvalidError):
        verifier.verify(altered)


def test_proof_that_fits() -> None:
    prove(CLAIMS, **PROVED)
    prove(replace(CLAIMS, issued_at=ISSUED + timedelta(minutes=5)), **PROVED)


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        (replace(CLAIMS, sha256="ac" * 32), "digest"),
        (replace(CLAIMS, size_bytes=8), "size"),
        (replace(CLAIMS, dock="dock-2"), "dock"),
        (replace(CLAIMS, camera="camera-2"), "camera"),
        (replace(CLAIMS, issued_at=ISSUED + timedelta(minutes=5, seconds=1)), "future"),
    ],
)
def test_proof_of_something_else_is_refused(claims: ReceiptClaims, word: str) -> None:
    """INV-1: a sound receipt for other bytes, another camera or another time proves nothing."""
    with pytest.raises(ReceiptInvalidError, match=word):
        prove(claims, **PROVED)
