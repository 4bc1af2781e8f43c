"""Several addresses of one store: tried in order, uploads carried over, back to the first in time."""

import asyncio
import hashlib
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from dockd.core.errors import (
    AdministrativeRefusalError,
    ProtocolViolationError,
    TargetUnavailableError,
)
from dockd.demo.proxy import Connection as Tunnel
from dockd.demo.proxy import Direction, Proxy
from dockd.evidence.keys import load_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.store.serve import Store
from dockd.target.addresses import Addresses
from dockd.target.connection import Connection
from dockd.target.patience import RetryRules
from dockd.target.tus import TusTarget
from dockd.target.uploader import Uploader
from tests.simulated.source import MemorySource, spec_of
from tests.target.dock_side import events_named, logged
from tests.target.sockets import OFFERS, chunks, head_of, saying, serving

NOBODY = "http://127.0.0.1:1/files/"
FIRST, SECOND = "https://store.example/files/", "https://[2001:db8::1]:8443/far/away/"


class Address:
    """A store's address that can be switched off."""

    def __init__(self, *, store_id: str = "store") -> None:
        self.store_id = store_id
        self.down = False
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await head_of(reader)
            await reader.readexactly(int(head.get("content-length", "0")))
            if self.down:
                return
            verb, path, _ = head[""].split(" ")
            self.requests.append(f"{verb} {path}")
            status = {"POST": "201 Created"}.get(verb, "204 No Content")
            lines = OFFERS.partition("\n")[2]
            lines += f"\nDockd-Store: {self.store_id}\nLocation: /files/7\nUpload-Offset: 5"
            answer = f"HTTP/1.1 {status}\n{lines}\nContent-Length: 0\n\n".replace("\n", "\r\n")
            writer.write(answer.encode())


async def test_the_first_address_that_answers_is_used_and_uploads_are_carried_over() -> None:
    """No byte is sent twice because of another address."""
    first, second = Address(), Address()
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving(at.serve)) for at in (first, second)]
        connection = Connection(fallback_urls=(NOBODY, urls[1]))
        target = await stack.enter_async_context(TusTarget(urls[0], connection=connection))
        lines = stack.enter_context(logged())

        await target.discover()
        created = await target.create(spec_of(b"data!"), None, None)
        assert created.url == f"{urls[0]}7"

        first.down = True
        with pytest.raises(TargetUnavailableError):
            await target.offset(created.url)
        await target.discover()
        assert await target.offset(created.url) == 5
        again = await target.create(spec_of(b"data!"), None, None)
        assert again.url == created.url, "one upload has one name in the journal"
        await target.append(created.url, 0, 5, chunks(5))
        assert second.requests == [
            "OPTIONS /files/",
            "HEAD /files/7",
            "POST /files/",
            "PATCH /files/7",
        ]
    (moved,) = events_named(lines, "target.address")
    assert (moved["url"], moved["before"]) == (urls[1], urls[0])


async def test_the_first_address_is_gone_back_to() -> None:
    first, second = Address(), Address()
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving(at.serve)) for at in (first, second)]
        connection = Connection(fallback_urls=(urls[1],))
        target = await stack.enter_async_context(
            TusTarget(urls[0], connection=connection, return_after_s=0.0)
        )
        first.down = True
        await target.discover()
        assert await target.offset(f"{urls[0]}7") == 5
        assert second.requests[-1] == "HEAD /files/7"
        first.down = False
        assert await target.offset(f"{urls[0]}7") == 5
        assert first.requests == ["OPTIONS /files/", "HEAD /files/7"]


async def test_a_fallback_is_kept_while_it_is_not_time_to_go_back() -> None:
    first, second = Address(), Address()
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving(at.serve)) for at in (first, second)]
        connection = Connection(fallback_urls=(urls[1],))
        target = await stack.enter_async_context(TusTarget(urls[0], connection=connection))
        first.down = True
        await target.discover()
        first.down = False
        for _ in range(3):
            await target.discover()
            await target.offset(f"{urls[0]}7")
        assert first.requests == []


async def test_another_store_is_no_fallback() -> None:
    """INV-1: receipts of another store would prove nothing here."""
    first, stranger = Address(), Address(store_id="stranger")
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving(at.serve)) for at in (first, stranger)]
        connection = Connection(fallback_urls=(urls[1],))
        target = await stack.enter_async_context(TusTarget(urls[0], connection=connection))
        await target.discover()
        first.down = True
        with pytest.raises(TargetUnavailableError, match="is the store stranger, and not store"):
            await target.discover()
        assert stranger.requests == ["OPTIONS /files/"]


