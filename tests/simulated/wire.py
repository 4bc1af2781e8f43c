"""The simulated store behind real HTTP: the contract of docs/upload-target.md, as simply as it goes.

A test may put a ``spoil`` between: it gets each request with what would answer it, and may change
either, so that a server can be made that breaks one clause and keeps the others.
"""

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import ClientError, web

from dockd.core.errors import (
    ProtocolViolationError,
    ReceiptRejectedError,
    TargetError,
    TargetUnavailableError,
)
from dockd.core.model import ReceiptPending, UploadKind, UploadSpec
from dockd.target.headers import decode_metadata
from tests.simulated.store import SimulatedStore

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Spoil = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

BYTES = "application/offset+octet-stream"


async def honest(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Spoil nothing."""
    return await handler(request)


@dataclass(slots=True)
class Wire:
    """``store`` as a server at ``url``. ``gives_back`` offers GET of uploads."""

    store: SimulatedStore
    spoil: Spoil = honest
    gives_back: bool = True
    url: str = ""
    metadata: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Serve on loopback for the length of the block, and return the URL."""

        @web.middleware
        async def spoiled(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self.spoil(request, lambda request: self._answered(request, handler))

        app = web.Application(middlewares=[spoiled])
        app.router.add_route("OPTIONS", "/files/", self._options)
        app.router.add_post("/files/", self._create)
        app.router.add_head("/files/{number}", self._head)
        app.router.add_patch("/files/{number}", self._patch)
        app.router.add_delete("/files/{number}", self._delete)
        app.router.add_get("/files/{number}", self._content, allow_head=False)
        app.router.add_get("/files/{number}/receipt", self._receipt, allow_head=False)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/files/"
            yield self.url
        finally:
            await runner.cleanup()

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ReceiptRejectedError as error:
            missing = ["listed"] if "not held" in str(error) else []
            text = json.dumps({"error": str(error), "missing": missing})
            return web.Response(status=409, text=text, content_type="application/json")
        except TargetError as error:
            return web.Response(status=error.status or 400, text=str(error))

    async def _options(self, _: web.Request) -> web.Response:
        offered = self.store.properties
        extensions = {
            "creation": True,
            "creation-with-upload": offered.creation_with_upload,
            "checksum": offered.checksum_sha256,
            "dockd-receipt": offered.receipts,
        }
        fields = {
            "Tus-Version": "1.0.0",
            "Tus-Extension": ",".join(name for name, there in extensions.items() if there),
            "Tus-Checksum-Algorithm": "sha256",
            "Dockd-Durability": "offset, receipt",
        }
        return web.Response(status=204, headers=fields)

    async def _create(self, request: web.Request) -> web.Response:
        spec = _spec(request)
        body = await request.read() if request.body_exists else None
        created = await self.store.create(spec, body, _checksum(request))
        self.metadata.setdefault(created.url, request.headers.get("Upload-Metadata", ""))
        number = created.url.rpartition("/")[2]
        fields = {"Location": f"/files/{number}", "Upload-Offset": str(created.offset)}
        if created.receipt is not None:
            fields["Dockd-Receipt"] = created.receipt
        return web.Response(status=201, headers=fields)

    async def _head(self, request: web.Request) -> web.Response:
        url = self.upload_url(request)
        fields = {
            "Upload-Offset": str(await self.store.offset(url)),
            "Upload-Length": str(self.store.uploads[url].spec.size_bytes),
        }
        if self.metadata[url]:
            fields["Upload-Metadata"] = self.metadata[url]
        return web.Response(headers=fields)

    async def _patch(self, request: web.Request) -> web.Response:
        url, offset = self.upload_url(request), int(request.headers["Upload-Offset"])
        length = request.content_length or 0
        upload = self.store.uploads.get(url)
        if upload is not None and offset + length > upload.spec.size_bytes:
            return web.Response(status=413)
        digest = request.headers.get("Repr-Digest", "").partition(":")[2].removesuffix(":")
        appended = await self.store.append(
            url,
            offset,
            length,
            _body(request),
            chunk_sha256=_checksum(request),
            whole_sha256=decode_metadata(f"x {digest}")["x"] if digest else None,
        )
        fields = {"Upload-Offset": str(appended.offset)}
        if appended.receipt is not None:
            fields["Dockd-Receipt"] = appended.receipt
        return web.Response(status=204, headers=fields)

    async def _delete(self, request: web.Request) -> web.Response:
        url = self.upload_url(request)
        if url in self.store.uploads and self.store.uploads[url].complete:
            return web.Response(status=403)
        self.store.forget(url)
        return web.Response(status=204)

    async def _content(self, request: web.Request) -> web.StreamResponse:
        url = self.upload_url(request)
        if not self.gives_back:
            return web.Response(status=405)
        await self.store.offset(url)
        return web.Response(body=b"".join([piece async for piece in self.store.content(url)]))

    async def _receipt(self, request: web.Request) -> web.Response:
        answer = await self.store.receipt(self.upload_url(request))
        if isinstance(answer, ReceiptPending):
            return web.Response(status=202, headers={"Retry-After": "1"})
        return web.Response(text=answer, content_type="application/jwt")

    def upload_url(self, request: web.Request) -> str:
        """Return the URL by which the simulated store knows an upload."""
        return f"sim://{self.store.store_id}/files/{request.match_info['number']}"


def _spec(request: web.Request) -> UploadSpec:
    metadata = decode_metadata(request.headers.get("Upload-Metadata", ""))

    def text(name: str) -> str:
        return metadata.get(name, b"").decode(errors="backslashreplace")

    return UploadSpec(
        key=request.headers.get("Idempotency-Key") or secrets.token_hex(8),
        kind=UploadKind(text("kind") or "recording"),
        path=metadata.get("filename", b""),
        size_bytes=int(request.headers["Upload-Length"]),
        mtime_ns=int(text("mtime_ns") or "0"),
        dock=text("dock"),
        camera=text("camera"),
        visit=text("visit"),
        custody_head=text("custody_head"),
        flagged="flagged" in metadata,
    )


def _checksum(request: web.Request) -> bytes | None:
    value = request.headers.get("Upload-Checksum")
    if value is None:
        return None
    try:
        return decode_metadata(value)["sha256"]
    except KeyError:
        raise ProtocolViolationError("only sha256 is known", status=400) from None


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.content.iter_any():
            yield piece
    except (ClientError, ConnectionError) as error:
        raise TargetUnavailableError("the client has gone") from error
