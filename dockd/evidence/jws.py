"""Compact JWS (RFC 7515) with EdDSA (RFC 8037), and nothing else: the strict frame of our documents."""

import re

import jwt

from dockd.evidence.keys import SigningKey, VerifyingKey, verifying_key_from_jwk

_ALGORITHM = "EdDSA"
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_JWS = jwt.PyJWS(algorithms=[_ALGORITHM])


class JwsError(ValueError):
    """The text is not a JWS of this type signed by this key; the message says why, on one line."""


def sign(key: SigningKey, typ: str, payload: bytes, *, embed_key: bool = False) -> str:
    """Return a compact JWS over ``payload``, naming its type and key, on request with the key itself."""
    headers: dict[str, object] = {"typ": typ, "kid": key.key_id}
    if embed_key:
        headers["jwk"] = key.public.jwk()
    return _JWS.encode(payload, key.private, algorithm=_ALGORITHM, headers=headers)


def verify(text: str, typ: str, key: VerifyingKey | None) -> bytes:
    """Return the payload of a JWS whose type and signature are right. Raises :class:`JwsError`.

    With ``key`` None the signature is checked against the key that the JWS itself carries: that
    shows that the document is whole, not who wrote it.
    """
    header = _header(text, typ)
    try:
        key = key or _embedded_key(header)
        if header.get("kid") != key.key_id:
            raise JwsError(f"it names the key {header.get('kid')!r}, not {key.key_id}")
        verified = _JWS.decode_complete(text, key.public, algorithms=[_ALGORITHM])
    except jwt.InvalidSignatureError as error:
        raise JwsError("its signature is wrong") from error
    except jwt.InvalidTokenError as error:
        raise JwsError(f"not a sound JWS: {error}") from error
    payload = verified["payload"]
    if not isinstance(payload, bytes):
        raise JwsError("its payload is not bytes")
    return payload


def named_key(text: str) -> str | None:
    """Return the id of the key that a JWS says it is signed with; None when it says nothing."""
    try:
        named = _JWS.get_unverified_header(text.split(".", maxsplit=1)[0] + "..").get("kid")
    except (jwt.InvalidTokenError, RecursionError):
        return None
    return named if isinstance(named, str) else None


def unverified_payload(text: str) -> bytes:
    """Return what a JWS says without asking who signed it. Raises :class:`JwsError`."""
    try:
        payload = _JWS.decode_complete(text, options={"verify_signature": False})["payload"]
    except jwt.InvalidTokenError as error:
        raise JwsError(f"not a sound JWS: {error}") from error
    return bytes(payload)


def stated_payload(text: str, typ: str) -> bytes:
    """Return what a JWS of this type says, without asking who signed it. Raises :class:`JwsError`."""
    if not isinstance(_header(text, typ).get("kid"), str):
        raise JwsError("it names no key")
    return unverified_payload(text)


def _header(text: str, typ: str) -> dict[str, object]:
    """Return the header of a compact JWS whose algorithm and type are right."""
    if not _COMPACT.fullmatch(text):
        raise JwsError("not a compact JWS")
    try:
        # The header without the rest, which may be megabytes and is decoded once, elsewhere.
        header = _JWS.get_unverified_header(text.split(".", maxsplit=1)[0] + "..")
    except jwt.InvalidTokenError as error:
        raise JwsError(f"not a sound JWS: {error}") from error
    if header.get("alg") != _ALGORITHM:
        raise JwsError(f"its algorithm is {header.get('alg')!r}, not {_ALGORITHM}")
    if header.get("typ") != typ:
        raise JwsError(f"its type is {header.get('typ')!r}, not {typ}")
    return header


def _embedded_key(header: dict[str, object]) -> VerifyingKey:
    try:
        return verifying_key_from_jwk(header.get("jwk"))
    except ValueError as error:
        raise JwsError(f"the key in its header is {error}") from error
