"""Reading back over real sockets, from servers that do not give back what they should. Guards INV-1."""

import asyncio
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.errors import (
    AdministrativeRefusalError,
    ProtocolViolationError,
    ReceiptRejectedError,
    TargetError,
    TargetRefusedError,
    TargetUnavailableError,
    UploadGoneError,
)
from dockd.core.model import Confirm
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import ReceiptVerifier
from dockd.target.headers import metadata_of
from dockd.target.readback import DOWNLOADS, ReadbackTarget
from dockd.target.tus import TusTarget
from tests.simulated.proofs import ManualClock
from tests.simulated.source import spec_of
from tests.target.sockets import MANY_BYTES, STALL_S, Serve, chunks, head_of, target_at

KEY = SigningKey(Ed25519PrivateKey.generate())
DATA = b"footage" * 1000
SPEC = spec_of(DATA)


def state(offset: int = len(DATA), length: int = len(DATA), metadata: str | None = None) -> str:
    """What HEAD answers."""
    metadata = metadata_of(SPEC) if metadata is None else metadata
    fields = {"Upload-Offset": offset, "Upload-Length": length, "Upload-Metadata": metadata}
    return "HTTP/1.1 200 OK\n" + "".join(f"{name}: {value}\n" for name, value in fields.items())


def giving(head: str, answer: str, body: bytes = b"", *, close: bool = False) -> Serve:
    """Answer HEAD and GET."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while fields := await head_of(reader):
            if fields[""].startswith("HEAD"):
                writer.write(head.replace("\n", "\r\n").encode() + b"\r\n")
                continue
            writer.write(answer.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
            await writer.drain()
            if close:
                return

    return serve


def readback(target: TusTarget) -> ReadbackTarget:
    return ReadbackTarget(target, store_id="node", key=KEY, clock=ManualClock())


def ok(size: int, more: str = "") -> str:
    return f"HTTP/1.1 200 OK\nContent-Length: {size}{more}"


async def test_what_comes_is_what_is_signed_for() -> None:
    async with target_at(giving(state(), ok(len(DATA)), DATA)) as (target, url):
        claims = ReceiptVerifier("node", KEY.public, Confirm.READBACK).verify(
            await readback(target).receipt(url)
        )
    assert claims.sha256 == hashlib.sha256(DATA).hexdigest()
    assert (claims.size_bytes, claims.upload_id, claims.issuer) == (len(DATA), url, "node")
    assert (claims.dock, claims.camera, claims.visit) == (SPEC.dock, SPEC.camera, SPEC.visit)


@pytest.mark.parametrize(
    ("head", "answer", "body", "error"),
    [
        (state(), ok(len(DATA) - 1), DATA[:-1], ReceiptRejectedError),
        (state(), ok(len(DATA) + 1), DATA + b"x", ReceiptRejectedError),
        (state(), ok(0), b"", ReceiptRejectedError),
        (state(), ok(len(DATA), "\nContent-Encoding: gzip"), DATA, ProtocolViolationError),
        (state(), "HTTP/1.1 206 Partial\nContent-Length: 7", DATA[:7], ProtocolViolationError),
        (state(), "HTTP/1.1 202 Accepted\nContent-Length: 0", b"", ProtocolViolationError),
        (
            state(), "HTTP/1.1 302 Found\nLocation: http://127.0.0.1:1/\nContent-Length: 0", b"",
            ProtocolViolationError,
        ),
        (state(), "HTTP/1.1 405 No\nContent-Length: 0", b"", TargetRefusedError),
        (state(), "HTTP/1.1 403 No\nContent-Length: 0", b"", AdministrativeRefusalError),
        (state(), "HTTP/1.1 404 None\nContent-Length: 0", b"", UploadGoneError),
        (state(offset=7), ok(7), DATA[:7], UploadGoneError),
        (state(metadata=""), ok(len(DATA)), DATA, TargetRefusedError),
        (state(metadata="dock ?"), ok(len(DATA)), DATA, ProtocolViolationError),
        ("HTTP/1.1 200 OK\nUpload-Offset: 7\n", ok(7), DATA[:7], ProtocolViolationError),
        ("HTTP/1.1 410 Gone\n", ok(len(DATA)), DATA, UploadGoneError),
    ],
)  # fmt: skip
async def test_what_is_not_as_it_should_be_is_not_signed_for(
    head: str, answer: str, body: bytes, error: type[TargetError]
) -> None:
    async with target_at(giving(head, answer, body)) as (target, url):
        with pytest.raises(error) as caught:
            await readback(target).receipt(url)
    assert type(caught.value) is error


async def test_a_connection_that_breaks_gives_no_receipt() -> None:
    serve = giving(state(), ok(len(DATA)), DATA[:100], close=True)
    async with target_at(serve) as (target, url):
        with pytest.raises(TargetUnavailableError):
            await readback(target).receipt(url)


async def test_a_server_that_stops_giving_is_given_up() -> None:
    serve = giving(state(), ok(len(DATA)), DATA[:100])
    async with target_at(serve, stall_timeout_s=STALL_S) as (target, url):
        with pytest.raises(TargetUnavailableError, match="no answer in time"):
            await readback(target).receipt(url)


async def test_a_server_that_never_ends_is_left() -> None:
    """Nothing is kept of what comes, and little more is taken than should come."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await head_of(reader))[""].startswith("HEAD"):
            writer.write(state().replace("\n", "\r\n").encode() + b"\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n" % (1 << 16) + bytes(1 << 16) + b"\r\n"
        for _ in range(MANY_BYTES >> 16):
            writer.write(chunk)
            await writer.drain()
        raise AssertionError("the client took it all")

    async with target_at(serve) as (target, url):
        with pytest.raises(ReceiptRejectedError):
            await readback(target).receipt(url)


async def test_only_so_many_are_read_back_at_once() -> None:
    open_now = most = 0
    all_open = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        while True:
            if (await head_of(reader))[""].startswith("HEAD"):
                writer.write(state().replace("\n", "\r\n").encode() + b"\r\n")
                continue
            open_now += 1
            most = max(most, open_now)
            if open_now == DOWNLOADS:
                all_open.set()
            await all_open.wait()
            open_now -= 1
            writer.write(ok(len(DATA)).replace("\n", "\r\n").encode() + b"\r\n\r\n" + DATA)

    async with target_at(serve) as (target, url):
        confirming = readback(target)
        receipts = await asyncio.gather(*(confirming.receipt(url) for _ in range(DOWNLOADS * 2)))
    assert most == DOWNLOADS
    assert len(set(receipts)) == DOWNLOADS * 2


async def test_a_receipt_of_the_targets_own_is_no_proof() -> None:
    """Even where it signs, the dock reads back: that is what was chosen."""
    created = (
        "HTTP/1.1 201 Created\r\nLocation: /files/1\r\nDockd-Receipt: a.b.c\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    appended = "HTTP/1.1 204 No Content\r\nUpload-Offset: 7000\r\nDockd-Receipt: a.b.c\r\n\r\n"
    answers = [created, appended]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answers:
            fields = await head_of(reader)
            await reader.readexactly(int(fields.get("content-length", "0")))
            writer.write(answers.pop(0).encode())

    async with target_at(serve) as (target, _):
        confirming = readback(target)
        made = await confirming.create(SPEC, None, None)
        sent = await confirming.append(made.url, 0, len(DATA), chunks(len(DATA)))
    assert (made.receipt, sent.receipt) == (None, None)
