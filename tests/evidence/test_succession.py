"""Successors of a receipt key: what the pinned key vouches for counts, and nothing else. Guards INV-1."""

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.errors import ReceiptInvalidError, ReceiptKeyUnknownError
from dockd.core.model import Confirm, ReceiptClaims
from dockd.evidence import jws
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import ReceiptVerifier, sign_receipt
from dockd.evidence.succession import MAX_STATEMENTS, TYPE, first_key, follow, name_successor

AT = datetime(2026, 1, 1, tzinfo=UTC)
STORE = "store-1"
KEYS = [SigningKey(Ed25519PrivateKey.generate()) for _ in range(4)]
FIRST, SECOND, THIRD, STRANGER = KEYS
CHAIN = [
    name_successor(FIRST, STORE, SECOND.public, AT),
    name_successor(SECOND, STORE, THIRD.public, AT),
]


def receipt(key: SigningKey, confirm: Confirm = Confirm.RECEIPT) -> str:
    claims = ReceiptClaims(
        issuer=STORE,
        issued_at=AT,
        receipt_id="r",
        upload_id="u",
        sha256="0" * 64,
        size_bytes=1,
        dock="d",
        camera="c",
        visit="v",
        custody_head="",
        confirm=confirm,
    )
    return sign_receipt(key, claims)


def test_the_chain_leads_from_the_pinned_key_to_the_newest() -> None:
    assert follow(CHAIN, STORE, FIRST.public) == (FIRST.public, SECOND.public, THIRD.public)
    assert follow(CHAIN, STORE, SECOND.public) == (SECOND.public, THIRD.public)
    assert follow(CHAIN, STORE, THIRD.public) == (THIRD.public,)
    assert follow([], STORE, FIRST.public) == (FIRST.public,)
    assert first_key(CHAIN[0]) == FIRST.public


def test_a_stranger_leads_nowhere() -> None:
    by_stranger = name_successor(STRANGER, STORE, STRANGER.public, AT)
    assert follow([by_stranger, *CHAIN], STORE, FIRST.public)[-1] == THIRD.public
    assert follow([CHAIN[1]], STORE, FIRST.public) == (FIRST.public,)


def forged(key: SigningKey, kid: str, typ: str = TYPE, **changes: object) -> str:
    payload = {"iss": STORE, "iat": 0, "old": key.public.jwk(), "new": STRANGER.public.jwk()}
    text = jws.sign(key, typ, json.dumps({**payload, **changes}).encode())
    header, rest = text.split(".", maxsplit=1)
    if kid != key.key_id:
        made = jws._JWS.encode(
            b"{}", key.private, algorithm="EdDSA", headers={"typ": typ, "kid": kid}
        )
        header = made.split(".", maxsplit=1)[0]
    return f"{header}.{rest}"


@pytest.mark.parametrize(
    "statement",
    [
        forged(STRANGER, FIRST.key_id),
        forged(FIRST, FIRST.key_id, typ="dockd-receipt+jwt"),
        forged(FIRST, FIRST.key_id, iss="store-2"),
        forged(FIRST, FIRST.key_id, new=None),
        forged(FIRST, FIRST.key_id, new={"kty": "OKP", "crv": "Ed25519", "x": "AA"}),
        name_successor(FIRST, STORE, FIRST.public, AT),
        CHAIN[0][:-4] + "AAAA",
    ],
    ids=["signature", "type", "store", "no key", "odd key", "circle", "tampered"],
)
def test_an_unsound_statement_of_a_trusted_key_stops_everything(statement: str) -> None:
    with pytest.raises(ReceiptInvalidError):
        follow([statement], STORE, FIRST.public)
    verifier = ReceiptVerifier(STORE, FIRST.public)
    with pytest.raises(ReceiptInvalidError):
        verifier.learn([statement])
    with pytest.raises(ReceiptInvalidError):
        verifier.verify(receipt(STRANGER))


def test_a_circle_is_refused() -> None:
    back = name_successor(SECOND, STORE, FIRST.public, AT)
    with pytest.raises(ReceiptInvalidError, match="circle"):
        follow([CHAIN[0], back], STORE, FIRST.public)


def test_their_number_and_length_are_bounded() -> None:
    with pytest.raises(ReceiptInvalidError, match="too many"):
        follow([CHAIN[0]] * (MAX_STATEMENTS + 1), STORE, FIRST.public)
    with pytest.raises(ReceiptInvalidError, match="too long"):
        follow(["x" * 1001], STORE, FIRST.public)
    assert len(CHAIN[0]) < 700


@given(st.lists(st.sampled_from([*CHAIN, "", "a.b.c", "é", forged(STRANGER, STRANGER.key_id)])))
def test_whatever_comes_only_the_pinned_key_and_its_successors_count(texts: list[str]) -> None:
    try:
        chain = follow(texts, STORE, FIRST.public)
    except ReceiptInvalidError:
        return
    assert chain in [tuple(key.public for key in KEYS[:count]) for count in (1, 2, 3)]


def test_receipts_of_all_keys_of_the_chain_verify() -> None:
    verifier = ReceiptVerifier(STORE, FIRST.public, statements=CHAIN)
    for key in (FIRST, SECOND, THIRD):
        assert verifier.verify(receipt(key)).issuer == STORE
    with pytest.raises(ReceiptKeyUnknownError):
        verifier.verify(receipt(STRANGER))


def test_what_was_learnt_is_not_forgotten() -> None:
    verifier = ReceiptVerifier(STORE, FIRST.public)
    with pytest.raises(ReceiptKeyUnknownError):
        verifier.verify(receipt(SECOND))
    assert [verifier.learn(CHAIN[:count]) for count in (0, 1, 1, 2)] == [False, True, False, True]
    assert verifier.learn([]) is False
    assert verifier.statements == tuple(CHAIN)
    assert verifier.newest == THIRD.public
    assert verifier.verify(receipt(THIRD)).issuer == STORE


def test_a_dock_that_confirms_for_itself_follows_nobody() -> None:
    """INV-1: with readback, no statement makes another key count."""
    verifier = ReceiptVerifier(STORE, FIRST.public, Confirm.READBACK, CHAIN)
    assert verifier.learn(CHAIN) is False
    with pytest.raises(ReceiptKeyUnknownError):
        verifier.verify(receipt(SECOND, Confirm.READBACK))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_order_is_that_of_the_chain(order: tuple[int, ...]) -> None:
    chain = follow([CHAIN[number] for number in order], STORE, FIRST.public)
    assert chain[-1] == (THIRD.public if order == (0, 1) else SECOND.public)
