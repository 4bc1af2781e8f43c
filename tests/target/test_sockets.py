"""The tus client over real sockets, against servers that misbehave byte by byte."""

import asyncio
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from dockd.core.errors import (
    CameraGoneError,
    ChecksumMismatchError,
    OffsetConflictError,
    ProtocolViolationError,
    ReceiptRejectedError,
    SourceChangedError,
    TargetError,
    TargetFaultError,
    TargetFullError,
    TargetRefusedError,
    TargetUnavailableError,
    UploadGoneError,
)
from dockd.core.model import Appended, Created, ReceiptPending, TargetProperties
from dockd.target.tus import TusTarget
from tests.simulated.source import MemorySource, spec_of

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STALL_S = 0.1
MANY_BYTES = 32 << 20


@asynccontextmanager
async def target_at(
    serve: Serve, *, stall_timeout_s: float = 5.0
) -> AsyncIterator[tuple[TusTarget, str]]:
    """Start a server that handles each connection with ``serve``, and a client for it."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    base = f"http://127.0.0.1:{port}/files/"
    try:
        async with TusTarget(base, stall_timeout_s=stall_timeout_s) as target:
            yield target, f"{base}1"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def head_of(reader: asyncio.StreamReader) -> dict[str, str]:
    """Read a request's head; the request line is under the empty name."""
    request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = (line.partition(": ") for line in lines if line)
    return {"": request} | {name.lower(): value for name, _, value in fields}


