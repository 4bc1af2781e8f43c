"""Whom the client trusts and as whom it appears: real certificates, real handshakes."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from dockd.core.errors import AdministrativeRefusalError, TargetFullError, TargetUnavailableError
from dockd.target.clock import ClockWatch
from dockd.target.connection import Connection
from dockd.target.tus import TusTarget
from tests.certificates import DAY, Authority
from tests.target.dock_side import events_named, logged
from tests.target.sockets import MANY_BYTES, OFFERS, chunks, head_of, saying, serving, target_at


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture
def trusting(authority: Authority, tmp_path: Path) -> Connection:
    """A way to the store that trusts the test's authority only."""
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.pem)
    return Connection(ca_file=file)


def showing(trusting: Connection, authority: Authority, directory: Path) -> Connection:
    certificate, key = authority.issue("dock-1").write(directory, "dock")
    return Connection(ca_file=trusting.ca_file, certificate=certificate, private_key=key)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_a_store_of_the_pinned_authority(
    authority: Authority, trusting: Connection, tmp_path: Path, host: str
) -> None:
    tls = authority.server_context(tmp_path)
    async with (
        serving(saying(OFFERS), host=host, tls=tls) as url,
        TusTarget(url, connection=trusting) as target,
    ):
        assert (await target.discover()).receipts


async def test_plain_http_over_ipv6() -> None:
    async with serving(saying(OFFERS), host="::1") as url, TusTarget(url) as target:
        assert url.startswith("http://[::1]:")
        assert (await target.discover()).receipts


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_nothing_older_than_tls_1_2(
    authority: Authority, trusting: Connection, tmp_path: Path, newest: ssl.TLSVersion
) -> None:
    tls = authority.server_context(tmp_path)
    tls.set_ciphers("ALL:@SECLEVEL=0")
    tls.minimum_version = ssl.TLSVersion.TLSv1_1
    tls.maximum_version = newest
    async with target_at(saying(OFFERS), tls=tls, connection=trusting) as (target, _):
        if newest is ssl.TLSVersion.TLSv1_2:
            assert (await target.discover()).receipts
        else:
            with pytest.raises(TargetUnavailableError, match="hung up"):
                await target.discover()


# Certificates that are not accepted


@pytest.mark.parametrize(
    ("names", "valid_from", "valid_until", "words"),
    [
        (["127.0.0.1"], -2 * DAY, -DAY, r"has expired, or a clock is wrong: this dock's clock says 20"),
        (["127.0.0.1"], DAY, 2 * DAY, r"not valid yet, or a clock is wrong: this dock's clock says 20"),
        (["127.0.0.2"], -DAY, DAY, r"for another name .*127\.0\.0\.1"),
        (["store.example"], -DAY, DAY, r"for another name .*127\.0\.0\.1"),
    ],
)  # fmt: skip
async def test_a_wrong_certificate(
    authority: Authority,
    trusting: Connection,
    tmp_path: Path,
    names: list[str],
    valid_from: timedelta,
    valid_until: timedelta,
    words: str,
) -> None:
    """INV-1: footage and receipts come and go only between the dock and its own store."""
    issued = authority.issue(*names, valid_from=valid_from, valid_until=valid_until)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*issued.write(tmp_path, "server"))
    async with target_at(saying(OFFERS), tls=tls, connection=trusting) as (target, _):
        with pytest.raises(TargetUnavailableError, match=f"certificate is not accepted: .*{words}"):
            await target.discover()


@pytest.mark.parametrize("pinned", [True, False])
async def test_an_authority_that_is_not_trusted(
    trusting: Connection, tmp_path: Path, pinned: bool
) -> None:
    tls = Authority.new("a stranger").server_context(tmp_path)
    connection = trusting if pinned else Connection()
    async with target_at(saying(OFFERS), tls=tls, connection=connection) as (target, _):
        with pytest.raises(TargetUnavailableError, match=r"no authority that this dock trusts"):
            await target.discover()


# The dock's own certificate


def demanding(authority: Authority, directory: Path) -> ssl.SSLContext:
    context = authority.server_context(directory)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.pem.decode())
    return context


async def test_the_dock_shows_its_certificate(
    authority: Authority, trusting: Connection, tmp_path: Path
) -> None:
    seen: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peercert")["subject"])
        await saying(OFFERS)(reader, writer)

    connection = showing(trusting, authority, tmp_path)
    tls = demanding(authority, tmp_path)
    async with target_at(serve, tls=tls, connection=connection) as (target, _):
        await target.discover()
    assert seen == [((("commonName", "dock-1"),),)]


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("whose", ["stranger", "expired"])
async def test_a_client_certificate_that_is_refused(
    authority: Authority,
    trusting: Connection,
    tmp_path: Path,
    whose: str,
    newest: ssl.TLSVersion,
) -> None:
    """A person can lift it, so the dock waits without counting."""
    signer = Authority.new("a stranger") if whose == "stranger" else authority
    issued = signer.issue("dock-1", valid_from=-2 * DAY, valid_until=-DAY)
    certificate, key = issued.write(tmp_path, "dock")
    connection = Connection(ca_file=trusting.ca_file, certificate=certificate, private_key=key)
    tls = demanding(authority, tmp_path)
    tls.maximum_version = newest
    with shaking_hands(tls) as url:
        async with TusTarget(url, connection=connection) as target:
            with pytest.raises(AdministrativeRefusalError, match="refuses this dock's certificate"):
                await target.append(f"{url}1", 0, MANY_BYTES, chunks(MANY_BYTES))


