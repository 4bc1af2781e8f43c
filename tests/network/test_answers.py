"""Answers that a network or an ailing store gives: the visit waits, goes on by itself, and ends well."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.faults.front import Front
from tests.network.station import LARGE_BYTES, SMALL_BYTES, Station

Answer = Callable[[Front, web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class First:
    """So many requests, of one method or of any, meet an answer."""

    count: int
    method: str | None
    answer: Answer
    struck: int = 0

    def is_for(self, request: web.Request) -> bool:
        return self.struck < self.count and self.method in (None, request.method)


def says(status: int, **fields: str) -> Answer:
    """Answer without asking the store; an underscore in a field's name stands for a hyphen."""

    async def answer(_: Front, __: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status, headers={name.replace("_", "-"): value for name, value in fields.items()}
        )

    return answer


async def survives(
    path: Path, *faults: First, sizes_bytes: tuple[int, ...], most_requests: int = 25
) -> list[dict[str, Any]]:
    """Let a visit meet the faults, and see that it did."""

    async def fault(front: Front, request: web.Request) -> web.StreamResponse:
        strikes = next((one for one in faults if one.is_for(request)), None)
        if strikes is None:
            return await front.pass_on(request)
        strikes.struck += 1
        return await strikes.answer(front, request)

    async with Station.built(path, with_front=True) as station:
        assert station.front is not None
        station.front.fault = fault
        retries = await station.survives(sizes_bytes=sizes_bytes, most_requests=most_requests)
    assert all(one.struck for one in faults)
    return retries


# Storms


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 507])
async def test_a_storm_of_refusals_passes(fast_path: Path, status: int) -> None:
    """INV-1, INV-3: 5xx for whatever is asked; a store that is full and finds room again."""
    storm = First(20, None, says(status))
    await survives(fast_path, storm, sizes_bytes=(SMALL_BYTES, LARGE_BYTES), most_requests=60)


def in_a_second() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)


@pytest.mark.parametrize("wanted", [lambda: "1", in_a_second], ids=["seconds", "date"])
@pytest.mark.parametrize("status", [503, 507])
async def test_a_store_says_when_to_come_again(
    fast_path: Path, status: int, wanted: Callable[[], str]
) -> None:
    async def busy(_: Front, __: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Retry-After": wanted()})

    retries = await survives(fast_path, First(1, "POST", busy), sizes_bytes=(SMALL_BYTES,))
    assert [line["status"] for line in retries] == [status]
    assert 1 <= retries[0]["wait_s"] <= 3


async def test_a_lock_of_a_connection_that_vanished_is_outlived(fast_path: Path) -> None:
    """423 never makes a second upload."""
    retries = await survives(
        fast_path, First(12, "PATCH", says(423)), sizes_bytes=(LARGE_BYTES,), most_requests=50
    )
    assert [line["status"] for line in retries] == [423] * 12


# Offsets


def lies_about_the_offset(change: Callable[[int], int]) -> Answer:
    async def answer(front: Front, request: web.Request) -> web.StreamResponse:
        said = await front.pass_on(request)
        said.headers["Upload-Offset"] = str(change(int(said.headers["Upload-Offset"])))
        return said

    return answer


@pytest.mark.parametrize(
    "change",
    [lambda offset: offset + 500_000, lambda _: 1, lambda _: -1, lambda _: 10**12],
    ids=["larger", "smaller", "negative", "beyond the end"],
)
async def test_a_conflict_with_a_wrong_offset(
    fast_path: Path, change: Callable[[int], int]
) -> None:
    """INV-1: the dock begins where it is told to, and the store tells it better the next time."""
    conflict = First(1, "PATCH", says(409))
    lie = First(1, "HEAD", lies_about_the_offset(change))

    await survives(fast_path, conflict, lie, sizes_bytes=(LARGE_BYTES,))


# Repetition and loss


@pytest.mark.parametrize("heard", [0, 1], ids=["first answer heard", "second answer heard"])
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one after the other"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_request_arrives_twice(
    fast_path: Path, method: str, heard: int, at_once: bool
) -> None:
    """No second copy: the key finds the upload, and the offset fits only once."""

    async def twice(front: Front, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        passed = [front.pass_on(request, body=body) for _ in range(2)]
        answers = await asyncio.gather(*passed) if at_once else [await one for one in passed]
        return answers[heard]

    size_bytes = SMALL_BYTES if method == "POST" else LARGE_BYTES
    await survives(fast_path, First(10, method, twice), sizes_bytes=(size_bytes,))


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PATCH"])
async def test_answers_are_lost_after_the_store_has_done_its_work(
    fast_path: Path, method: str
) -> None:
    """INV-3: no second copy appears, and what the store has is not sent again."""

    async def loses(front: Front, request: web.Request) -> web.StreamResponse:
        await front.pass_on(request)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    size_bytes = SMALL_BYTES if method == "POST" else LARGE_BYTES
    await survives(fast_path, First(3, method, loses), sizes_bytes=(size_bytes,))


# Limits and detours


@pytest.mark.parametrize("most_bytes", [1 << 20, 100_000])
async def test_a_proxy_takes_only_smaller_requests(fast_path: Path, most_bytes: int) -> None:
    """INV-2: footage is not set aside because something on the way has a limit: it goes in pieces."""
    taken: list[int] = []

    async def limits(front: Front, request: web.Request) -> web.StreamResponse:
        length = request.content_length or 0
        if length > most_bytes:
            return web.Response(status=413)
        taken.append(length)
        return await front.pass_on(request)

    await survives(
        fast_path,
        First(1_000, None, limits),
        sizes_bytes=(900_000, 3_000_000),
        most_requests=200,
    )
    assert max(taken) > most_bytes / 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("method", ["OPTIONS", "POST", "HEAD", "PATCH", "GET"])
@pytest.mark.parametrize("size_bytes", [SMALL_BYTES, LARGE_BYTES])
async def test_a_redirect_on_the_same_host_is_followed(
    fast_path: Path, method: str, status: int, size_bytes: int
) -> None:
    """Every request of a method is sent on to the same path under another one."""

    async def redirects(front: Front, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/elsewhere/"):
            return await front.pass_on(request, path=request.path.removeprefix("/elsewhere"))
        if request.method == method:
            return web.Response(status=status, headers={"Location": f"/elsewhere{request.path}"})
        return await front.pass_on(request)

    interrupted = First(1, "PATCH", says(503)) if method == "HEAD" else None
    faults = [First(1_000, None, redirects)]
    if interrupted is not None and size_bytes == LARGE_BYTES:
        faults.insert(0, interrupted)
    await survives(fast_path, *faults, sizes_bytes=(size_bytes,), most_requests=40)


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PATCH"])
async def test_a_redirect_to_another_host_is_refused(fast_path: Path, method: str) -> None:
    """Footage goes nowhere else: the other host is not even asked."""
    callers: list[str] = []

    async def called(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(str(writer.get_extra_info("peername")))
        writer.close()

    other = await asyncio.start_server(called, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    elsewhere = says(307, Location=f"http://127.0.0.1:{port}/files/1")
    async with other:
        retries = await survives(fast_path, First(3, method, elsewhere), sizes_bytes=(LARGE_BYTES,))
    assert callers == []
    assert {line["error"] for line in retries} == {"ProtocolViolationError"}


async def test_redirects_that_go_in_circles_end(fast_path: Path) -> None:
    circle = says(307, Location="/files/")
    retries = await survives(
        fast_path, First(12, "POST", circle), sizes_bytes=(SMALL_BYTES,), most_requests=40
    )
    assert {line["error"] for line in retries} == {"ProtocolViolationError"}
