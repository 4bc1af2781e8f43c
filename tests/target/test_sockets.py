"""The tus client over real sockets, against servers that misbehave byte by byte."""

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator

import pytest

from dockd.core.errors import (
    ProtocolViolationError,
    TargetFullError,
    TargetUnavailableError,
)
from dockd.core.model import Appended, Created, ReceiptPending, TargetProperties
from dockd.target.tus import TusTarget
from tests.simulated.source import MemorySource, spec_of
from tests.target.sockets import MANY_BYTES, STALL_S, chunks, head_of, serving, target_at

# What the requests look like


async def test_requests_are_as_the_contract_says() -> None:
    heads: list[dict[str, str]] = []
    bodies: list[bytes] = []
    options = (
        "HTTP/1.1 204 No Content\r\nTus-Version: 1.0.0\r\nTus-Checksum-Algorithm: sha256\r\n"
        "Tus-Extension: creation,creation-with-upload,checksum,dockd-receipt\r\n\r\n"
    )
    answers = [
        options,
        "HTTP/1.1 201 Created\r\nLocation: /files/1\r\nUpload-Offset: 4\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nUpload-Offset: 4\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nUpload-Offset: 7\r\nDockd-Receipt: a.b.c\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\na.b-_.c",
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answers:
            heads.append(await head_of(reader))
            bodies.append(await reader.readexactly(int(heads[-1].get("content-length", "0"))))
            writer.write(answers.pop(0).encode())

    data, digest = b"data", hashlib.sha256(b"data").digest()
    async with target_at(serve) as (target, url):
        assert await target.discover() == TargetProperties(
            creation_with_upload=True, checksum_sha256=True, receipts=True
        )
        assert await target.create(spec_of(data), data, digest) == Created(url, 4)
        assert await target.offset(url) == 4
        appended = await target.append(
            url, 4, 3, chunks(3, b"new"), chunk_sha256=digest, whole_sha256=digest
        )
        assert appended == Appended(7, "a.b.c")
        assert await target.receipt(url) == ReceiptPending(3)
        assert await target.receipt(url) == "a.b-_.c"

    assert [head[""].rpartition(" ")[0] for head in heads] == [
        "OPTIONS /files/",
        "POST /files/",
        "HEAD /files/1",
        "PATCH /files/1",
        "GET /files/1/receipt",
        "GET /files/1/receipt",
    ]
    assert {head["tus-resumable"] for head in heads} == {"1.0.0"}
    create, append = heads[1], heads[3]
    assert bodies[1] == data
    assert bodies[3] == b"new"
    assert create["upload-length"] == "4"
    assert create["idempotency-key"] == "key-1"
    assert append["upload-offset"] == "4"
    assert append["content-length"] == "3"
    for head in (create, append):
        assert head["content-type"] == "application/offset+octet-stream"
        assert head["upload-checksum"].startswith("sha256 ")
        assert head["repr-digest"].startswith("sha-256=:")
        assert "transfer-encoding" not in head
        assert "expect" not in head


async def test_nothing_is_used_before_it_was_offered() -> None:
    heads: list[dict[str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(b"HTTP/1.1 201 Created\r\nLocation: 1\r\nContent-Length: 0\r\n\r\n")

    async with target_at(serve) as (target, url):
        assert await target.create(spec_of(b"data"), b"data", bytes(32)) == Created(url, 0)
    assert heads[0].get("content-length", "0") == "0"
    assert "upload-checksum" not in heads[0]


# Connections that break


async def test_nobody_listens() -> None:
    async with TusTarget("http://127.0.0.1:1/files/") as target:
        with pytest.raises(TargetUnavailableError, match=r"no connection"):
            await target.discover()


async def test_a_host_that_does_not_even_refuse() -> None:
    """What comes in while the queue of new connections is full is dropped, as by a firewall."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = full.getsockname()
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        async with TusTarget(f"http://127.0.0.1:{address[1]}/", connect_timeout_s=0.1) as target:
            with pytest.raises(TargetUnavailableError, match=r"no connection in time"):
                await target.discover()


async def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    async with TusTarget("http://store.invalid/files/") as target:
        with pytest.raises(TargetUnavailableError, match=r"DNS"):
            await target.discover()


async def test_tls_with_a_server_that_speaks_none() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with target_at(serve) as (_, url):
        base = url.replace("http:", "https:").removesuffix("1")
        async with TusTarget(base) as target:
            with pytest.raises(TargetUnavailableError, match=r"TLS failed"):
                await target.discover()


async def test_a_server_that_closes_without_an_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.close()

    async with target_at(serve) as (target, url):
        with pytest.raises(TargetUnavailableError, match=r"closed the connection"):
            await target.offset(url)


@pytest.mark.parametrize("taken", [0, 1, 100_000, 5 << 20])
async def test_a_connection_cut_in_the_middle_of_the_request(taken: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.readexactly(taken)
        writer.transport.abort()

    source = MemorySource(bytes(MANY_BYTES), chunk_bytes=1 << 20)
    async with target_at(serve) as (target, url):
        with pytest.raises(TargetUnavailableError):
            await target.append(url, 0, MANY_BYTES, source.chunks(MANY_BYTES))


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 204 No Con",
        "HTTP/1.1 204 No Content\r\nUpload-Off",
        "HTTP/1.1 204 No Content\r\nUpload-Offset: 5\r\n",
        "no HTTP at all\r\n\r\n",
        "",
    ],
)
async def test_a_truncated_or_senseless_answer(answer: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.readexactly(5)
        writer.write(answer.encode())
        await writer.drain()

    async with target_at(serve) as (target, url):
        with pytest.raises(TargetUnavailableError):
            await target.append(url, 0, 5, chunks(5))


async def test_a_receipt_cut_short_is_no_receipt() -> None:
    """INV-1: half a receipt proves nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\naaa.bbb.ccc")
        await writer.drain()

    async with target_at(serve) as (target, url):
        with pytest.raises(TargetUnavailableError, match=r"cut short"):
            await target.receipt(url)


# Servers that stand still


async def test_a_server_that_stops_reading_is_noticed_by_lack_of_progress() -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await asyncio.Event().wait()

    source = MemorySource(bytes(MANY_BYTES), chunk_bytes=1 << 20)
    async with target_at(serve, stall_timeout_s=STALL_S) as (target, url):
        with pytest.raises(TargetUnavailableError, match=r"took no byte"):
            await target.append(url, 0, MANY_BYTES, source.chunks(MANY_BYTES))


async def test_a_server_that_never_answers_is_noticed() -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.Event().wait()

    async with target_at(serve, stall_timeout_s=STALL_S) as (target, url):
        with pytest.raises(TargetUnavailableError, match=r"no answer in time"):
            await target.append(url, 0, 5, chunks(5))
        with pytest.raises(TargetUnavailableError, match=r"no answer in time"):
            await target.offset(url)


@pytest.mark.parametrize("drips", ["HTTP/1.1 204 No Content\r\nX: ", "HTTP/1.1 200 OK\r\n\r\n"])
async def test_an_answer_that_drips_for_ever_ends(drips: str) -> None:
    """Every byte is progress, but a short answer has no reason to take long in all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(drips.encode())
        while True:
            await asyncio.sleep(STALL_S / 10)
            writer.write(b"a")

    async with (
        serving(serve) as url,
        TusTarget(url, connect_timeout_s=STALL_S, stall_timeout_s=STALL_S) as target,
    ):
        with pytest.raises(TargetUnavailableError, match=r"no whole answer in time"):
            await target.receipt(f"{url}1")


async def test_a_refusal_counts_although_its_words_drip_for_ever() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.readexactly(5)
        writer.write(b"HTTP/1.1 507 Full\r\n\r\ndisk full")
        while True:
            await asyncio.sleep(STALL_S / 10)
            writer.write(b"!")

    async with target_at(serve, stall_timeout_s=STALL_S) as (target, url):
        with pytest.raises(TargetFullError, match=r"disk full!"):
            await target.append(url, 0, 5, chunks(5))


# Answers that come early


async def answer_early(writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 9\r\nRetry-After: 30\r\n\r\n"
    )
    writer.write(b"disk full")
    await writer.drain()


async def test_an_early_refusal_is_heard_while_the_server_still_reads() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.readexactly(1 << 20)
        await answer_early(writer)
        await reader.read()

    source = MemorySource(bytes(MANY_BYTES), chunk_bytes=1 << 20)
    async with target_at(serve) as (target, url):
        with pytest.raises(TargetFullError, match=r"disk full") as caught:
            await target.append(url, 0, MANY_BYTES, source.chunks(MANY_BYTES))
    assert caught.value.retry_after_s == 30
    assert source.position < MANY_BYTES


async def test_an_early_refusal_is_heard_from_a_server_that_stops_reading() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await answer_early(writer)
        await asyncio.Event().wait()

    async with target_at(serve) as (target, url):
        with pytest.raises(TargetFullError):
            await target.append(url, 0, MANY_BYTES, chunks(MANY_BYTES))


@pytest.mark.parametrize("repetition", range(20))
async def test_an_early_refusal_is_heard_although_the_connection_is_reset(repetition: int) -> None:
    """The server answers and closes with our bytes unread: the kernel resets the connection."""
    del repetition

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await reader.readexactly(1 << 20)
        await answer_early(writer)
        writer.close()

    async def never_pausing() -> AsyncIterator[bytes]:
        # Writing without ever going through the event loop makes the reset meet a write.
        while True:
            yield bytes(1000)

    async with target_at(serve) as (target, url):
        with pytest.raises(TargetFullError, match=r"disk full"):
            await target.append(url, 0, 1 << 40, never_pausing())


async def test_success_before_all_was_sent_is_a_lie() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        answer = f"HTTP/1.1 204 No Content\r\nUpload-Offset: {MANY_BYTES}\r\n\r\n"
        writer.write(answer.encode())
        await reader.read()

    async with target_at(serve) as (target, url):
        with pytest.raises(ProtocolViolationError):
            await target.append(url, 0, MANY_BYTES, chunks(MANY_BYTES))


async def test_an_upload_that_exists_is_found_before_its_body_was_sent() -> None:
    """A small recording is created again after a break: the store knows it, and reads no body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 204 No Content\r\nTus-Version: 1.0.0\r\n")
        writer.write(b"Tus-Extension: creation,creation-with-upload\r\n\r\n")
        await head_of(reader)
        writer.write(b"HTTP/1.1 201 Created\r\nLocation: /files/1\r\nUpload-Offset: 1024\r\n")
        writer.write(b"Content-Length: 0\r\n\r\n")
        await reader.read()

    data = bytes(MANY_BYTES)
    async with target_at(serve) as (target, url):
        await target.discover()
        created = await target.create(spec_of(data), data, hashlib.sha256(data).digest())
    assert created == Created(url, 1024)
