"""Receipts that prove something else, or nothing: refused, shown, and never the reason for a wipe."""

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.bay import MAX_DIFFERENCES
from dockd.config import WipeConfig
from dockd.core.interfaces import ShouldStop
from dockd.core.lifecycle import BayState
from dockd.core.model import Appended, Created, ReceiptClaims, UploadKind, WipeReport, WipeRequest
from dockd.core.wipe_gate import WipeRefused
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import sign_receipt
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera
from tests.simulated.store import APPEND, CREATE, RECEIPT, SimulatedStore

Forgery = Callable[[SimulatedStore, ReceiptClaims, str], str]


def claiming(**changes: Any) -> Forgery:
    """A receipt that the store really signs, over other claims."""
    return lambda store, claims, _: sign_receipt(store.key, replace(claims, **changes))


def from_the_future(store: SimulatedStore, claims: ReceiptClaims, _: str) -> str:
    return sign_receipt(
        store.key, replace(claims, issued_at=claims.issued_at + timedelta(hours=10))
    )


def by_another_key(_: SimulatedStore, claims: ReceiptClaims, __: str) -> str:
    return sign_receipt(SigningKey(Ed25519PrivateKey.generate()), claims)


def unsigned(_: SimulatedStore, __: ReceiptClaims, receipt: str) -> str:
    """``alg: none``, RFC 8725 section 2.1."""
    header, payload, _signature = receipt.split(".")
    fields = json.loads(base64.urlsafe_b64decode(header + "=="))
    text = json.dumps({**fields, "alg": "none"}).encode()
    return f"{base64.urlsafe_b64encode(text).rstrip(b'=').decode()}.{payload}."


def keyed_with_what_everyone_knows(store: SimulatedStore, _: ReceiptClaims, receipt: str) -> str:
    """An HMAC with the public key as its secret, RFC 8725 section 2.1."""
    header = jwt.get_unverified_header(receipt)
    claims = jwt.decode(receipt, options={"verify_signature": False})
    secret = base64.b64encode(store.key.public.pem()).decode()
    return jwt.encode(claims, secret, "HS256", headers={"typ": header["typ"], "kid": header["kid"]})


def of_another_recording(store: SimulatedStore, claims: ReceiptClaims, receipt: str) -> str:
    """The first one has none to be taken for."""
    given = [upload.receipt for upload in store.uploads.values() if upload.receipt is not None]
    others = (each for each in given if store.verifier.verify(each).sha256 != claims.sha256)
    return next(others, receipt)


def changed_afterwards(_: SimulatedStore, __: ReceiptClaims, receipt: str) -> str:
    return receipt[:-8] + ("A" if receipt[-8] != "A" else "B") + receipt[-7:]


def cut_short(_: SimulatedStore, __: ReceiptClaims, receipt: str) -> str:
    return receipt[: len(receipt) // 2]


FORGERIES: dict[str, Forgery] = {
    "digest": claiming(sha256="ab" * 32),
    "size": claiming(size_bytes=1),
    "camera": claiming(camera="cam-2"),
    "dock": claiming(dock="dock-8"),
    "issuer": claiming(issuer="another-store"),
    "future": from_the_future,
    "key": by_another_key,
    "none": unsigned,
    "hmac": keyed_with_what_everyone_knows,
    "changed": changed_afterwards,
    "cut": cut_short,
    "other": of_another_recording,
}


def forge(store: SimulatedStore, kind: UploadKind, forgery: Forgery) -> None:
    """Let every answer of the store carry a forged receipt, until it is calm."""

    def forged(receipt: str) -> str:
        upload = next(each for each in store.uploads.values() if each.receipt == receipt)
        if upload.spec.kind is not kind:
            return receipt
        return forgery(store, store.verifier.verify(receipt), receipt)

    def change(answer: object) -> object:
        match answer:
            case Created(receipt=str(receipt)) | Appended(receipt=str(receipt)):
                return replace(answer, receipt=forged(receipt))
            case str():
                return forged(answer)
        return answer

    for verb in (CREATE, APPEND, RECEIPT):
        store.alter_next(verb, change, times=10_000)


@pytest.mark.parametrize("kind", list(UploadKind))
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_receipt_erases_nothing(
    name: str, kind: UploadKind, capfd: pytest.CaptureFixture[str]
) -> None:
    """INV-1: refused, logged and shown; and with the right one all goes on by itself."""

    @virtual_time
    async def run() -> None:
        async with SimulatedDock() as dock:
            forge(dock.store, kind, FORGERIES[name])
            camera = body_camera("cam-1", 10, 9_000)
            before = dict(camera.files)
            dock.source.plug("1", camera)
            await dock.until_state("1", BayState.ATTENTION)
            assert "receipt" in (dock.bay().reason or "")
            refused = [line for line in lines(capfd) if line["event"] == "receipt.refused"]
            assert refused
            assert {line["camera"] for line in refused} == {"cam-1"}
            assert all(line["reason"] for line in refused)
            await asyncio.sleep(2_000)  # it tries again, and is told the same
            assert (camera.files, camera.erased) == (before, [])
            assert dock.bay().visit is not None
            assert dock.bay().visit.finished_at is None  # type: ignore[union-attr]

            dock.store.calm()
            await dock.until_state("1", BayState.READY)
            assert camera.files == {}
            assert len(camera.erased) == 2

    run()


@virtual_time
async def test_a_new_store_key_has_everything_proved_anew_and_nothing_sent_again() -> None:
    """INV-1: receipts of a key that is not pinned any more erase nothing, and are not the end of it."""
    async with SimulatedDock(wipe=WipeConfig(hold_s=600)) as dock:
        camera = body_camera("cam-1", 10, 9_000)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.HOLDING)
        await dock.stop()
        dock.store.renew_key()
        dock.source.authority = replace(dock.source.authority, verifier=dock.store.verifier)
        await dock.start()
        await dock.until_state("1", BayState.READY)
        assert camera.files == {}
        assert len(dock.store.held()) == 2


@virtual_time
async def test_bytes_that_change_before_every_wipe_are_sent_all_the_same() -> None:
    """INV-2: a person is asked in the end, and the last bytes are not left out for that."""
    async with SimulatedDock() as dock:
        camera = body_camera("cam-1", 9_000)
        (file,) = camera.files.values()
        contents = [bytes([number]) * 9_000 for number in range(MAX_DIFFERENCES + 1)]
        coming, wipe = iter(contents), dock.source.wipe

        def wipe_late(request: WipeRequest, should_stop: ShouldStop) -> WipeReport | WipeRefused:
            file.content = next(coming, file.content)
            return wipe(request, should_stop)

        dock.source.wipe = wipe_late  # type: ignore[method-assign]
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.ATTENTION)
        await dock.until_state("1", BayState.READY)
        assert set(contents) < {data for _, data in dock.store.held()}
        assert camera.files == {}


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]