def saying(answer: str, body: str = "") -> Serve:
    """Read whole requests and answer each with the same bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            fields = await head_of(reader)
            await reader.readexactly(int(fields.get("content-length", "0")))
            writer.write(answer.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body.encode())
            await writer.drain()

    return serve


async def chunks(count_bytes: int, piece: bytes = bytes(1 << 20)) -> AsyncIterator[bytes]:
    for begin in range(0, count_bytes, len(piece)):
        yield piece[: count_bytes - begin]


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


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server, TusTarget(f"https://127.0.0.1:{port}/files/") as target:
        with pytest.raises(TargetUnavailableError, match=r"certificate is not accepted"):
            await target.discover()


def self_signed(directory: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = directory / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return file


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


# Servers that lie


@pytest.mark.parametrize(
    "offset", ["", "\nUpload-Offset: 3", "\nUpload-Offset: 16", "\nUpload-Offset: -1"]
)
async def test_an_append_that_ends_nowhere_possible(offset: str) -> None:
    async with target_at(saying("HTTP/1.1 204 No Content" + offset)) as (target, url):
        with pytest.raises(ProtocolViolationError):
            await target.append(url, 5, 10, chunks(10))


async def test_an_append_may_end_short() -> None:
    async with target_at(saying("HTTP/1.1 204 No Content\nUpload-Offset: 12")) as (target, url):
        assert (await target.append(url, 5, 10, chunks(10))).offset == 12


@pytest.mark.parametrize("value", ["twelve", "-3", ""])
async def test_an_offset_that_is_no_number(value: str) -> None:
    answer = f"HTTP/1.1 200 OK\nContent-Length: 0\nUpload-Offset: {value}"
    async with target_at(saying(answer)) as (target, url):
        with pytest.raises(ProtocolViolationError):
            await target.offset(url)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://127.0.0.1:1/files/1",
        "https://127.0.0.1/files/1",
        "//evil.example/files/1",
        "http://[broken",
    ],
)
async def test_an_upload_elsewhere_gets_no_footage(location: str) -> None:
    answer = f"HTTP/1.1 201 Created\nContent-Length: 0\nLocation: {location}"
    async with target_at(saying(answer)) as (target, _):
        with pytest.raises(ProtocolViolationError):
            await target.create(spec_of(b"data"), None, None)


@pytest.mark.parametrize("location", ["{base}abc%2Fdef", "/files/abc%2Fdef", "abc%2Fdef"])
async def test_a_location_is_taken_as_it_is_or_relative(location: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fields = await head_of(reader)
        where = location.format(base=f"http://{fields['host']}/files/")
        writer.write(
            f"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nLocation: {where}\r\n\r\n".encode()
        )

    async with target_at(serve) as (target, url):
        created = await target.create(spec_of(b"data"), None, None)
    assert created.url == url.removesuffix("1") + "abc%2Fdef"


async def test_a_url_elsewhere_is_not_asked() -> None:
    async with TusTarget("http://127.0.0.1:1/files/") as target:
        for url in ("http://127.0.0.1:2/files/1", "https://127.0.0.1:1/files/1", "files/1"):
            with pytest.raises(ProtocolViolationError):
                await target.offset(url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    answer = f"HTTP/1.1 {status} Moved\nContent-Length: 0\nLocation: http://127.0.0.1:1/login"
    async with target_at(saying(answer)) as (target, url):
        with pytest.raises(ProtocolViolationError, match=r"redirects"):
            await target.offset(url)
        with pytest.raises(ProtocolViolationError, match=r"redirects"):
            await target.append(url, 0, 5, chunks(5))


@pytest.mark.parametrize(
    "text", ["", "<html>Welcome</html>", "a.b", "a.b.c.d", "a.b.c=", "a" * 99_999]
)
async def test_what_is_no_receipt_is_not_taken_for_one(text: str) -> None:
    answer = saying(f"HTTP/1.1 200 OK\nContent-Length: {len(text)}", text)
    async with target_at(answer) as (target, url):
        with pytest.raises(ProtocolViolationError):
            await target.receipt(url)


# Words and errors


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, TargetRefusedError),
        (404, UploadGoneError),
        (409, OffsetConflictError),
        (460, ChecksumMismatchError),
        (500, TargetFaultError),
        (503, TargetUnavailableError),
    ],
)
async def test_a_refusal_carries_the_servers_words(
    status: int, expected: type[TargetError]
) -> None:
    words = "line one\n\n  line two " + "x" * 1000
    answer = saying(f"HTTP/1.1 {status} Oh\nContent-Length: {len(words)}\nRetry-After: 9", words)
    async with target_at(answer) as (target, url):
        with pytest.raises(
            expected, match=rf"PATCH {url}: {status} Oh: line one line two"
        ) as caught:
            await target.append(url, 0, 5, chunks(5))
    assert caught.value.status == status
    assert caught.value.retry_after_s == 9
    assert len(str(caught.value)) < 400


async def test_a_rejected_receipt_says_what_is_missing() -> None:
    words = '{"error": "not held", "missing": ["MOV_0001.MP4"]}'
    answer = saying(f"HTTP/1.1 409 Conflict\nContent-Length: {len(words)}", words)
    async with target_at(answer) as (target, url):
        with pytest.raises(ReceiptRejectedError, match=r"MOV_0001"):
            await target.receipt(url)


async def test_an_endless_error_page_is_cut() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()

    async with target_at(serve) as (target, url):
        with pytest.raises(TargetFaultError):
            await target.receipt(url)


@pytest.mark.parametrize(
    "error", [SourceChangedError("changed"), CameraGoneError("pulled")], ids=str
)
@pytest.mark.parametrize("fail_at", [0, 3 << 20])
async def test_a_cameras_error_is_not_disguised(error: SourceChangedError, fail_at: int) -> None:
    source = MemorySource(bytes(MANY_BYTES), chunk_bytes=1 << 20, fail_at=fail_at, error=error)
    async with target_at(saying("HTTP/1.1 204 No Content")) as (target, url):
        with pytest.raises(type(error)) as caught:
            await target.append(url, 0, MANY_BYTES, source.chunks(MANY_BYTES))
    assert caught.value is error
    assert source.readers == 0


@pytest.mark.parametrize("given", [0, 4, 6])
async def test_a_source_that_gives_another_length_is_refused(given: int) -> None:
    async with target_at(saying("HTTP/1.1 204 No Content\nUpload-Offset: 5")) as (target, url):
        with pytest.raises(SourceChangedError):
            await target.append(url, 0, 5, chunks(given))
