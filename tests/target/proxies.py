"""An HTTP proxy on loopback that tunnels (CONNECT), and refuses as a test wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.target.sockets import head_of, serving


@dataclass
class Proxy:
    """``heads`` are the requests that came; ``refusal`` is what they get instead of a tunnel."""

    authorization: str | None = None
    refusal: str = ""
    url: str = ""
    heads: list[dict[str, str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await head_of(reader)
        self.heads.append(head)
        refusal = self.refusal
        if head.get("proxy-authorization") != self.authorization:
            refusal = "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic"
        if refusal:
            writer.write(f"HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        host, _, port = head[""].split(" ")[1].rpartition(":")
        there_reader, there_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_carry(reader, there_writer), _carry(there_reader, writer))
        finally:
            there_writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(64 << 10):
        writer.write(piece)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxy(authorization: str | None = None, refusal: str = "") -> AsyncIterator[Proxy]:
    """Run a proxy that wants this Proxy-Authorization."""
    made = Proxy(authorization, refusal)
    async with serving(made.serve) as url:
        made.url = url.removesuffix("/files/")
        yield made
