"""Servers on loopback that do exactly as a test says, byte by byte."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from yarl import URL

from dockd.target.connection import Connection
from dockd.target.tus import TusTarget

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STALL_S = 0.1
MANY_BYTES = 32 << 20


@asynccontextmanager
async def serving(
    serve: Serve, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Start a server that handles each connection with ``serve``; give its collection's URL."""
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

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield str(
            URL.build(scheme="https" if tls else "http", host=host, port=port, path="/files/")
        )
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@asynccontextmanager
async def target_at(
    serve: Serve,
    *,
    stall_timeout_s: float = 30.0,
    tls: ssl.SSLContext | None = None,
    connection: Connection = Connection(),  # noqa: B008 (immutable)
) -> AsyncIterator[tuple[TusTarget, str]]:
    """Start a server, and a client for it; give the client and an upload's URL."""
    async with (
        serving(serve, tls=tls) as base,
        TusTarget(base, connection=connection, stall_timeout_s=stall_timeout_s) as target,
    ):
        yield target, f"{base}1"


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


OFFERS = "HTTP/1.1 204 No Content\nTus-Version: 1.0.0\nTus-Extension: creation,dockd-receipt"
"""A friendly answer to OPTIONS, for :func:`saying`."""
