"""Successors of a receipt key: each key names the next one, so that pinning the first is enough.

A statement is a compact JWS (RFC 7515) of type ``dockd-receipt-key+jwt``, signed by the key that hands
over. Its claims: ``iss`` the store's id, ``iat`` when, ``old`` the signer's own JWK and ``new`` the JWK of
its successor (RFC 8037). What the old key has signed stays valid. Statements may come from
anywhere: they are believed only as far as they follow, one by one, from a key that is trusted already.
"""

import json
from collections.abc import Sequence
from datetime import datetime

from dockd.core.errors import ReceiptInvalidError
from dockd.evidence import jws as compact
from dockd.evidence.keys import SigningKey, VerifyingKey, verifying_key_from_jwk

TYPE = "dockd-receipt-key+jwt"
MAX_STATEMENTS = 32
MAX_STATEMENT_CHARS = 1000


def name_successor(key: SigningKey, store_id: str, successor: VerifyingKey, at: datetime) -> str:
    """Return the statement by which ``key`` hands over to ``successor``."""
    payload = {
        "iss": store_id,
        "iat": int(at.timestamp()),
        "old": key.public.jwk(),
        "new": successor.jwk(),
    }
    return compact.sign(key, TYPE, json.dumps(payload, separators=(",", ":")).encode())


def follow(
    statements: Sequence[str], store_id: str, pinned: VerifyingKey
) -> tuple[VerifyingKey, ...]:
    """Return the keys of the store from the pinned one to the newest, as the statements prove them.

    Statements that are not by a key of this chain, such as those from before the pinned key, have no
    effect. Raises :class:`ReceiptInvalidError` for one that is by such a key and is not sound, for one that
    leads back, and for too many.
    """
    if len(statements) > MAX_STATEMENTS or any(len(s) > MAX_STATEMENT_CHARS for s in statements):
        raise ReceiptInvalidError(
            "there are too many statements about receipt keys, or too long ones"
        )
    chain = [pinned]
    for statement in statements:
        if compact.named_key(statement) != chain[-1].key_id:
            continue
        successor = _successor(statement, store_id, chain[-1])
        if successor.key_id in {key.key_id for key in chain}:
            raise ReceiptInvalidError("the statements about receipt keys run in a circle")
        chain.append(successor)
    return tuple(chain)


def first_key(statement: str) -> VerifyingKey:
    """Return the key that a statement says it is signed by; for a store that reads its own."""
    return _key(compact.unverified_payload(statement), "old")


def _successor(statement: str, store_id: str, key: VerifyingKey) -> VerifyingKey:
    try:
        payload = compact.verify(statement, TYPE, key)
        issuer = json.loads(payload).get("iss")
        if issuer != store_id:
            raise ReceiptInvalidError(f"a statement about receipt keys is from store {issuer!r}")
        return _key(payload, "new")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ReceiptInvalidError(
            f"a statement about receipt keys is not sound: {error}"
        ) from error


def _key(payload: bytes, name: str) -> VerifyingKey:
    return verifying_key_from_jwk(json.loads(payload).get(name))
