"""The dock's side: what it asks, whom it believes, and what it does when the answer is nonsense."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from dockd.config import TargetConfig, load_config
from dockd.core.errors import ConfigError, DockdError, EnrolmentError, TargetError
from dockd.enrolled import CERTIFICATE_NAME, KEY_NAME, EnrolledFiles, Pinned
from dockd.enrolment import Token, enrol
from dockd.evidence import jws
from dockd.evidence.certificates import load_certificates
from dockd.evidence.keys import SigningKey, load_or_create_key, load_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.evidence.succession import name_successor
from dockd.ops import events
from dockd.renewal import STATEMENTS_NAME, Renewal
from dockd.store.ca import certified_names, certify_names, renew_server_certificate
from dockd.store.receipt_keys import rotate_receipt_key
from dockd.store.serve import Store
from tests.certificates import Authority
from tests.enrolment.docks import Site, enrolling_store, initialised, new_key
from tests.store.tus import QUICK, until
from tests.target.proxies import proxy
from tests.target.sockets import head_of, serving

DOCK = '[dock]\nname = "dock-1"\nstate_dir = "state"\n'
SECRET = "c2VjcmV0"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with enrolling_store(tmp_path / "store") as running:
        yield running


def dock_file(tmp_path: Path, text: str = "") -> Path:
    file = tmp_path / "dockd.toml"
    file.write_text(DOCK + text)
    return file


async def enrolled(site: Site, file: Path) -> TargetConfig:
    await enrol(file, site.store.url, await site.token("dock-1"), force=None)
    target = load_config(file).target
    assert target is not None
    return target


# Enrolling


@pytest.mark.parametrize("path", ["", "/", "/files/", "/anything"])
async def test_any_address_of_the_store_will_do(site: Site, tmp_path: Path, path: str) -> None:
    url = site.store.url.removesuffix("/files/") + path
    pinned = await enrol(dock_file(tmp_path), url, await site.token("dock-1"), force=None)
    assert (pinned.url, pinned.store_id) == (site.store.url, site.store.store_id)


async def test_the_way_leads_through_the_proxy_of_the_configuration(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "password").touch(mode=0o600)
    (tmp_path / "password").write_text("secret\n")
    async with proxy("Basic ZG9jazpzZWNyZXQ=") as way:
        url = way.url.replace("http://", "http://dock@")
        lines = f'[target]\nproxy = "{url}"\nproxy_password_file = "password"\n'
        target = await enrolled(site, dock_file(tmp_path, lines))
        assert (target.proxy, target.url) == (url, site.store.url)
        assert {head[""].split(" ")[0] for head in way.heads} == {"CONNECT"}


async def test_a_clock_that_is_far_off_is_named_with_the_stores(tmp_path: Path) -> None:
    """The dock's clock is a year behind: no certificate of the store is valid yet."""
    root, future = tmp_path / "store", datetime.now(UTC) + timedelta(days=365)
    layout, authority = initialised(root, future)
    async with Store.running(root, settings=QUICK, now=lambda: future) as store:
        token = Token(SECRET, authority.fingerprint)
        with pytest.raises(TargetError, match=r"not valid yet.*clock says.*the store's"):
            await enrol(dock_file(tmp_path), store.url, token, force=None)
    assert layout.ca.exists()
    assert not EnrolledFiles.beside(tmp_path / "dockd.toml").store.exists()


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda answer: {key: value for key, value in answer.items() if key != name}


