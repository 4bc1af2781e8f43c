"""The tus client against servers that lie, refuse or ramble, and cameras that fail on the way."""

import asyncio

import pytest

from dockd.core.errors import (
    CameraGoneError,
    ChecksumMismatchError,
    OffsetConflictError,
    ProtocolViolationError,
    ReceiptRejectedError,
    SourceChangedError,
    TargetError,
    TargetFaultError,
    TargetRefusedError,
    TargetUnavailableError,
    UploadGoneError,
)
from dockd.target.tus import TusTarget
from tests.simulated.source import MemorySource, spec_of
from tests.target.sockets import MANY_BYTES, chunks, head_of, saying, target_at

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


async def test_a_url_elsewhere_is_not_asked_and_unknown_here() -> None:
    """A dock that was given another store sends anew what it had begun to send to the one before."""
    async with TusTarget("http://127.0.0.1:1/files/") as target:
        for url in ("http://127.0.0.1:2/files/1", "https://127.0.0.1:1/files/1", "files/1"):
            with pytest.raises(UploadGoneError):
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