async def test_when_no_address_answers_all_are_named_and_the_first_decides() -> None:
    refusing = saying("HTTP/1.1 403 Forbidden\nContent-Length: 0\nRetry-After: 9")
    async with serving(refusing) as url:
        async with TusTarget(url, connection=Connection(fallback_urls=(NOBODY,))) as target:
            with pytest.raises(
                AdministrativeRefusalError, match=r"403 .*; .*127.0.0.1:1/"
            ) as caught:
                await target.discover()
        assert (caught.value.status, caught.value.retry_after_s) == (403, 9)


async def test_a_location_on_a_stranger_is_refused_by_every_address() -> None:
    answer = "HTTP/1.1 201 Created\nContent-Length: 0\nLocation: http://127.0.0.1:2/files/1"
    fallback = Connection(fallback_urls=(NOBODY,))
    async with serving(saying(answer)) as url, TusTarget(url, connection=fallback) as target:
        with pytest.raises(ProtocolViolationError):
            await target.create(spec_of(b"data"), None, None)


# One URL at several addresses


@pytest.mark.parametrize(
    ("url", "there"),
    [
        (f"{FIRST}1", f"{SECOND}1"),
        (f"{FIRST}a%2Fb/c?d=e", f"{SECOND}a%2Fb/c?d=e"),
        (f"{SECOND}1", f"{SECOND}1"),
        # Not below the address: only who made it knows what it means.
        ("https://store.example/other/1", "https://store.example/other/1"),
        ("https://store.example/filesystem/1", "https://store.example/filesystem/1"),
    ],
)
def test_where_an_upload_is_found(url: str, there: str) -> None:
    addresses = Addresses([FIRST, SECOND])
    addresses.use(URL(SECOND))
    assert str(addresses.in_use(URL(url, encoded=True))) == there


@given(
    name=st.from_regex(r"[\w~.%/-]{1,40}", fullmatch=True).map(
        lambda name: name.replace("%", "%2F")
    )
)
def test_carrying_over_and_back_gives_the_same(name: str) -> None:
    addresses = Addresses([FIRST, SECOND])
    url = str(URL(FIRST)) + URL(name).raw_path.lstrip("/")
    addresses.use(URL(SECOND))
    there = addresses.in_use(URL(url, encoded=True))
    assert str(addresses.remembered(there)) == url


def test_an_address_without_a_slash_at_its_end() -> None:
    addresses = Addresses(["https://a.example/files", "https://b.example/files"])
    addresses.use(URL("https://b.example/files"))
    there = addresses.in_use(URL("https://a.example/files/1"))
    assert str(there) == "https://b.example/files/1"


@pytest.mark.parametrize(
    ("url", "own"),
    [
        (f"{FIRST}1", True),
        ("https://store.example:443/x", True),
        ("https://[2001:db8::1]:8443/1", True),
        ("https://[2001:db8::1]/1", False),
        ("http://store.example/files/1", False),
        ("files/1", False),
    ],
)
def test_what_is_on_the_store_itself(url: str, own: bool) -> None:
    assert Addresses([FIRST, SECOND]).own(URL(url, encoded=True)) is own


# The real store, at two addresses


async def test_an_upload_goes_on_at_another_address_where_it_was(tmp_path: Path) -> None:
    """INV-7: one object, whose receipt proves all of it; hardly a byte is sent twice."""
    data = random.Random(7).randbytes(4 << 20)

    broken = False

    async def broken_half_way(connection: Tunnel, direction: Direction, block: bytes) -> None:
        nonlocal broken
        if broken:
            connection.reset()
        elif first.carried_bytes > len(data) // 2:
            broken = True
            connection.close()
        else:
            await connection.send(direction, block)

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store.running(tmp_path / "store"))
        port = URL(store.url).port or 0
        first = await stack.enter_async_context(Proxy(port, carry=broken_half_way))
        second = await stack.enter_async_context(Proxy(port))
        urls = [str(URL(store.url).with_port(proxy.port)) for proxy in (first, second)]
        connection = Connection(fallback_urls=(urls[1],))
        target = await stack.enter_async_context(TusTarget(urls[0], connection=connection))
        uploader = Uploader(target, rng=random.Random(7), rules=RetryRules(first_pause_s=0.001))
        told: list[str] = []

        async def created(url: str) -> None:
            told.append(url)

        sent = await uploader.send(
            spec_of(data),
            MemorySource(data, chunk_bytes=1 << 16),
            url=None,
            on_created=created,
            on_progress=lambda _: None,
        )
        receipt = sent.receipt or await uploader.receipt(sent.url)
        claims = ReceiptVerifier(store.store_id, load_verifying_key(store.receipt_key)).verify(
            receipt
        )

    assert claims.sha256 == hashlib.sha256(data).hexdigest() == sent.sha256
    assert told == [sent.url]
    assert sent.url.startswith(urls[0])
    assert len(data) // 3 < second.carried_bytes < len(data) * 15 // 16
    held = [file for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size >= len(data) for file in held) == 1