def with_(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda answer: {**answer, **changes}


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no object": lambda _: ["x"],
    "no id": without("store_id"),
    "an id that is no text": with_(store_id=1),
    "no certificate": with_(certificate="-----BEGIN CERTIFICATE-----\n"),
    "no key": with_(receipt_key="key"),
    "somebody else's certificate": with_(certificate=Authority.new().pem.decode()),
    "another host's collection": with_(collection="https://elsewhere.example/files/"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_store_that_answers_nonsense_pins_nothing(
    tmp_path: Path, lie: Callable[[dict[str, Any]], object]
) -> None:
    layout, authority = initialised(tmp_path / "store")
    key = load_or_create_key(_made(tmp_path / "state") / KEY_NAME)
    certificate = authority.certify_dock("dock-1", key.public, datetime.now(UTC))
    honest = {
        "store_id": "store-1",
        "collection": "/files/",
        "receipt_key": new_key().public.pem().decode(),
        "certificate": certificate.public_bytes(Encoding.PEM).decode(),
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await head_of(reader)
            await reader.readexactly(int(head.get("content-length", "0")))
            asked_for_ca = head[""].startswith("GET /enrolment/ca ")
            body = authority.pem if asked_for_ca else json.dumps(lie(honest)).encode()
            status = "200 OK" if asked_for_ca else "201 Created"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(layout.tls_certificate, layout.tls_key)
    async with serving(serve, tls=context) as url:
        with pytest.raises(EnrolmentError):
            await enrol(dock_file(tmp_path), url, Token(SECRET, authority.fingerprint), force=None)
    assert not EnrolledFiles.beside(tmp_path / "dockd.toml").directory.exists()


@pytest.mark.parametrize("body", [b"", b"no PEM", b"x" * 100_000], ids=["empty", "odd", "long"])
async def test_an_address_that_is_no_store(tmp_path: Path, body: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    context = Authority.new().server_context(tmp_path)
    async with serving(serve, tls=context) as url:
        with pytest.raises(EnrolmentError, match="no store that enrols docks"):
            await enrol(dock_file(tmp_path), url, Token(SECRET, b"0" * 32), force=None)


# Staying enrolled


def renewal(tmp_path: Path, target: TargetConfig) -> tuple[Renewal, ReceiptVerifier]:
    key = load_or_create_key(tmp_path / "state" / KEY_NAME)
    assert target.receipt_key is not None
    verifier = ReceiptVerifier(target.store_id, load_verifying_key(target.receipt_key))
    return Renewal(target, tmp_path / "state", key, verifier), verifier


def age(site: Site, tmp_path: Path, days: float) -> bytes:
    """Give the dock the certificate that it would have had so many days ago."""
    key = load_or_create_key(tmp_path / "state" / KEY_NAME)
    made = datetime.now(UTC) - timedelta(days=days)
    pem = site.authority.certify_dock("dock-1", key.public, made).public_bytes(Encoding.PEM)
    (tmp_path / "state" / CERTIFICATE_NAME).write_bytes(pem)
    return pem


@pytest.mark.parametrize(("days", "renewed"), [(0, False), (50, False), (62, True), (200, True)])
async def test_a_certificate_is_renewed_in_the_last_third_of_its_life_and_after_it(
    site: Site, tmp_path: Path, days: float, renewed: bool
) -> None:
    target = await enrolled(site, dock_file(tmp_path))
    before = age(site, tmp_path, days)
    keeping, _ = renewal(tmp_path, target)
    assert await keeping.renew_if_due() is renewed
    after = (tmp_path / "state" / CERTIFICATE_NAME).read_bytes()
    assert (after != before) is renewed
    assert load_certificates(tmp_path / "state" / CERTIFICATE_NAME)[0].public_key() == (
        x509.load_pem_x509_certificate(before).public_key()
    )


async def test_a_renewal_that_fails_keeps_what_there_is_and_says_why(
    site: Site, tmp_path: Path
) -> None:
    target = await enrolled(site, dock_file(tmp_path))
    before = age(site, tmp_path, 80)
    await site.revoke("dock-1")
    keeping, _ = renewal(tmp_path, target)
    with capture_logs() as logs:
        assert await keeping.renew_if_due() is False
    (line,) = [line for line in logs if line["event"] == events.DOCK_NOT_CERTIFIED.name]
    assert "was revoked" in line["reason"]
    assert (tmp_path / "state" / CERTIFICATE_NAME).read_bytes() == before


async def test_another_authoritys_certificate_is_not_renewed(site: Site, tmp_path: Path) -> None:
    target = await enrolled(site, dock_file(tmp_path))
    age(site, tmp_path, 80)
    elsewhere = target.model_copy(update={"certificate": tmp_path / "own.pem"})
    keeping, _ = renewal(tmp_path, elsewhere)
    assert await keeping.renew_if_due() is False


async def test_newer_receipt_keys_are_learnt_once_for_all_who_wait_and_remembered(
    site: Site, tmp_path: Path
) -> None:
    target = await enrolled(site, dock_file(tmp_path))
    keeping, verifier = renewal(tmp_path, target)
    new = rotate_receipt_key(site.layout, site.store.store_id, datetime.now(UTC))
    with capture_logs() as logs:
        await asyncio.gather(*(keeping.learn_receipt_keys() for _ in range(20)))
    assert verifier.newest == new.public
    learnt = [line["key"] for line in logs if line["event"] == events.DOCK_RECEIPT_KEY.name]
    assert learnt == [new.key_id]
    _, fresh = renewal(tmp_path, target)
    assert fresh.newest == new.public


@pytest.mark.parametrize("text", ["", "nonsense", "a.b.c\n" * 50, "é"])
async def test_a_damaged_memory_of_receipt_keys_is_no_memory(
    site: Site, tmp_path: Path, text: str
) -> None:
    target = await enrolled(site, dock_file(tmp_path))
    (tmp_path / "state" / STATEMENTS_NAME).write_text(text)
    _, verifier = renewal(tmp_path, target)
    assert verifier.newest == verifier.key


async def test_what_the_pinned_key_did_not_sign_is_not_believed_even_of_the_store(
    site: Site, tmp_path: Path
) -> None:
    """INV-1: a store that was taken over cannot bring a key of its own."""
    target = await enrolled(site, dock_file(tmp_path))
    keeping, verifier = renewal(tmp_path, target)
    other, forger = new_key(), new_key()
    honest = name_successor(forger, site.store.store_id, other.public, datetime.now(UTC))
    forged = _renamed(honest, verifier.key.key_id, forger)
    site.layout.receipt_key_statements.write_text(f"{honest}\n")
    with capture_logs() as logs:
        await keeping.learn_receipt_keys()
        assert keeping._take([forged]) is False
    assert verifier.newest == verifier.key
    assert [line["event"] for line in logs] == [events.DOCK_RECEIPT_KEY_REFUSED.name]


# The store's own certificate


async def test_the_stores_certificate_is_renewed_by_itself(tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=390)
    layout, authority = initialised(tmp_path / "store", long_ago)
    before = layout.tls_certificate.read_bytes()
    assert not renew_server_certificate(layout, authority, long_ago + timedelta(days=200))
    async with enrolling_store(tmp_path / "store") as site:

        async def renewed() -> bool:
            return layout.tls_certificate.read_bytes() != before

        await until(renewed)
        await enrolled(site, dock_file(tmp_path))
    assert set(certified_names(layout)) == {"127.0.0.1", "localhost", "::1"}


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    layout, authority = initialised(tmp_path)
    before = layout.tls_certificate.read_bytes()
    with pytest.raises(DockdError, match="cannot be certified"):
        certify_names(layout, authority, ["störe.example"], datetime.now(UTC))
    assert layout.tls_certificate.read_bytes() == before


def test_a_lost_certificate_of_the_dock_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    load_or_create_key(tmp_path / "state" / KEY_NAME)
    _, authority = initialised(tmp_path / "store")
    pinned = Pinned(dock="dock-1", store_id="s", url="https://store/files/")
    files = EnrolledFiles.beside(tmp_path / "dockd.toml")
    files.write(pinned, ca=authority.pem, receipt_key=new_key().public.pem())
    with pytest.raises(ConfigError, match=r"target\.certificate: .*dock-certificate\.pem"):
        load_config(dock_file(tmp_path))


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _renamed(statement: str, kid: str, key: SigningKey) -> str:
    """Return the statement as one that says it is by another key."""
    header = jws._JWS.encode(
        b"{}",
        key.private,
        algorithm="EdDSA",
        headers={"typ": "dockd-receipt-key+jwt", "kid": kid},
    ).split(".")[0]
    return ".".join([header, *statement.split(".")[1:]])