async def test_a_store_that_hangs_up_on_a_dock_that_shows_no_certificate(
    authority: Authority, trusting: Connection, tmp_path: Path
) -> None:
    """Servers in Python, our store's among them, do not say what they have against a certificate."""
    tls = demanding(authority, tmp_path)
    async with target_at(saying(OFFERS), tls=tls, connection=trusting) as (target, _):
        with pytest.raises(TargetUnavailableError, match="that refuse the dock's certificate"):
            await target.discover()


@contextmanager
def shaking_hands(tls: ssl.SSLContext) -> Iterator[str]:
    """Serve handshakes with OpenSSL's own alerts, which asyncio's servers do not send."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    tls.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listening.getsockname()[1]}/files/"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


# Answers that come early


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("repetition", range(10))
async def test_an_early_refusal_is_heard_although_the_connection_is_reset(
    authority: Authority,
    trusting: Connection,
    tmp_path: Path,
    newest: ssl.TLSVersion,
    repetition: int,
) -> None:
    """The answer lies encrypted in the socket when a write meets the reset."""
    del repetition
    tls = authority.server_context(tmp_path)
    tls.maximum_version = newest

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.readexactly(1 << 20)
        writer.write(b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 9\r\n\r\ndisk full")
        await writer.drain()
        writer.transport.abort()

    async def rarely_pausing() -> AsyncIterator[bytes]:
        # Most writes happen without going through the event loop, so that the reset meets one.
        for number in count():
            yield bytes(1000)
            if number % 1000 == 0:
                await asyncio.sleep(0)

    async with target_at(serve, tls=tls, connection=trusting) as (target, url):
        with pytest.raises(TargetFullError, match=r"disk full"):
            await target.append(url, 0, 1 << 40, rarely_pausing())


# Connections and clocks


@pytest.mark.parametrize("secure", [True, False])
async def test_one_connection_serves_all_requests(
    authority: Authority, trusting: Connection, tmp_path: Path, secure: bool
) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await saying("HTTP/1.1 204 No Content\nUpload-Offset: 5")(reader, writer)

    tls = authority.server_context(tmp_path) if secure else None
    async with target_at(serve, tls=tls, connection=trusting) as (target, url):
        for _ in range(5):
            await target.offset(url)
            await target.append(url, 0, 5, chunks(5))
    assert connections == 1


@pytest.mark.parametrize(("ahead_s", "logs"), [(59, 0), (-59, 0), (3600, 1), (-31_536_000, 1)])
async def test_clocks_that_differ_are_told_once(ahead_s: int, logs: int) -> None:
    now = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
    date = (now + timedelta(seconds=ahead_s)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    async with serving(saying(f"{OFFERS}\nDate: {date}")) as url:
        with logged() as lines:
            async with TusTarget(url, clock=ClockWatch(lambda: now)) as target:
                await target.discover()
                await target.discover()
    found = events_named(lines, "target.clock_differs")
    assert [line["store_ahead_s"] for line in found] == [ahead_s] * logs
    assert all(line["dock_clock"] == "2026-05-06T07:08:09Z" for line in found)


def test_both_clocks_are_named_once_both_are_known() -> None:
    now = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
    clock = ClockWatch(lambda: now)
    assert clock.words() == (
        "this dock's clock says 2026-05-06T07:08:09Z; the store's clock is not known yet"
    )
    with logged():
        clock.heard({"Date": "Thu, 06 May 2027 07:08:10 GMT"})
    clock.heard({"Date": "yesterday"})
    assert clock.words() == (
        "this dock's clock says 2026-05-06T07:08:09Z, the store's 2027-05-06T07:08:10Z"
    )


# Every phase ends without progress


async def test_a_handshake_that_never_ends(trusting: Connection) -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await asyncio.Event().wait()

    async with serving(serve) as url:
        base = url.replace("http:", "https:")
        async with TusTarget(base, connection=trusting, connect_timeout_s=0.1) as target:
            with pytest.raises(TargetUnavailableError, match=r"no connection in time"):
                await target.discover()


async def test_a_store_that_stops_reading_over_tls(
    authority: Authority, trusting: Connection, tmp_path: Path
) -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await asyncio.Event().wait()

    tls = authority.server_context(tmp_path)
    async with target_at(serve, tls=tls, connection=trusting, stall_timeout_s=0.1) as (target, url):
        with pytest.raises(TargetUnavailableError, match=r"took no byte"):
            await target.append(url, 0, MANY_BYTES, chunks(MANY_BYTES))
        with pytest.raises(TargetUnavailableError, match=r"no answer in time"):
            await target.append(url, 0, 5, chunks(5))
