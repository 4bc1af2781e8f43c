"""Checks of what a target signs, and of what it never may: clauses 2.2, 5 and 8."""

import hashlib
import json
import secrets
from datetime import UTC, datetime

from dockd.core.errors import ReceiptInvalidError, ReceiptKeyUnknownError
from dockd.core.model import Confirm, Manifest, ManifestEntry, ReceiptClaims
from dockd.core.wipe_gate import CLOCK_LEEWAY
from dockd.evidence.jws import JwsError, stated_payload
from dockd.evidence.manifests import sign_manifest
from dockd.evidence.receipts import stated_claims
from dockd.evidence.succession import TYPE as KEY_STATEMENT
from dockd.target.conformance.probe import (
    CAMERA,
    DeviationError,
    NotCheckedError,
    NotOfferedError,
    Probe,
    Reply,
)

RECEIPTS = "dockd-receipt"
LARGE_BYTES = 4 << 20


def sha256(data: bytes) -> bytes:
    """Return the digest of these bytes."""
    return hashlib.sha256(data).digest()


async def states_durability(probe: Probe) -> None:
    """Dockd-Durability states that offsets and receipts survive a power cut (it cannot be tried)."""
    probe.require_offer(RECEIPTS)
    stated = (await probe.options()).headers.get("Dockd-Durability", "")
    missing = {"offset", "receipt"} - {item.strip().lower() for item in stated.split(",")}
    if missing:
        raise NotCheckedError(f"not stated for: {', '.join(sorted(missing))}")


async def signs_what_it_holds(probe: Probe) -> None:
    """The receipt is a JWS of the right form over exactly what was sent, with the metadata's texts."""
    probe.require_offer(RECEIPTS)
    data = secrets.token_bytes(5000)
    url = await probe.send(data)
    reply = (await probe.receipt(url)).require(200)
    if reply.headers.get("Content-Type", "").partition(";")[0] != "application/jwt":
        raise DeviationError(f"{reply.request}: Content-Type is not application/jwt")
    claims = _claims(reply)
    for what, found, wanted in (
        ("sha256", claims.sha256, sha256(data).hex()),
        ("size", claims.size_bytes, len(data)),
        ("dock", claims.dock, probe.subject.dock),
        ("camera", claims.camera, CAMERA),
        ("visit", claims.visit, probe.visit),
        ("custody_head", claims.custody_head, "0" * 64),
        ("confirm", claims.confirm, Confirm.RECEIPT),
    ):
        if found != wanted:
            raise DeviationError(f"the receipt's {what} is {found!r}, not {wanted!r}")
    if claims.issued_at > datetime.now(UTC) + CLOCK_LEEWAY:
        raise DeviationError(f"the receipt is from the future ({claims.issued_at})")


async def signs_with_the_pinned_key(probe: Probe) -> None:
    """The receipt verifies against the pinned store id and key."""
    probe.require_offer(RECEIPTS)
    verifier = probe.subject.verifier
    if verifier is None:
        raise NotCheckedError("needs --receipt-key and --store-id, or --config")
    url = await probe.send(secrets.token_bytes(10))
    receipt = _text((await probe.receipt(url)).require(200))
    try:
        try:
            verifier.verify(receipt)
        except ReceiptKeyUnknownError:
            newer = await probe.receipt_keys()
            if newer.status != 200 or not verifier.learn(_statements(newer)):
                raise
            verifier.verify(receipt)
    except ReceiptInvalidError as error:
        raise DeviationError(str(error)) from None


async def hands_its_key_on(probe: Probe) -> None:
    """Statements about newer receipt keys are sound, and lead from the pinned one."""
    probe.require_offer(RECEIPTS)
    reply = await probe.receipt_keys()
    if reply.status == 404:
        raise NotOfferedError("receipt-keys: not offered")
    statements = _statements(reply.require(200))
    try:
        if probe.subject.verifier is not None:
            probe.subject.verifier.learn(statements)
        for statement in statements:
            stated_payload(statement, KEY_STATEMENT)
    except (ReceiptInvalidError, JwsError) as error:
        raise DeviationError(str(error)) from None


async def says_when_it_is_still_checking(probe: Probe) -> None:
    """Asked at once, the answer is the receipt, or 202 with Retry-After until it is there."""
    probe.require_offer(RECEIPTS)
    url = await probe.send(secrets.token_bytes(LARGE_BYTES))
    reply = (await probe.ask_for_receipt(url)).require(200, 202)
    if reply.status == 202 and not reply.headers.get("Retry-After"):
        raise DeviationError(f"{reply.request}: 202 without Retry-After")
    (await probe.receipt(url)).require(200)


async def signs_nothing_unfinished(probe: Probe) -> None:
    """An upload that is not complete has no receipt: 404."""
    probe.require_offer(RECEIPTS)
    url = await probe.new_upload(10)
    (await probe.ask_for_receipt(url)).require(404)
    (await probe.patch(url, 0, b"nearly!!!")).require(204)
    (await probe.ask_for_receipt(url)).require(404)


async def gives_the_same_receipt_again(probe: Probe) -> None:
    """Whoever asks again gets the same receipt, also by creating the upload again."""
    probe.require_offer(RECEIPTS)
    data, key = secrets.token_bytes(100), secrets.token_hex(16)
    url = await probe.send(data, key=key)
    receipts = [_text((await probe.receipt(url)).require(200)) for _ in range(2)]
    again = (await probe.create(len(data), key=key)).require(201)
    if probe.location(again) != url or again.offset() != len(data):
        raise DeviationError("the same Idempotency-Key did not find the finished upload")
    receipts.append(again.headers.get("Dockd-Receipt", "none"))
    if len(set(receipts)) > 1:
        raise DeviationError("the receipt changed from one answer to the next")


