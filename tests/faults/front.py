"""A server before the store that passes everything on, until it is told to misbehave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

Fault = Callable[["Front", web.Request], Awaitable[web.StreamResponse]]

_OF_ONE_CONNECTION = frozenset({"transfer-encoding", "connection", "keep-alive", "date", "server"})


class Front:
    """``fault`` answers all requests while it is set; ``faults`` counts them."""

    def __init__(self, store: URL, session: aiohttp.ClientSession) -> None:
        self.fault: Fault | None = None
        self.faults = 0
        self._store = store
        self._session = session
        self._released = asyncio.Event()
        self._struck = asyncio.Event()
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def before(cls, store_url: str) -> AsyncIterator[Self]:
        """Run one for the length of the block."""
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            front = cls(URL(store_url), session)
            app = web.Application(client_max_size=0)
            app.router.add_route("*", "/{path:.*}", front._answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            front.url = f"http://127.0.0.1:{runner.addresses[0][1]}{front._store.path}"
            try:
                yield front
            finally:
                front._released.set()
                await runner.cleanup()

    async def pass_on(
        self,
        request: web.Request,
        cut_after: int | None = None,
        *,
        body: AsyncIterator[bytes] | bytes | None = None,
        path: str | None = None,
    ) -> web.Response:
        """Return the store's own answer; with ``cut_after`` it gets no more bytes than these.

        ``body`` is the request's, where it was read already; ``path`` is another than it asks for.
        """
        if body is None and request.body_exists:
            arriving = request.content.iter_any()
            body = arriving if cut_after is None else _cut(arriving, cut_after)
        async with self._session.request(
            request.method,
            self._store.with_path(path or request.path),
            headers=request.headers,
            data=body,
            allow_redirects=False,
        ) as answer:
            headers = [
                (name, value)
                for name, value in answer.headers.items()
                if name.lower() not in _OF_ONE_CONNECTION
            ]
            return web.Response(status=answer.status, headers=headers, body=await answer.read())

    async def struck(self, times: int) -> None:
        """Wait until so many requests have met a fault."""
        while self.faults < times:
            self._struck.clear()
            await self._struck.wait()

    async def hang(self, _: web.Request) -> web.StreamResponse:
        """Never answer."""
        await self._released.wait()
        raise web.HTTPServiceUnavailable

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.fault is None:
            return await self.pass_on(request)
        self.faults += 1
        self._struck.set()
        return await self.fault(self, request)


class _CutError(Exception):
    """The connection to the store breaks here."""


async def _cut(body: AsyncIterator[bytes], after_bytes: int) -> AsyncIterator[bytes]:
    async for piece in body:
        if len(piece) >= after_bytes:
            yield piece[:after_bytes]
            raise _CutError
        after_bytes -= len(piece)
        yield piece


def status(code: int) -> Fault:
    """Answer every request with this status."""

    async def answer(_: Front, __: web.Request) -> web.StreamResponse:
        return web.Response(status=code)

    return answer


async def hangs(front: Front, request: web.Request) -> web.StreamResponse:
    """Never answer."""
    return await front.hang(request)


async def closes(_: Front, request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


async def closes_half_way(front: Front, request: web.Request) -> web.StreamResponse:
    """Close both connections when a part of the body has come; the store keeps that part."""
    try:
        answer = await front.pass_on(request, cut_after=max(1, (request.content_length or 2) // 2))
    except (aiohttp.ClientError, _CutError):
        return await closes(front, request)
    return answer


async def cuts_its_answers(front: Front, request: web.Request) -> web.StreamResponse:
    """Let the store do its work, and break off in the answer's headers."""
    await front.pass_on(request)
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        request.transport.close()
    return web.Response()


def says_offset(change: Callable[[int], int | str]) -> Fault:
    """Let the store do its work, and lie about the offset."""

    async def answer(front: Front, request: web.Request) -> web.StreamResponse:
        said = await front.pass_on(request)
        if "Upload-Offset" in said.headers:
            said.headers["Upload-Offset"] = str(change(int(said.headers["Upload-Offset"])))
            said.headers.pop("Dockd-Receipt", None)
        return said

    return answer


async def is_a_portal(_: Front, __: web.Request) -> web.StreamResponse:
    """Answer as the portal of a guest network does: 200 and a page, whatever was asked."""
    return web.Response(text="<html>Please accept our terms.</html>", content_type="text/html")
