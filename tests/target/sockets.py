"""Servers on loopback that do exactly as a test says, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from dockd.target.tus import TusTarget

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STALL_S = 0.1
MANY_BYTES = 32 << 20


@asynccontextmanager
async def target_at(
    serve: Serve, *, stall_timeout_s: float = 30.0
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
