"""The store's requests: tus 1.0.0 with creation, checksum, expiration and termination, and receipts.

The contract that clients rely on is docs/upload-target.md. Bytes are taken by
:mod:`dockd.store.receiving`, receipts are made by :mod:`dockd.store.finishing`.
"""

import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from aiohttp import hdrs, web

from dockd.core.errors import JournalError, JournalUnwritableError
from dockd.core.model import UploadKind
from dockd.ops import events
from dockd.store import headers
from dockd.store.access import Access
from dockd.store.catalogue import Catalogue, Upload, UploadState
from dockd.store.expiry import Expiry
from dockd.store.finishing import Finishing
from dockd.store.headers import RequestRefusedError
from dockd.store.objects import Objects
from dockd.store.receipt_keys import ReceiptKeys
from dockd.store.receiving import (
    BUSY_RETRY_S,
    FULL_RETRY_S,
    PIECE_BYTES,
    ConnectionGoneError,
    Receiving,
)
from dockd.store.settings import StoreSettings
from dockd.store.threads import Threads
from dockd.store.uploads import Arrived, UnfinishedUploads, is_full

COLLECTION = "/files/"
CHECKING_RETRY_S = 1
RECEIPT_KEYS = f"{COLLECTION}receipt-keys"
ENROLMENT = "/enrolment"
"""Where :mod:`dockd.store.enrolling` answers; it looks at its callers itself."""
MAX_RECEIPT_HEADER = 4096
"""Longer receipts are only fetched, because HTTP clients bound the fields that they read."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_DOCK = web.RequestKey("dock", str)
_UPLOAD = "/files/{upload_id:[0-9a-f]{32}}"
_GONE = {
    UploadState.REFUSED: "this upload was refused; its receipt says why",
    UploadState.EXPIRED: "this upload has expired",
    UploadState.TERMINATED: "this upload was terminated",
}


@dataclass(frozen=True, slots=True)
class StoreApp:
    """Answers requests. Everything it needs is handed in; without ``access`` it takes all callers."""

    store_id: str
    settings: StoreSettings
    catalogue: Catalogue
    uploads: UnfinishedUploads
    objects: Objects
    receiving: Receiving
    finishing: Finishing
    expiry: Expiry
    threads: Threads
    now: Callable[[], datetime]
    keys: ReceiptKeys
    access: Access | None

    def build(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(middlewares=[self._answer_faults, self._let_in, self._speak_tus])
        for collection in (COLLECTION, COLLECTION.rstrip("/")):
            app.router.add_route(hdrs.METH_OPTIONS, collection, self._options)
            app.router.add_post(collection, self._create)
        app.router.add_route(hdrs.METH_OPTIONS, _UPLOAD, self._options)
        app.router.add_head(_UPLOAD, self._head)
        app.router.add_patch(_UPLOAD, self._patch)
        app.router.add_delete(_UPLOAD, self._delete)
        app.router.add_post(_UPLOAD, self._override)
        app.router.add_get(_UPLOAD + "/receipt", self._receipt, allow_head=False)
        app.router.add_get(RECEIPT_KEYS, self._receipt_keys, allow_head=False)
        return app

    # What all requests have in common

    @web.middleware
    async def _answer_faults(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RequestRefusedError as error:
            return _refusal(error)
        except ConnectionGoneError:
            return web.Response(status=400)  # nobody hears it
        except web.HTTPException as error:
            return _refusal(RequestRefusedError(error.status, error.reason))
        except JournalUnwritableError as error:
            return _fault(request, error, 507)
        except JournalError as error:
            return _fault(request, error, 500)
        except OSError as error:
            return _fault(request, error, 507 if is_full(error) else 500)

    @web.middleware
    async def _let_in(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let enrolled docks in, each to its own uploads only; others' look absent."""
        if self.access is None or request.path.startswith(ENROLMENT):
            return await handler(request)
        dock = (await self.access.require(request)).name
        upload_id = request.match_info.get("upload_id")
        if upload_id is not None:
            upload = await self.catalogue.find(upload_id)
            if upload is None or upload.dock != dock:
                raise RequestRefusedError(404, "no such upload")
        request[_DOCK] = dock
        return await handler(request)

    @web.middleware
    async def _speak_tus(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every request but OPTIONS says Tus-Resumable (tus, Core).

        Receipts and enrolment are not tus' business.
        """
        exempt = request.method in (hdrs.METH_OPTIONS, hdrs.METH_GET) or request.path.startswith(
            ENROLMENT
        )
        if not exempt and request.headers.get("Tus-Resumable") != headers.TUS_VERSION:
            raise RequestRefusedError(412, f"Tus-Resumable must be {headers.TUS_VERSION}")
        return await handler(request)

    # The requests

    async def _options(self, _request: web.Request) -> web.Response:
        answer = _answer(204)
        answer.headers["Tus-Extension"] = headers.TUS_EXTENSIONS
        answer.headers["Tus-Checksum-Algorithm"] = "sha256"
        answer.headers["Tus-Max-Size"] = str(self.settings.max_size_bytes)
        answer.headers["Dockd-Store"] = self.store_id
        answer.headers["Dockd-Durability"] = headers.DURABILITY
        return answer

    async def _create(self, request: web.Request) -> web.Response:
        if self.finishing.waiting >= self.settings.checks_waiting:
            raise RequestRefusedError(
                503, "too many uploads wait to be checked", retry_after_s=BUSY_RETRY_S
            )
        asked = self._asked_for(request)
        checksum = headers.parse_checksum(request.headers.get("Upload-Checksum"))
        if request.can_read_body:
            _require_bytes(request, 0, asked)
        if asked.size_bytes > PIECE_BYTES:
            await self.threads.run(self.uploads.require_room, asked.size_bytes)
        upload = await self.catalogue.create(asked)
        if upload.upload_id != asked.upload_id and await self.expiry.drop_if_due(upload):
            upload = await self.catalogue.create(asked)
        if upload.upload_id != asked.upload_id and await self._is_lost(upload):
            # Once its bytes are here again, the upload that has the key is sound, too.
            upload = await self.catalogue.create(replace(asked, idempotency_key=None))
        if upload.upload_id == asked.upload_id:
            offset = await self._take_first_bytes(request, upload, checksum)
        else:
            upload, arrived = await self._look(upload.upload_id)
            offset = arrived.size_bytes
        answer = await self._progress(201, upload, offset)
        answer.headers["Location"] = f"{COLLECTION}{upload.upload_id}"
        return answer

    async def _head(self, request: web.Request) -> web.Response:
        upload, arrived = await self._find(request)
        answer = _answer(200)
        if arrived.size_bytes < upload.size_bytes:
            expires = self.expiry.expires_at(upload, arrived)
            answer.headers["Upload-Expires"] = headers.format_expires(expires)
        answer.headers["Upload-Offset"] = str(arrived.size_bytes)
        answer.headers["Upload-Length"] = str(upload.size_bytes)
        if upload.metadata:
            answer.headers["Upload-Metadata"] = upload.metadata
        return answer

    async def _patch(self, request: web.Request) -> web.Response:
        offset = headers.parse_length("Upload-Offset", request.headers.get("Upload-Offset"))
        checksum = headers.parse_checksum(request.headers.get("Upload-Checksum"))
        announced = headers.parse_repr_digest(request.headers.get("Repr-Digest"))
        with self.receiving.lock(request.match_info["upload_id"]):
            upload, arrived = await self._find(request)
            _require_bytes(request, offset, upload)
            if offset != arrived.size_bytes:
                raise RequestRefusedError(
                    409, f"the upload's offset is {arrived.size_bytes}, not {offset}"
                )
            if offset < upload.size_bytes:
                if announced is not None:
                    upload = await self.catalogue.announce(upload, announced)
                offset = await self._take_bytes(request, upload, offset, checksum)
        return await self._progress(204, upload, offset)

    async def _delete(self, request: web.Request) -> web.Response:
        with self.receiving.lock(request.match_info["upload_id"]):
            upload, arrived = await self._find(request)
            if arrived.size_bytes == upload.size_bytes:
                raise RequestRefusedError(403, "finished footage is not deleted on request")
            await self.expiry.drop(upload, UploadState.TERMINATED)
        return _answer(204)

    async def _override(self, request: web.Request) -> web.Response:
        """Serve clients that can only POST (tus, Core, X-HTTP-Method-Override)."""
        method = request.headers.get("X-HTTP-Method-Override", "")
        handlers = {hdrs.METH_PATCH: self._patch, hdrs.METH_DELETE: self._delete}
        if method not in handlers:
            raise RequestRefusedError(405, "POST is for creating uploads")
        return await handlers[method](request)

    async def _receipt(self, request: web.Request) -> web.Response:
        upload_id = request.match_info["upload_id"]
        # Wait here and not at the client, which can only guess how long.
        await self.finishing.receipt(upload_id, self.settings.receipt_poll_s)
        upload, arrived = await self._look(upload_id)
        if upload.receipt is not None:
            return _answer(200, upload.receipt, headers.RECEIPT_CONTENT_TYPE)
        if upload.refusal is not None:
            return _answer(409, upload.refusal.to_json() + "\n", "application/json")
        if upload.state is not UploadState.RECEIVING:
            raise RequestRefusedError(410, _GONE[upload.state])
        if arrived.size_bytes < upload.size_bytes:
            raise RequestRefusedError(404, "no receipt: the upload is not complete")
        answer = _answer(202, "the bytes are being checked\n")
        answer.headers["Retry-After"] = str(CHECKING_RETRY_S)
        return answer

    async def _receipt_keys(self, _request: web.Request) -> web.Response:
        statements = await self.threads.run(self.keys.statements)
        return _answer(200, json.dumps({"statements": statements}) + "\n", "application/json")

    # What they share

    def _asked_for(self, request: web.Request) -> Upload:
        if "Upload-Defer-Length" in request.headers or "Upload-Concat" in request.headers:
            raise RequestRefusedError(400, "deferred lengths and concatenation are not offered")
        size_bytes = headers.parse_length("Upload-Length", request.headers.get("Upload-Length"))
        if size_bytes > self.settings.max_size_bytes:
            raise RequestRefusedError(
                413, f"an upload has at most {self.settings.max_size_bytes} bytes"
            )
        text = request.headers.get("Upload-Metadata", "")
        metadata = headers.parse_metadata(text)
        is_manifest = metadata.get("kind") == UploadKind.MANIFEST.encode()
        return Upload(
            upload_id=secrets.token_hex(16),
            kind=UploadKind.MANIFEST if is_manifest else UploadKind.RECORDING,
            path=metadata.get("filename", b""),
            size_bytes=size_bytes,
            mtime_ns=headers.parse_mtime_ns(metadata.get("mtime_ns", b"")),
            dock=_dock(request, headers.parse_claim("dock", metadata.get("dock", b""))),
            camera=headers.parse_claim("camera", metadata.get("camera", b"")),
            visit=headers.parse_claim("visit", metadata.get("visit", b"")),
            custody_head=headers.parse_claim("custody_head", metadata.get("custody_head", b"")),
            flagged="flagged" in metadata,
            idempotency_key=headers.parse_idempotency_key(request.headers.get("Idempotency-Key")),
            metadata=text,
            announced_sha256=headers.parse_repr_digest(request.headers.get("Repr-Digest")),
            created_at=self.now(),
        )

    async def _look(self, upload_id: str) -> tuple[Upload, Arrived]:
        """Return an upload and how much of it is here; 404 when there is no such upload.

        The bytes are looked at first: when its row still says ``receiving`` after that, they had not
        been taken away meanwhile by an upload that was just finished.
        """
        arrived = await self.receiving.arrived(upload_id)
        upload = await self.catalogue.find(upload_id)
        if upload is None:
            raise RequestRefusedError(404, "no such upload")
        if upload.state is UploadState.HELD:
            if await self._is_lost(upload):
                raise RequestRefusedError(404, "the store has lost this recording; send it again")
            arrived = replace(arrived, size_bytes=upload.size_bytes)
        return upload, arrived

    async def _is_lost(self, upload: Upload) -> bool:
        """Whether an upload was signed for and its object is gone, which is never an ordinary event."""
        if upload.sha256 is None or upload.state is not UploadState.HELD:
            return False
        if await self.threads.run(self.objects.holds, upload.sha256, upload.size_bytes):
            return False
        events.STORE_LOST.log(upload=upload.upload_id, sha256=upload.sha256)
        return True

    async def _find(self, request: web.Request) -> tuple[Upload, Arrived]:
        """Return an upload that can still be sent to, or is held; 404 and 410 otherwise."""
        upload, arrived = await self._look(request.match_info["upload_id"])
        if upload.state in _GONE:
            raise RequestRefusedError(410, _GONE[upload.state])
        if self.expiry.is_due(upload, arrived):
            raise RequestRefusedError(410, _GONE[UploadState.EXPIRED])
        return upload, arrived

    async def _take_first_bytes(
        self, request: web.Request, upload: Upload, checksum: bytes | None
    ) -> int:
        """Take what came along with the creation; an empty recording is complete with it."""
        if not request.can_read_body and upload.size_bytes > 0:
            return 0
        with self.receiving.lock(upload.upload_id):
            try:
                return await self._take_bytes(request, upload, 0, checksum)
            except RequestRefusedError as error:
                if error.status == headers.CHECKSUM_MISMATCH:
                    await self.expiry.drop(upload, UploadState.TERMINATED)
                raise

    async def _take_bytes(
        self, request: web.Request, upload: Upload, offset: int, checksum: bytes | None
    ) -> int:
        """Append the body to an upload, and queue it for its check with the last byte."""
        try:
            return await self.receiving.receive(
                request, upload.upload_id, offset=offset, end=upload.size_bytes, sha256=checksum
            )
        finally:
            # Even a request that broke off may have brought the last byte.
            arrived = await self.threads.run(self.uploads.arrived, upload.upload_id)
            if arrived.size_bytes == upload.size_bytes:
                self.finishing.submit(upload)

    async def _progress(self, status: int, upload: Upload, offset: int) -> web.Response:
        """Answer with the offset, and with the receipt if the upload is complete and it is ready."""
        answer = _answer(status)
        answer.headers["Upload-Offset"] = str(offset)
        receipt = upload.receipt
        if receipt is None and offset == upload.size_bytes:
            receipt = await self.finishing.receipt(upload.upload_id, self.settings.receipt_wait_s)
        if receipt is not None and len(receipt) <= MAX_RECEIPT_HEADER:
            answer.headers["Dockd-Receipt"] = receipt
            return answer
        await self.threads.run(self.uploads.sync_entries)
        if offset < upload.size_bytes:
            expires = self.now() + self.settings.expire_after
            answer.headers["Upload-Expires"] = headers.format_expires(expires)
        return answer


def _dock(request: web.Request, claimed: str) -> str:
    """Return whose upload this is: by the certificate, or as it says where none is asked for."""
    dock: str | None = request.get(_DOCK)
    if dock is None:
        return claimed
    if claimed not in ("", dock):
        raise RequestRefusedError(403, f"dock {dock!r} cannot send as dock {claimed!r}")
    return dock


def _require_bytes(request: web.Request, offset: int, upload: Upload) -> None:
    """See that a body is plain bytes that fit into the upload."""
    if request.content_type != headers.OFFSET_CONTENT_TYPE:
        raise RequestRefusedError(415, f"Content-Type must be {headers.OFFSET_CONTENT_TYPE}")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        raise RequestRefusedError(415, "the body must not be encoded")
    if offset + (request.content_length or 0) > upload.size_bytes:
        raise RequestRefusedError(413, "the body goes beyond Upload-Length")


def _answer(status: int, text: str | None = None, content_type: str = "text/plain") -> web.Response:
    fields = {
        "Tus-Resumable": headers.TUS_VERSION,
        "Tus-Version": headers.TUS_VERSION,
        hdrs.CACHE_CONTROL: "no-store",
    }
    return web.Response(
        status=status, text=text, content_type=content_type if text else None, headers=fields
    )


def _refusal(error: RequestRefusedError) -> web.Response:
    answer = _answer(error.status, f"{error}\n")
    if error.retry_after_s is not None:
        answer.headers[hdrs.RETRY_AFTER] = str(error.retry_after_s)
    return answer


def _fault(request: web.Request, error: Exception, status: int) -> web.Response:
    """Answer a request that failed on the store's own disk; it may pass, so it may be tried again."""
    events.STORE_FAULT.log(
        method=request.method, path=request.path, status=status, reason=str(error)
    )
    what = "is full" if status == 507 else "has a fault"
    return _refusal(
        RequestRefusedError(status, f"the store's disk {what}", retry_after_s=FULL_RETRY_S)
    )
