"""The suite of ``dockd target check``: honest servers pass it, and each check finds its own lie."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from multidict import CIMultiDict

from dockd.core.errors import TargetError, TargetUnavailableError
from dockd.core.model import Confirm, ReceiptClaims, TargetProperties
from dockd.evidence.keys import SigningKey, load_verifying_key, parse_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.store.receipt_keys import rotate_receipt_key
from dockd.store.serve import Store
from dockd.target.conformance.probe import Probe, Subject
from dockd.target.conformance.suite import CHECKS, Check, Outcome, check_target
from tests.enrolment.docks import enrolling_store
from tests.simulated.store import SimulatedStore, SimulatedUpload
from tests.simulated.wire import Handler, Spoil, Wire
from tests.store.tus import QUICK

PAGE = Path(__file__).parents[2] / "docs/upload-target.md"
KEY = SigningKey(Ed25519PrivateKey.generate())
BY_NAME: Mapping[str, Check] = {check.name: check for check in CHECKS}


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return datetime.now(UTC).timestamp()


def simulated(**store: float | TargetProperties) -> Wire:
    return Wire(SimulatedStore(RealClock(), **store))  # type: ignore[arg-type]


# Honest servers


async def test_our_store_keeps_every_clause(tmp_path: Path) -> None:
    """All but the one that only targets without receipts need."""
    async with Store.running(tmp_path / "store", settings=QUICK) as store:
        verifier = ReceiptVerifier(store.store_id, load_verifying_key(store.receipt_key))
        report = await check_target(Subject(store.url, KEY, verifier=verifier, patience_s=20))
    others = {each.check.name: each.outcome for each in report.results}
    assert others.pop("gives_bytes_back") is Outcome.NOT_OFFERED
    assert others.pop("states_durability") is Outcome.STATED
    assert {name for name, outcome in others.items() if outcome is not Outcome.PASSED} == set()
    assert (report.conforms, report.confirms_by) == (True, ("receipt",))


async def test_a_store_that_knows_its_docks_keeps_every_clause(tmp_path: Path) -> None:
    """Over mTLS, as an enrolled dock; and after its receipt key has changed."""
    async with enrolling_store(tmp_path / "store") as site:
        dock = await site.new_dock("dock-1")
        pinned = parse_verifying_key(dock.answer.receipt_key.encode())
        subject = Subject(
            site.store.url,
            dock.key,
            dock="dock-1",
            connection=dock.files(tmp_path / "dock"),
            verifier=ReceiptVerifier(site.store.store_id, pinned),
            patience_s=20,
        )
        assert await failures(subject) == {}
        rotate_receipt_key(site.layout, site.store.store_id, datetime.now(UTC))
        newer = replace(subject, verifier=ReceiptVerifier(site.store.store_id, pinned))
        assert await failures(newer) == {}
        assert newer.verifier is not None
        assert newer.verifier.newest != pinned
        stranger = replace(
            subject, connection=replace(subject.connection, certificate=None, private_key=None)
        )
        with pytest.raises(TargetError):
            await check_target(stranger)


async def failures(subject: Subject) -> dict[str, str]:
    report = await check_target(subject)
    return {
        each.check.name: each.words for each in report.results if each.outcome is Outcome.FAILED
    }


async def test_a_store_whose_uploads_expire_soon_is_seen_to_drop_them(tmp_path: Path) -> None:
    settings = replace(QUICK, expire_after=timedelta(seconds=1.5), sweep_s=0.2)
    async with Store.running(tmp_path / "store", settings=settings) as store:
        assert await outcome_of("lets_unfinished_uploads_expire", store.url) is Outcome.PASSED


@pytest.mark.parametrize("checking_s", [0.0, 0.2])
async def test_the_simulated_store_keeps_every_clause_that_it_offers(checking_s: float) -> None:
    """The model of the contract and the contract agree."""
    wire = simulated(checking_s=checking_s)
    async with wire.served() as url:
        report = await check_target(Subject(url, KEY, verifier=wire.store.verifier, patience_s=10))
    missing = {
        each.check.name: each.words for each in report.results if each.outcome is Outcome.FAILED
    }
    assert missing == {}
    assert report.confirms_by == ("receipt", "readback")
    for name in ("lets_unfinished_uploads_expire", "hands_its_key_on"):
        assert report.outcome(name) is Outcome.NOT_OFFERED


async def test_a_target_without_receipts_fails_nothing_that_it_does_not_offer() -> None:
    """INV-1: and it is not said to confirm."""
    wire = simulated(
        properties=TargetProperties(
            creation_with_upload=False, checksum_sha256=False, receipts=False
        )
    )
    wire.gives_back = False
    async with wire.served() as url:
        report = await check_target(Subject(url, KEY, patience_s=10))
    assert (report.conforms, report.confirms_by) == (True, ())
    offered = {each.check.clause for each in report.results if each.outcome is Outcome.PASSED}
    assert offered == {
        "§2.1", "§3.1", "§4.1", "§3.2", "§3.5", "§4.2", "§4.9", "§4.5", "§4.7", "§3.3"
    }  # fmt: skip


async def test_what_the_check_leaves_behind_is_told_and_the_rest_is_cleared_away() -> None:
    wire = simulated()
    async with wire.served() as url:
        report = await check_target(Subject(url, KEY, patience_s=10))
    uploads = wire.store.uploads.values()
    held = [upload for upload in uploads if upload.complete]
    refused = [upload for upload in held if upload.rejected]
    assert len(held) == report.left[0]
    assert sum(len(upload.data) for upload in held) == report.left[1]
    assert len(refused) == 3
    assert [upload for upload in uploads if not upload.complete] == []


async def test_a_server_that_is_not_there_is_no_result() -> None:
    with pytest.raises(TargetUnavailableError):
        await check_target(Subject("http://127.0.0.1:1/files/", KEY))


# Lies, each of one clause

Answer = web.StreamResponse


def answering(method: str, change: Callable[[Answer], None]) -> Spoil:
    """Change each answer to a method."""

    async def spoil(request: web.Request, handler: Handler) -> Answer:
        answer = await handler(request)
        if request.method == method:
            change(answer)
        return answer

    return spoil


def saying(method: str, status: int, to: str = "") -> Spoil:
    """Answer a method, of addresses that end so, with a status and nothing else."""

    async def spoil(request: web.Request, handler: Handler) -> Answer:
        if request.method == method and request.path.endswith(to):
            return web.Response(status=status)
        return await handler(request)

    return spoil


def instead(before: int, after: int, method: str) -> Spoil:
    """Answer a method with another status than there would be."""

    async def spoil(request: web.Request, handler: Handler) -> Answer:
        answer = await handler(request)
        if request.method == method and answer.status == before:
            return web.Response(status=after, headers=_without(answer.headers, "Content-Length"))
        return answer

    return spoil


def field(method: str, name: str, value: str | None) -> Spoil:
    """Set a header field in the answers to a method, or remove it."""

    def change(answer: Answer) -> None:
        if name in answer.headers:
            del answer.headers[name]
        if value is not None:
            answer.headers[name] = value

    return answering(method, change)


def deaf_to(name: str) -> Spoil:
    """Never see this field of a request."""

    async def spoil(request: web.Request, handler: Handler) -> Answer:
        return await handler(_renewed(request, _without(request.headers, name)))

    return spoil


def hearing(name: str, change: Callable[[str], str]) -> Spoil:
    """See another value of a field of each request."""

    async def spoil(request: web.Request, handler: Handler) -> Answer:
        headers = CIMultiDict(request.headers)
        if name in headers:
            headers[name] = change(headers[name])
        return await handler(_renewed(request, headers))

    return spoil


def _renewed(request: web.Request, headers: CIMultiDict[str]) -> web.Request:
    renewed = request.clone(headers=headers)
    renewed._match_info = request._match_info
    return renewed


def _without(headers: Mapping[str, str], name: str) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    kept.popall(name, None)
    return kept


Make = Callable[[Wire], Spoil | None]
"""Makes a lie for a simulated store, in the wire or in the store itself."""


def by_wire(spoil: Spoil) -> Make:
    return lambda _: spoil


def by_claims(**changes: object) -> Make:
    """Sign other claims than are so."""

    def make(wire: Wire) -> None:
        honest = wire.store.claims

        def claims(upload: SimulatedUpload, sha256: str) -> ReceiptClaims:
            return replace(honest(upload, sha256), **changes)  # type: ignore[arg-type]

        wire.store.claims = claims  # type: ignore[method-assign]

    return make


def with_another_key(wire: Wire) -> None:
    wire.store.key = SigningKey(Ed25519PrivateKey.generate())


def forgetting_receipts(wire: Wire) -> Spoil:
    """Sign anew for whoever asks."""
    number = iter(range(1000))
    honest = wire.store.claims
    wire.store.claims = lambda upload, sha256: replace(  # type: ignore[method-assign]
        honest(upload, sha256), receipt_id=f"r{next(number)}"
    )

    async def spoil(request: web.Request, handler: Handler) -> Answer:
        for upload in wire.store.uploads.values():
            upload.receipt = None
        return await handler(request)

    return spoil


def taking_any_offset(wire: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        upload = wire.store.uploads.get(_sim_url(wire, request))
        if request.method != "PATCH" or upload is None:
            return await handler(request)
        headers = CIMultiDict(request.headers)
        headers["Upload-Offset"] = str(len(upload.data))
        return await handler(_renewed(request, headers))

    return spoil


def losing_what_came(wire: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        upload = wire.store.uploads.get(_sim_url(wire, request))
        if request.method == "HEAD" and upload is not None and not upload.complete:
            upload.data.clear()
        return await handler(request)

    return spoil


def never_locking(wire: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        upload = wire.store.uploads.get(_sim_url(wire, request))
        if request.method == "PATCH" and upload is not None and upload.locked:
            upload.locked = False
            upload.data.clear()
        return await handler(request)

    return spoil


def locking_for_ever(wire: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        upload = wire.store.uploads.get(_sim_url(wire, request))
        if request.method == "HEAD" and upload is not None and len(upload.data) > 0:
            return web.Response(status=423)
        return await handler(request)

    return spoil


def deleting(wire: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        if request.method == "DELETE":
            wire.store.forget(_sim_url(wire, request))
            return web.Response(status=204)
        return await handler(request)

    return spoil


def signing_any_manifest(wire: Wire) -> Spoil:
    del wire
    return hearing("Upload-Metadata", lambda text: text.replace("bWFuaWZlc3Q=", "cmVjb3JkaW5n"))


def refusing_every_manifest(wire: Wire) -> None:
    wire.store._holds = lambda entry: entry is None  # type: ignore[method-assign]


def giving_back(change: Callable[[bytes], bytes]) -> Make:
    def make(wire: Wire) -> None:
        wire.store.alter_next("content", change, times=100)

    return make


def stating(text: str) -> Make:
    """Say so of newer receipt keys."""

    async def spoil(request: web.Request, handler: Handler) -> Answer:
        if request.path.endswith("/receipt-keys"):
            return web.Response(text=text)
        return await handler(request)

    return by_wire(spoil)


def never_done(_: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        if request.path.endswith("/receipt"):
            return web.Response(status=202, headers={"Retry-After": "1"})
        return await handler(request)

    return spoil


def expiring(value: str) -> Make:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        answer = await handler(request)
        if request.method == "OPTIONS":
            answer.headers["Tus-Extension"] += ",expiration"
        answer.headers["Upload-Expires"] = value
        return answer

    return by_wire(spoil)


def _sim_url(wire: Wire, request: web.Request) -> str:
    return f"sim://{wire.store.store_id}/files/{request.match_info.get('number', '')}"


def refusing_without_metadata(_: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        if request.method == "POST" and "dock" not in request.headers.get("Upload-Metadata", ""):
            return web.Response(status=400)
        return await handler(request)

    return spoil


def refusing_empty_uploads(_: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        if request.headers.get("Upload-Length") == "0":
            return web.Response(status=400)
        return await handler(request)

    return spoil


def keeping_too_much(wire: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        answer = await handler(request)
        if answer.status == 413:
            upload = wire.store.uploads[_sim_url(wire, request)]
            upload.data += bytes(upload.spec.size_bytes)
        return answer

    return spoil


def ignoring_bodies(_: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        if request.method != "POST" or not request.body_exists:
            return await handler(request)
        await request.read()
        answer = await handler(request)
        answer.headers["Upload-Offset"] = "0"
        return answer

    return spoil


def unfinished_is_pending(wire: Wire) -> Spoil:
    async def spoil(request: web.Request, handler: Handler) -> Answer:
        upload = wire.store.uploads.get(_sim_url(wire, request))
        if request.path.endswith("/receipt") and upload is not None and not upload.complete:
            return web.Response(status=202, headers={"Retry-After": "1"})
        return await handler(request)

    return spoil


FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
LIES: list[tuple[str, str, Make]] = [
    ("names_what_it_offers", "no creation", by_wire(field("OPTIONS", "Tus-Extension", "checksum"))),
    ("names_what_it_offers", "old tus", by_wire(field("OPTIONS", "Tus-Version", "0.2.2"))),
    ("names_what_it_offers", "status", by_wire(instead(204, 302, "OPTIONS"))),
    ("creates_uploads", "status", by_wire(instead(201, 200, "POST"))),
    ("creates_uploads", "elsewhere", by_wire(field("POST", "Location", "https://else.example/1"))),
    ("creates_uploads", "nowhere", by_wire(field("POST", "Location", None))),
    ("creates_uploads", "not empty", by_wire(field("HEAD", "Upload-Offset", "3"))),
    ("takes_bytes", "status", by_wire(instead(204, 200, "PATCH"))),
    ("takes_bytes", "no offset", by_wire(field("PATCH", "Upload-Offset", None))),
    ("takes_bytes", "no length", by_wire(field("HEAD", "Upload-Length", None))),
    ("takes_bytes", "other length", by_wire(field("HEAD", "Upload-Length", "999"))),
    ("takes_any_name", "forgotten", by_wire(field("HEAD", "Upload-Metadata", None))),
    ("takes_any_name", "other", by_wire(field("HEAD", "Upload-Metadata", "filename eA=="))),
    ("takes_any_name", "not base64", by_wire(field("HEAD", "Upload-Metadata", "filename ?"))),
    ("takes_little_metadata", "refused", refusing_without_metadata),
    ("takes_empty_recordings", "refused", refusing_empty_uploads),
    ("takes_empty_recordings", "unsigned", by_wire(saying("GET", 404, "/receipt"))),
    ("refuses_wrong_offsets", "status", by_wire(instead(409, 400, "PATCH"))),
    ("refuses_wrong_offsets", "taken", taking_any_offset),
    ("refuses_too_many_bytes", "taken", by_wire(instead(413, 204, "PATCH"))),
    ("refuses_too_many_bytes", "kept", keeping_too_much),
    ("knows_what_it_does_not_have", "HEAD", by_wire(instead(404, 403, "HEAD"))),
    ("knows_what_it_does_not_have", "PATCH", by_wire(instead(404, 409, "PATCH"))),
    ("knows_what_it_does_not_have", "receipt", by_wire(instead(404, 202, "GET"))),
    ("goes_on_after_a_break", "lost", losing_what_came),
    ("goes_on_after_a_break", "locked", locking_for_ever),
    ("lets_one_request_write", "mixed", never_locking),
    ("lets_unfinished_uploads_expire", "no date", expiring("soon")),
    ("lets_unfinished_uploads_expire", "past", expiring("Sat, 01 Jan 2000 00:00:00 GMT")),
    ("takes_bytes_with_creation", "ignored", ignoring_bodies),
    ("finds_altered_bytes", "not looked at", by_wire(deaf_to("Upload-Checksum"))),
    ("finds_altered_bytes", "status", by_wire(instead(460, 400, "PATCH"))),
    ("finds_altered_creations", "not looked at", by_wire(deaf_to("Upload-Checksum"))),
    ("creates_once", "twice", by_wire(deaf_to("Idempotency-Key"))),
    ("creates_once", "offset", by_wire(field("POST", "Upload-Offset", "0"))),
    ("loses_no_answer", "twice", by_wire(deaf_to("Idempotency-Key"))),
    (
        "keeps_docks_apart", "mixed up",
        by_wire(hearing("Upload-Metadata", lambda text: re.sub(r"dock [^,]+", "dock eA==", text))),
    ),
    ("signs_what_it_holds", "digest", by_claims(sha256="ab" * 32)),
    ("signs_what_it_holds", "size", by_claims(size_bytes=1)),
    ("signs_what_it_holds", "dock", by_claims(dock="other")),
    ("signs_what_it_holds", "camera", by_claims(camera="other")),
    ("signs_what_it_holds", "visit", by_claims(visit="other")),
    ("signs_what_it_holds", "custody", by_claims(custody_head="")),
    ("signs_what_it_holds", "confirm", by_claims(confirm=Confirm.READBACK)),
    ("signs_what_it_holds", "future", by_claims(issued_at=FUTURE)),
    ("signs_what_it_holds", "type", by_wire(field("GET", "Content-Type", "text/plain"))),
    ("signs_what_it_holds", "no id", by_claims(receipt_id="")),
    ("signs_with_the_pinned_key", "key", with_another_key),
    ("signs_with_the_pinned_key", "issuer", by_claims(issuer="other")),
    ("signs_each_upload_for_itself", "jti", by_claims(receipt_id="1")),
    ("signs_each_upload_for_itself", "sub", by_claims(upload_id="1")),
    ("gives_the_same_receipt_again", "another", forgetting_receipts),
    ("gives_the_same_receipt_again", "twice", by_wire(deaf_to("Idempotency-Key"))),
    ("says_when_it_is_still_checking", "when", by_wire(field("GET", "Retry-After", None))),
    ("says_when_it_is_still_checking", "status", by_wire(instead(202, 204, "GET"))),
    ("says_when_it_is_still_checking", "never", never_done),
    ("signs_nothing_unfinished", "pending", unfinished_is_pending),
    ("answers_with_the_receipt", "another", by_wire(field("PATCH", "Dockd-Receipt", "a.b.c"))),
    ("refuses_other_bytes", "not looked at", by_wire(deaf_to("Repr-Digest"))),
    ("refuses_other_bytes", "no words", by_wire(instead(409, 409, "GET"))),
    ("confirms_true_manifests", "refused", refusing_every_manifest),
    ("refuses_false_manifests", "signed", signing_any_manifest),
    ("hands_its_key_on", "no list", stating('{"statements": [1]}')),
    ("hands_its_key_on", "no JSON", stating("keys")),
    ("hands_its_key_on", "unsound", stating('{"statements": ["a.b.c"]}')),
    ("keeps_finished_footage", "deleted", deleting),
    ("keeps_finished_footage", "status", by_wire(instead(403, 204, "DELETE"))),
    ("gives_bytes_back", "others", giving_back(lambda data: b"x" + data[1:])),
    ("gives_bytes_back", "fewer", giving_back(lambda data: data[:-1])),
    ("gives_bytes_back", "encoded", by_wire(field("GET", "Content-Encoding", "gzip"))),
    ("gives_bytes_back", "nameless", by_wire(field("HEAD", "Upload-Metadata", None))),
]  # fmt: skip


async def outcome_of(
    name: str, url: str, verifier: ReceiptVerifier | None = None, patience_s: float = 5.0
) -> Outcome:
    async with probe_of(url, verifier, patience_s) as probe:
        outcome, _ = await BY_NAME[name].outcome(probe)
        return outcome


@asynccontextmanager
async def probe_of(
    url: str, verifier: ReceiptVerifier | None, patience_s: float
) -> AsyncIterator[Probe]:
    async with Probe(Subject(url, KEY, verifier=verifier, patience_s=patience_s)) as probe:
        offered = (await probe.options()).headers.get("Tus-Extension", "")
        probe.offers = frozenset(offered.split(","))
        yield probe


@pytest.mark.parametrize(
    ("name", "lie", "make"), LIES, ids=[f"{name}: {lie}" for name, lie, _ in LIES]
)
async def test_each_check_finds_its_lie(name: str, lie: str, make: Make) -> None:
    """INV-1: a target that promises and does not deliver is found out."""
    wire = simulated(checking_s=0.15 if name == "says_when_it_is_still_checking" else 0.0)
    verifier = wire.store.verifier
    wire.spoil = make(wire) or wire.spoil
    async with wire.served() as url:
        patience_s = 1.0 if lie in ("locked", "never") else 5.0
        assert await outcome_of(name, url, verifier, patience_s) is Outcome.FAILED


def test_there_is_a_lie_for_every_check() -> None:
    assert {name for name, _, _ in LIES} | {"states_durability"} == set(BY_NAME)


async def test_what_nobody_can_try_is_stated_or_not() -> None:
    wire = simulated()
    for value, outcome in (
        ("offset, receipt", Outcome.STATED),
        ("receipt", Outcome.NOT_STATED),
        (None, Outcome.NOT_STATED),
    ):
        wire.spoil = field("OPTIONS", "Dockd-Durability", value)
        async with wire.served() as url:
            assert await outcome_of("states_durability", url) is outcome


async def test_without_the_pinned_key_the_signature_is_not_said_to_be_right() -> None:
    """INV-1."""
    async with simulated().served() as url:
        assert await outcome_of("signs_with_the_pinned_key", url) is Outcome.NOT_CHECKED


# The page

CLAUSE = re.compile(r"\*\*(§\d+\.\d+)\*\*")
NOT_TRIED = {
    "§1.1": "every check is such a request",
    "§1.2": "creates_uploads, and each upload of the others",
    "§2.3": "about the dock",
    "§4.6": "only a power cut shows it: stated by §2.2",
    "§8.1": "the connection itself",
}


def test_every_clause_of_the_page_is_tried_or_it_is_said_why_not() -> None:
    clauses = CLAUSE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(set(clauses)) == len(clauses)
    assert {check.clause for check in CHECKS} | set(NOT_TRIED) == set(clauses)


def test_every_check_says_in_a_line_what_it_demands() -> None:
    assert len(BY_NAME) == len(CHECKS)
    for check in CHECKS:
        assert check.title.endswith(".")
        assert len(check.title) < 110
