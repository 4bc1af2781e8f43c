"""Cancelled at any await, an upload leaves nothing behind, and the next one finishes it (INV-3)."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dockd.core.errors import TargetFaultError, UploadGoneError
from dockd.target.tus import TusTarget
from dockd.target.uploader import Sent, Uploader
from tests.simulated.clock import SimulatedClock, run_virtual
from tests.simulated.source import MemorySource, spec_of
from tests.simulated.store import APPEND, OFFSET, SimulatedStore
from tests.target.dock_side import LARGE, SMALL, DockSide

NEVER = 1_000_000


class CancelledAt:
    """Awaits a coroutine and cancels the task at its Nth suspension. ``reached`` says if it came to it."""

    def __init__(self, main: Coroutine[Any, Any, Sent], suspension: int) -> None:
        self._main = main
        self._left = suspension
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Sent]:
        steps = self._main.__await__()
        try:
            waiting_for = next(steps)
            while True:
                self._left -= 1
                if self._left == 0:
                    self.reached = True
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                try:
                    yield waiting_for
                except BaseException as error:  # noqa: BLE001 (handed on to the coroutine)
                    waiting_for = steps.throw(error)
                else:
                    waiting_for = next(steps)
        except StopIteration as done:
            result: Sent = done.value
            return result


async def awaited(steps: CancelledAt) -> Sent:
    return await steps


def stormy(store: SimulatedStore) -> None:
    """Order faults that lead the upload through every branch: cuts, conflict, loss, backoff."""
    store.cut_append(after_bytes=3000)
    store.fail_next(OFFSET, TargetFaultError("oops", status=500))
    store.lose_answer(APPEND)


def gone(store: SimulatedStore) -> None:
    store.cut_append(after_bytes=3000)
    store.fail_next(OFFSET, UploadGoneError("gone", status=404))


@pytest.mark.parametrize("faults", [lambda _: None, stormy, gone], ids=["calm", "stormy", "gone"])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=len)
def test_cancelled_at_any_await_of_send(
    data: bytes, faults: Callable[[SimulatedStore], None]
) -> None:
    async def one(suspension: int) -> bool:
        loop = asyncio.get_running_loop()
        store = SimulatedStore(SimulatedClock(loop), latency_s=0.2)
        faults(store)
        dock, source = DockSide(store), MemorySource(data)
        steps = CancelledAt(dock.send(data, source=source), suspension)
        task = loop.create_task(awaited(steps))
        await asyncio.wait([task])
        assert task.cancelled() is steps.reached
        assert source.readers == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not any(upload.locked for upload in store.uploads.values())

        store.calm()
        sent = await dock.send(data, url=dock.urls[-1] if dock.urls else None)
        receipt = sent.receipt or await dock.uploader.receipt(sent.url)
        assert store.verifier.verify(receipt).sha256 == sent.sha256
        assert list(store.objects.values()) == [data]
        assert len(store.uploads) == 1
        return steps.reached

    async def all_of_them() -> int:
        suspension = 1
        while await one(suspension):
            suspension += 1
        return suspension

    assert run_virtual(all_of_them()) > 5


class OneUpload:
    """A tus server over a socket with a single upload, in memory."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.created = 0
        self.app = web.Application()
        self.app.router.add_route("OPTIONS", "/files/", self._options)
        self.app.router.add_post("/files/", self._create)
        self.app.router.add_head("/files/1", self._offset)
        self.app.router.add_patch("/files/1", self._append)

    async def _options(self, _: web.Request) -> web.Response:
        return web.Response(headers={"Tus-Version": "1.0.0", "Tus-Extension": "creation"})

    async def _create(self, _: web.Request) -> web.Response:
        self.created += 1
        return web.Response(status=201, headers={"Location": "/files/1"})

    async def _offset(self, _: web.Request) -> web.Response:
        return web.Response(headers={"Upload-Offset": str(len(self.data))})

    async def _append(self, request: web.Request) -> web.Response:
        if int(request.headers["Upload-Offset"]) != len(self.data):
            return web.Response(status=409)
        async for piece in request.content.iter_any():
            self.data += piece
        return web.Response(status=204, headers={"Upload-Offset": str(len(self.data))})


async def test_cancelled_at_any_await_of_a_real_connection() -> None:
    """The same over sockets: no task, no reader and no connection stays."""

    class SlowSource(MemorySource):
        async def chunks(self, end: int) -> AsyncIterator[bytes]:
            async for chunk in super().chunks(end):
                await asyncio.sleep(0)
                yield chunk

    async def send(target: TusTarget, source: MemorySource, url: str | None) -> Sent:
        uploader = Uploader(target, rng=random.Random(7), last_chunk_bytes=64)
        return await uploader.send(
            spec_of(LARGE), source, url=url, on_created=_no_journal, on_progress=lambda _: None
        )

    suspension, reached = 0, True
    while reached:
        suspension += 1
        server = OneUpload()
        async with (
            TestServer(server.app) as running,
            TusTarget(str(running.make_url("/files/"))) as target,
        ):
            source = SlowSource(LARGE)
            steps = CancelledAt(send(target, source, None), suspension)
            task = asyncio.create_task(awaited(steps))
            await asyncio.wait([task])
            assert task.cancelled() is steps.reached
            assert source.readers == 0
            reached = steps.reached
            url = str(running.make_url("/files/1")) if server.created else None
            await send(target, MemorySource(LARGE), url)
            assert bytes(server.data) == LARGE
    assert suspension > 5


async def _no_journal(url: str) -> None:
    del url
