"""The store lets in the docks it has enrolled, each to its own, and nobody else."""

import base64
import re
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from dockd.core.errors import EnrolmentError, TargetError
from dockd.enrolment import Token
from dockd.evidence.keys import load_verifying_key
from dockd.store.docks import EnrolmentRefusedError, open_docks
from dockd.store.serve import Store
from dockd.target.connection import Connection
from dockd.target.enrolment import asking, signing_request
from tests.enrolment.docks import EnrolledDock, Site, enrolling_store, initialised, new_key
from tests.store.tus import upload_metadata


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with enrolling_store(tmp_path / "store") as running:
        yield running


@pytest.fixture
async def dock(site: Site) -> EnrolledDock:
    return await site.new_dock("dock-1")


# Enrolment


async def test_a_token_makes_a_dock(site: Site, dock: EnrolledDock, tmp_path: Path) -> None:
    assert dock.answer.store_id == site.store.store_id
    assert dock.answer.receipt_key == load_verifying_key(site.store.receipt_key).pem().decode()
    async with dock.talking(tmp_path / "d") as tus:
        answer = await tus.send(b"clip", upload_metadata(dock="dock-1"))
    assert tus.verifier.verify(answer.receipt).dock == "dock-1"


async def test_only_a_hash_of_a_token_is_kept(site: Site) -> None:
    token = await site.token("dock-1")
    secret = base64.urlsafe_b64decode(token.secret)
    for file in site.layout.root.glob("docks.db*"):
        data = file.read_bytes()
        assert secret not in data
        assert token.secret.encode() not in data


async def test_a_token_works_once(site: Site, dock: EnrolledDock) -> None:
    token = await site.token("dock-2")
    await site.enrol("dock-2", token)
    with pytest.raises(EnrolmentError, match=r"403 this token was used at .*, with key"):
        await site.enrol("dock-2", token)


async def test_a_lost_answer_can_be_asked_for_again_with_the_same_key(
    site: Site, tmp_path: Path
) -> None:
    token, key = await site.token("dock-1"), new_key()
    await site.enrol("dock-1", token, key)
    again = await site.enrol("dock-1", token, key)
    async with again.talking(tmp_path / "d") as tus:
        assert (await tus.create(4)).status == 201


async def test_a_token_ends(site: Site) -> None:
    token = await site.token("dock-1", minutes=5)
    site.time.ahead = timedelta(minutes=6)
    with pytest.raises(EnrolmentError, match="was good until"):
        await site.enrol("dock-1", token)


async def test_a_token_is_for_one_name(site: Site) -> None:
    token = await site.token("dock-1")
    with pytest.raises(EnrolmentError, match="is for dock 'dock-1', and this dock is 'dock-2'"):
        await site.enrol("dock-2", token)


async def test_a_guessed_token_is_unknown(site: Site) -> None:
    with pytest.raises(EnrolmentError, match="this token is unknown"):
        await site.enrol("dock-1", Token(base64.urlsafe_b64encode(b"0" * 16).decode(), b"0" * 32))


async def test_a_name_is_not_given_twice_unless_that_is_meant(
    site: Site, dock: EnrolledDock, tmp_path: Path
) -> None:
    with pytest.raises(EnrolmentRefusedError, match="is enrolled already"):
        await site.token("dock-1")
    new = await site.enrol("dock-1", await site.token("dock-1", again=True))
    async with new.talking(tmp_path / "new") as tus:
        assert (await tus.create(4)).status == 201
    async with dock.talking(tmp_path / "old") as tus:
        refused = await tus.create(4)
        assert (refused.status, "revoked" in refused.text) == (403, True)


async def test_two_tokens_for_one_name_do_not_make_two_docks(site: Site) -> None:
    first, second = await site.token("dock-1"), await site.token("dock-1")
    await site.enrol("dock-1", first)
    with pytest.raises(EnrolmentError, match="was enrolled meanwhile"):
        await site.enrol("dock-1", second)


async def test_a_copied_key_is_not_another_dock(site: Site, dock: EnrolledDock) -> None:
    token = await site.token("dock-2")
    with pytest.raises(EnrolmentError, match="key is that of dock 'dock-1'"):
        await site.enrol("dock-2", token, dock.key)
    await site.revoke("dock-1")
    assert (await site.enrol("dock-2", token, dock.key)).name == "dock-2"