async def answers_with_the_receipt(probe: Probe) -> None:
    """Dockd-Receipt in the last answer, where it comes, is the receipt."""
    probe.require_offer(RECEIPTS)
    data = secrets.token_bytes(10)
    url = await probe.new_upload(len(data))
    last = (await probe.patch(url, 0, data, digest=sha256(data))).require(204)
    probe.is_finished(url, len(data))
    receipt = _text((await probe.receipt(url)).require(200))
    if "Dockd-Receipt" not in last.headers:
        raise NotOfferedError("the receipt was not ready within that answer")
    if last.headers["Dockd-Receipt"] != receipt:
        raise DeviationError("Dockd-Receipt is not the receipt that is given later")


async def signs_each_upload_for_itself(probe: Probe) -> None:
    """Two uploads of the same bytes have two receipts: no jti and no sub twice."""
    probe.require_offer(RECEIPTS)
    data = secrets.token_bytes(10)
    urls = [await probe.send(data) for _ in range(2)]
    first, second = [_claims((await probe.receipt(url)).require(200)) for url in urls]
    if first.receipt_id == second.receipt_id or first.upload_id == second.upload_id:
        raise DeviationError("two uploads share a receipt's jti or sub")


async def refuses_other_bytes(probe: Probe) -> None:
    """Bytes that are not what Repr-Digest says get 409 and no receipt; their key is free again."""
    probe.require_offer(RECEIPTS)
    data, key = secrets.token_bytes(100), secrets.token_hex(16)
    url = await probe.send(data, key=key, digest=sha256(b"tampered"))
    refused = (await probe.receipt(url)).require(409)
    if not isinstance(_json(refused).get("error"), str):
        raise DeviationError(f"{refused.request}: 409 without a JSON object that has an error")
    again = (await probe.create(len(data), key=key)).require(201)
    if probe.location(again) == url:
        raise DeviationError("the key of the refused upload is not free again")


async def confirms_true_manifests(probe: Probe) -> None:
    """A manifest of what is held gets a receipt."""
    probe.require_offer(RECEIPTS)
    data = secrets.token_bytes(100)
    receipt = _text((await probe.receipt(await probe.send(data))).require(200))
    (await _send_manifest(probe, _entry(data, receipt))).require(200)


async def refuses_false_manifests(probe: Probe) -> None:
    """A manifest that lists what is not held, or what its receipt does not cover, gets 409."""
    probe.require_offer(RECEIPTS)
    data = secrets.token_bytes(100)
    receipt = _text((await probe.receipt(await probe.send(data))).require(200))
    for entry in (_entry(data, ""), _entry(b"never sent", receipt)):
        refused = (await _send_manifest(probe, entry)).require(409)
        if not _json(refused).get("missing"):
            raise DeviationError(f"{refused.request}: 409 does not name what is missing")


async def keeps_finished_footage(probe: Probe) -> None:
    """DELETE of finished footage is 403, and the footage stays."""
    probe.require_offer(RECEIPTS)
    url = await probe.send(secrets.token_bytes(10))
    (await probe.receipt(url)).require(200)
    refused = await probe.delete(url)
    (await probe.head(url)).require(200, 204)
    (await probe.ask_for_receipt(url)).require(200)
    refused.require(403)


async def require_held(probe: Probe, url: str, data: bytes) -> None:
    """See that the server holds just these bytes, as far as it gives either receipt or bytes back."""
    if RECEIPTS in probe.offers:
        claims = _claims((await probe.receipt(url)).require(200))
        held = claims.sha256 == sha256(data).hex()
    else:
        reply = await probe.get(url)
        held = reply.status != 200 or reply.body == data
    if not held:
        raise DeviationError("what is held is not what was sent")


async def _send_manifest(probe: Probe, entry: ManifestEntry) -> Reply:
    manifest = Manifest(
        dock=probe.subject.dock,
        camera=CAMERA,
        visit=probe.visit,
        bay="1",
        created_at=datetime.now(UTC),
        custody_head="0" * 64,
        recordings=(entry,),
    )
    body = sign_manifest(probe.subject.key, manifest).encode()
    metadata = {"kind": b"manifest", "filename": f"manifest-{secrets.token_hex(4)}.jws".encode()}
    url = probe.location((await probe.create(len(body), metadata=metadata)).require(201))
    (await probe.patch(url, 0, body, digest=sha256(body))).require(204)
    probe.is_finished(url, len(body))
    return await probe.receipt(url)


def _entry(data: bytes, receipt: str) -> ManifestEntry:
    path = b"dockd-target-check/recording"
    return ManifestEntry(path, len(data), 1_700_000_000_000_000_000, sha256(data).hex(), receipt)


def _claims(reply: Reply) -> ReceiptClaims:
    try:
        return stated_claims(_text(reply))
    except ReceiptInvalidError as error:
        raise DeviationError(f"{reply.request}: {error}") from None


def _text(reply: Reply) -> str:
    return reply.body.decode("ascii", "backslashreplace").strip()


def _statements(reply: Reply) -> list[str]:
    statements = _json(reply).get("statements")
    if not isinstance(statements, list) or not all(isinstance(each, str) for each in statements):
        raise DeviationError(f"{reply.request}: no list of statements")
    return statements


def _json(reply: Reply) -> dict[str, object]:
    try:
        found = json.loads(reply.body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DeviationError(f"{reply.request}: the answer is not a JSON object")
    return found
