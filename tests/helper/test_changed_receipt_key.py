"""The store's receipt key was changed: the helper itself follows, from the pinned key on. Guards INV-1."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.cameras.helper_client import HelperClient
from dockd.core.errors import HelperError
from dockd.core.model import WipeReport
from dockd.core.wipe_gate import WipeRefused
from dockd.evidence.keys import SigningKey
from dockd.evidence.succession import name_successor
from tests.helper.conftest import BAY, Rig
from tests.simulated.clock import START

Serve = Callable[[Any], HelperClient]


def never() -> bool:
    return False


def new_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


def statement(rig: Rig, old: SigningKey, new: SigningKey) -> str:
    return name_successor(old, rig.proofs.store_id, new.public, START)


def test_receipts_of_the_pinned_key_and_of_its_successor_erase_together(
    rig: Rig, serve: Serve
) -> None:
    """What was proved before the change needs no new proof; its manifest may be sealed after it."""
    client = serve(rig.actions())
    pinned, successor = rig.proofs.store_key, new_key()
    before = rig.request()
    rig.proofs.store_key = successor
    receipt = rig.proofs.receipt(before.manifest.encode(), before.presence.camera.camera_id)
    request = replace(
        before,
        manifest_receipt=receipt,
        key_statements=(statement(rig, pinned, successor),),
    )
    outcome = client.wipe(BAY, request, never)
    assert isinstance(outcome, WipeReport), outcome
    assert outcome.verified


@pytest.mark.parametrize("vouched", ["by nobody", "by itself", "by the dock"])
def test_a_key_that_the_pinned_one_does_not_vouch_for_erases_nothing(
    rig: Rig, serve: Serve, vouched: str
) -> None:
    client, content = serve(rig.actions()), rig.camera.content()
    rig.proofs.store_key = other = new_key()
    by = {"by itself": other, "by the dock": rig.proofs.dock_key}.get(vouched)
    statements = (statement(rig, by, other),) if by is not None else ()
    outcome = client.wipe(BAY, replace(rig.request(), key_statements=statements), never)
    assert isinstance(outcome, WipeRefused)
    assert {reason.check for reason in outcome.reasons} == {7, 14}
    assert rig.camera.content() == content


def test_a_forged_statement_erases_nothing(rig: Rig, serve: Serve) -> None:
    client, content = serve(rig.actions()), rig.camera.content()
    pinned, other = rig.proofs.store_key, new_key()
    rig.proofs.store_key = other
    header = statement(rig, pinned, new_key()).split(".")[0]
    payload, signature = statement(rig, other, other).split(".")[1:]
    request = replace(rig.request(), key_statements=(f"{header}.{payload}.{signature}",))
    with pytest.raises(HelperError, match="signature is wrong"):
        client.wipe(BAY, request, never)
    assert rig.camera.content() == content