async def test_a_revoked_dock_comes_back_only_when_that_is_meant(
    site: Site, dock: EnrolledDock, tmp_path: Path
) -> None:
    await site.revoke("dock-1")
    with pytest.raises(EnrolmentRefusedError, match="was revoked"):
        await site.token("dock-1")
    again = await site.enrol("dock-1", await site.token("dock-1", again=True), dock.key)
    async with again.talking(tmp_path / "d") as tus:
        assert (await tus.create(4)).status == 201


async def test_a_revocation_ends_the_tokens_of_the_dock(site: Site, dock: EnrolledDock) -> None:
    token = await site.token("dock-1", again=True)
    await site.revoke("dock-1")
    with pytest.raises(EnrolmentError, match="this token is unknown"):
        await site.enrol("dock-1", token)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[1", b'{"secret":1,"dock":"d","csr":""}', b"[" * 10_000, b"x" * 100_000],
    ids=["empty", "nothing", "cut", "types", "deep", "long"],
)
async def test_nonsense_is_refused(site: Site, body: bytes) -> None:
    tls = ssl.create_default_context(cafile=str(site.layout.ca))
    url = site.store.url.replace("/files/", "/enrolment")
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, ssl=tls) as answer,
    ):
        assert answer.status in (400, 413)


async def test_a_request_must_be_signed_by_its_own_key(site: Site) -> None:
    token = await site.token("dock-1")
    pem = signing_request(new_key())
    raw = bytearray(base64.b64decode(b"".join(pem.splitlines()[1:-1])))
    raw[-1] ^= 1
    forged = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(bytes(raw))
    forged += b"-----END CERTIFICATE REQUEST-----\n"
    async with asking(site.store.url, Connection()) as client:
        ca = await client.authority()
        with pytest.raises(EnrolmentError, match=r"400 .*not signed with its own Ed25519 key"):
            await client.enrol(token.secret, "dock-1", forged, ca)


async def test_the_secret_is_sent_to_the_authority_of_the_token_only(
    site: Site, tmp_path: Path
) -> None:
    _, other = initialised(tmp_path / "other")
    token = await site.token("dock-1")
    async with asking(site.store.url, Connection()) as client:
        with pytest.raises(TargetError, match="no authority that this dock trusts"):
            await client.enrol(token.secret, "dock-1", signing_request(new_key()), other.pem)


# Access


async def test_without_a_certificate_there_is_nothing_to_see(site: Site) -> None:
    tls = ssl.create_default_context(cafile=str(site.layout.ca))
    async with aiohttp.ClientSession() as session:
        for method, path in (
            ("OPTIONS", ""), ("POST", ""), ("HEAD", "0" * 32), ("GET", f"{'0' * 32}/receipt"),
            ("PATCH", "0" * 32), ("DELETE", "0" * 32), ("GET", "receipt-keys"), ("GET", "nowhere"),
        ):  # fmt: skip
            async with session.request(method, site.store.url + path, ssl=tls) as answer:
                assert answer.status == 403, (method, path)


