"""Draws docs/receipt-vectors.json: receipts, with the keys, and what a verifier must make of each.

Ed25519 signs without chance, so the page is the same whenever it is drawn.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.evidence.keys import SigningKey

Json = Mapping[str, Any]


def _key(whose: str) -> SigningKey:
    seed = hashlib.sha256(f"dockd receipt test vectors: {whose}".encode()).digest()
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed))


STORE, DOCK, OTHER = _key("store"), _key("dock"), _key("other")
HEADER = {"alg": "EdDSA", "typ": "dockd-receipt+jwt", "kid": STORE.key_id}
DOCK_HEADER = {**HEADER, "kid": DOCK.key_id}
CLAIMS: dict[str, Any] = {
    "iss": "store-1",
    "iat": 1767225600,
    "jti": "0001",
    "sub": "upload-1",
    "sha256": hashlib.sha256(b"footage").hexdigest(),
    "size": 7,
    "dock": "dock-1",
    "camera": "camera-1",
    "visit": "visit-1",
    "custody_head": "ab" * 32,
}
READBACK = {**CLAIMS, "confirm": "readback"}

Case = tuple[str, str, str | None]
"""Its name, the receipt, and what a message about its fault must hold; None for a sound one."""


def receipt_vectors() -> str:
    """Return the page."""
    pinned = {"receipt": (STORE, _by_receipt()), "readback": (DOCK, _by_readback())}
    page = {
        "about": "Receipts, and what a verifier must make of them. `pinned` is what the verifier was "
        "told: what confirms, and whose key signs. `error` is what the reference implementation's "
        "message holds. The keys are for tests only.",
        "contract": "upload-target.md, 5.1",
        "store_id": CLAIMS["iss"],
        "keys": {
            name: {"jwk": _private_jwk(key), "kid": key.key_id, "public_pem": key.public.pem().decode()}
            for name, key in (("store", STORE), ("dock", DOCK))
        },
        "claims": CLAIMS,
        "cases": [
            {
                "name": name,
                "pinned": {"confirm": confirm, "key": "store" if key is STORE else "dock"},
                "jws": jws,
                "valid": error is None,
                "error": error,
            }
            for confirm, (key, cases) in pinned.items()
            for name, jws, error in cases
        ],
    }  # fmt: skip
    return json.dumps(page, indent=1) + "\n"


def _by_receipt() -> Iterator[Case]:
    good = _jws(HEADER, CLAIMS)
    yield "valid", good, None
    yield "valid, with a claim that is not known", _jws(HEADER, {**CLAIMS, "region": "north"}), None
    nameless = dict.fromkeys(("dock", "camera", "visit", "custody_head"), "")
    client = "valid, given to a client that named no dock, camera or visit"
    yield client, _jws(HEADER, CLAIMS | nameless), None
    empty = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    yield "valid, of an empty recording", _jws(HEADER, CLAIMS | empty), None
    yield from _of_other_keys()
    yield from _altered(good)
    yield from _of_other_forms(good)
    yield from _with_wrong_claims()
    yield "a dock's word instead of the store's", _jws(HEADER, READBACK), "by readback"
    yield "the dock's own receipt", _jws(DOCK_HEADER, READBACK, DOCK), "names the key"
    for word in ("receipt", "checksum", "", None):
        words = f"confirmed by {json.dumps(word)}"
        yield words, _jws(HEADER, {**CLAIMS, "confirm": word}), "'confirm'"


def _by_readback() -> Iterator[Case]:
    yield "valid, by readback", _jws(DOCK_HEADER, READBACK, DOCK), None
    yield "the store's receipt where readback is pinned", _jws(HEADER, CLAIMS), "names the key"
    yield "a store's readback", _jws(HEADER, READBACK), "names the key"
    yield "the dock's key on a store's receipt", _jws(DOCK_HEADER, CLAIMS, DOCK), "by receipt"
    another = _jws(DOCK_HEADER, READBACK | {"iss": "store-2"}, DOCK)
    yield "readback from another target", another, "store-2"


def _of_other_keys() -> Iterator[Case]:
    _, payload, signature = _jws(HEADER, CLAIMS).split(".")
    none = _base64(_json({**HEADER, "alg": "none"}))
    yield "algorithm none, without a signature", f"{none}.{payload}.", "not a compact JWS"
    yield "algorithm none, with the old signature", f"{none}.{payload}.{signature}", "algorithm"
    hs256 = {**HEADER, "alg": "HS256"}
    for what, secret in (
        ("PEM", STORE.public.pem()),
        ("raw bytes", STORE.public.public.public_bytes_raw()),
    ):
        forged = _jws(hs256, CLAIMS, _hmac(secret))
        yield f"HMAC with the public key's {what} as the secret", forged, "algorithm"
    foreign = {**HEADER, "kid": OTHER.key_id}
    pinned = "signed by another key, under the pinned key's name"
    yield pinned, _jws(HEADER, CLAIMS, OTHER), "signature"
    own = "signed by another key, under its own name"
    yield own, _jws(foreign, CLAIMS, OTHER), "names the key"
    brought = _jws({**foreign, "jwk": OTHER.public.jwk()}, CLAIMS, OTHER)
    yield "signed by another key that the header brings along", brought, "names the key"
    nameless = {"alg": "EdDSA", "typ": HEADER["typ"]}
    yield "no key named", _jws(nameless, CLAIMS), "names the key"
    yield "another issuer", _jws(HEADER, CLAIMS | {"iss": "store-2"}), "store-2"


def _altered(good: str) -> Iterator[Case]:
    header, payload, signature = good.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    for what, claims in (("size", {"size": 8}), ("digest", {"sha256": "0" * 64})):
        other = _base64(_json(CLAIMS | claims))
        yield f"altered {what}", f"{header}.{other}.{signature}", "signature"
    flipped = _base64(bytes([raw[0] ^ 1]) + raw[1:])
    yield "altered signature", f"{header}.{payload}.{flipped}", "signature"
    yield "signature cut short", f"{header}.{payload}.{_base64(raw[:63])}", "signature"
    yield "no signature", f"{header}.{payload}.", "not a compact JWS"
    yield "padded with an equals sign", good + "=", "not a compact JWS"
    yield "a line break at the end", good + "\n", "not a compact JWS"
    yield "a fourth part", f"{good}.{signature}", "not a compact JWS"


def _of_other_forms(good: str) -> Iterator[Case]:
    yield "not a JWS at all", "stored, trust me", "not a compact JWS"
    yield "empty", "", "not a compact JWS"
    yield "a manifest's type", _jws({**HEADER, "typ": "dockd-manifest+jwt"}, CLAIMS), "type"
    yield "a general token's type", _jws({**HEADER, "typ": "JWT"}, CLAIMS), "type"
    critical = _jws({**HEADER, "crit": ["exp"], "exp": 1}, CLAIMS)
    yield "an extension that must be understood", critical, "sound JWS"
    _, payload, signature = good.split(".")
    yield "header is not JSON", f"{_base64(b'EdDSA')}.{payload}.{signature}", "sound JWS"
    yield "payload is not JSON", _jws(HEADER, b"stored"), "does not verify"
    yield "payload is a list", _jws(HEADER, [CLAIMS]), "object"
    yield "payload is nested without end", _jws(HEADER, b"[" * 9000), "nested"
    yield "far too long", _jws(HEADER, {**CLAIMS, "note": "x" * 20000}), "too many"


def _with_wrong_claims() -> Iterator[Case]:
    for name in CLAIMS:
        without = {key: value for key, value in CLAIMS.items() if key != name}
        yield f"claim {name} missing", _jws(HEADER, without), repr(name)
    for what, name, value in (
        ("digest in capitals", "sha256", CLAIMS["sha256"].upper()),
        ("digest of another length", "sha256", "ab" * 20),
        ("size as text", "size", "7"),
        ("size as a fraction", "size", 7.5),
        ("size as a boolean", "size", True),
        ("size below zero", "size", -1),
        ("time as text", "iat", "2026-01-01T00:00:00Z"),
        ("time beyond every calendar", "iat", 10**12),
        ("empty receipt id", "jti", ""),
        ("empty upload id", "sub", ""),
        ("camera is null", "camera", None),
    ):
        yield what, _jws(HEADER, {**CLAIMS, name: value}), repr(name)


def _jws(
    header: Json, payload: object, signer: SigningKey | Callable[[bytes], bytes] = STORE
) -> str:
    raw = payload if isinstance(payload, bytes) else _json(payload)
    signed = f"{_base64(_json(header))}.{_base64(raw)}"
    sign = signer.sign if isinstance(signer, SigningKey) else signer
    return f"{signed}.{_base64(sign(signed.encode()))}"


def _hmac(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda data: hmac.digest(secret, data, "sha256")


def _private_jwk(key: SigningKey) -> dict[str, str]:
    return {**key.public.jwk(), "d": _base64(key.private.private_bytes_raw())}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