async def test_plain_http_is_not_spoken(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(site.store.url.replace("https", "http"))


async def test_a_certificate_of_another_authority_is_refused(site: Site, tmp_path: Path) -> None:
    async with enrolling_store(tmp_path / "other") as elsewhere:
        stranger = await elsewhere.new_dock("dock-1")
    stranger.site = site
    async with stranger.talking(tmp_path / "d") as tus:
        with pytest.raises(aiohttp.ClientError):
            await tus.create(4)


async def test_a_dock_sees_its_own_uploads_only(
    site: Site, dock: EnrolledDock, tmp_path: Path
) -> None:
    other = await site.new_dock("dock-2")
    async with dock.talking(tmp_path / "1") as one, other.talking(tmp_path / "2") as two:
        url = (await one.create(8, Upload_Metadata=_metadata("dock-1"))).headers["Location"]
        held = (await one.send(b"done", upload_metadata(dock="dock-1"))).headers["Location"]
        for theirs in (url, held):
            assert (await two.head(theirs)).status == 404
            assert (await two.patch(theirs, 0, b"12345678")).status == 404
            assert (await two.delete(theirs)).status == 404
            assert (await two.ask("GET", f"{theirs}/receipt", {})).status == 404
        assert (await one.patch(url, 0, b"12345678")).status == 204


async def test_a_dock_sends_under_its_own_name(
    site: Site, dock: EnrolledDock, tmp_path: Path
) -> None:
    async with dock.talking(tmp_path / "1") as tus:
        refused = await tus.create(4, Upload_Metadata=_metadata("dock-2"))
        assert (refused.status, refused.text) == (
            403,
            "dock 'dock-1' cannot send as dock 'dock-2'\n",
        )
        nameless = await tus.send(b"clip", {"Upload-Metadata": "filename eA=="})
        assert tus.verifier.verify(nameless.receipt).dock == "dock-1"


async def test_the_same_key_of_two_docks_is_two_uploads(
    site: Site, dock: EnrolledDock, tmp_path: Path
) -> None:
    other = await site.new_dock("dock-2")
    async with dock.talking(tmp_path / "1") as one, other.talking(tmp_path / "2") as two:
        first = await one.create(8, Idempotency_Key="k", Upload_Metadata=_metadata("dock-1"))
        second = await two.create(8, Idempotency_Key="k", Upload_Metadata=_metadata("dock-2"))
    assert first.headers["Location"] != second.headers["Location"]


async def test_a_revocation_acts_on_the_next_request_of_an_open_connection(
    site: Site, dock: EnrolledDock, tmp_path: Path
) -> None:
    async with dock.talking(tmp_path / "1") as tus:
        url = (await tus.create(8, Upload_Metadata=_metadata("dock-1"))).headers["Location"]
        await site.revoke("dock-1")
        refused = await tus.patch(url, 0, b"12345678")
        assert refused.status == 403
        assert re.match("dock 'dock-1' was revoked at ", refused.text)


# Time


async def test_an_ended_certificate_sends_nothing_and_is_renewed(
    site: Site, dock: EnrolledDock, tmp_path: Path
) -> None:
    """INV-7: a dock that was off for long comes back by itself."""
    site.time.ahead = timedelta(days=100)
    async with dock.talking(tmp_path / "1") as tus:
        refused = await tus.create(4)
        assert (refused.status, "certificate of dock 'dock-1' ended" in refused.text) == (403, True)
    async with asking(site.store.url, dock.files(tmp_path / "1")) as client:
        dock.certificate = await client.renew(signing_request(dock.key))
    async with dock.talking(tmp_path / "1") as tus:
        assert (await tus.create(4)).status == 201


async def test_a_certificate_that_ended_long_ago_is_not_renewed(
    site: Site, dock: EnrolledDock, tmp_path: Path
) -> None:
    site.time.ahead = timedelta(days=300)
    async with asking(site.store.url, dock.files(tmp_path / "1")) as client:
        with pytest.raises(EnrolmentError, match="403 the certificate of dock 'dock-1' ended"):
            await client.renew(signing_request(dock.key))


async def test_a_renewal_is_for_the_docks_own_key_and_not_for_revoked_docks(
    site: Site, dock: EnrolledDock, tmp_path: Path
) -> None:
    async with asking(site.store.url, dock.files(tmp_path / "1")) as client:
        with pytest.raises(EnrolmentError, match="403 a renewal is for the dock's own key"):
            await client.renew(signing_request(new_key()))
        await site.revoke("dock-1")
        with pytest.raises(EnrolmentError, match="403 dock 'dock-1' was revoked"):
            await client.renew(signing_request(dock.key))


async def test_the_list_of_docks_knows_how_long(site: Site, dock: EnrolledDock) -> None:
    async with open_docks(site.layout.docks) as docks:
        (known,) = await docks.all()
    assert (known.name, known.key, known.revoked_at) == ("dock-1", dock.key.public, None)
    assert timedelta(days=89) < known.certified_until - site.time.now() < timedelta(days=91)


async def test_a_store_with_certificates_may_listen_to_others(tmp_path: Path) -> None:
    initialised(tmp_path)
    async with Store.running(tmp_path, host="0.0.0.0") as store:
        assert re.fullmatch(r"https://localhost:\d+/files/", store.url)


def _metadata(dock: str) -> str:
    return upload_metadata(dock=dock)["Upload-Metadata"]
