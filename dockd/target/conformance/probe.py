"""What the checks ask a server with: requests just as a check wants them, wrong ones included.

The dock's own client would not do: it never sends what it must not, and turns answers into errors.
"""

import asyncio
import hashlib
import io
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from dockd.core.errors import TargetError
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import ReceiptVerifier
from dockd.target import headers as wire
from dockd.target.broken import broken
from dockd.target.clock import ClockWatch
from dockd.target.connection import Connection
from dockd.target.credentials import Credentials

CAMERA = "dockd-target-check"
"""The camera that every upload of a check claims to be from, so that people can tell them apart."""

BYTES = "application/offset+octet-stream"
HELD_S = 0.3
"""How long a body that is held back stands still before the next request."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_LARGEST_BODY_BYTES = 16 << 20
_SHOWN_CHARS = 120


class DeviationError(Exception):
    """The server does something else than the contract says; the words say what."""


class NotOfferedError(Exception):
    """The server does not offer what is to be checked, and says so."""


class NotCheckedError(Exception):
    """It cannot be checked from here; the words say what is missing."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be checked, and what is known of it.

    ``dock`` and ``key`` are whom the checks appear as; ``verifier`` holds the pinned key, where there is
    one. ``patience_s`` bounds every wait for the server.
    """

    url: str
    key: SigningKey
    dock: str = CAMERA
    connection: Connection = field(default_factory=Connection)
    verifier: ReceiptVerifier | None = None
    patience_s: float = 90.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. ``headers`` ignores the case of names."""

    request: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def require(self, *statuses: int) -> Self:
        """Return itself if its status is one of these; raises DeviationError."""
        if self.status not in statuses:
            wanted = " or ".join(map(str, statuses))
            words = " ".join(self.body.decode(errors="replace").split())[:_SHOWN_CHARS]
            raise DeviationError(
                f"{self.request}: {self.status} instead of {wanted}"
                + (f" ({words})" if words else "")
            )
        return self

    def require_refusal(self) -> Self:
        """Return itself if it is a 4xx; raises DeviationError."""
        if not 400 <= self.status < 500:
            raise DeviationError(f"{self.request}: {self.status} instead of a refusal (4xx)")
        return self

    def offset(self) -> int:
        """Return its Upload-Offset; raises DeviationError."""
        return self._size("Upload-Offset")

    def length(self) -> int:
        """Return its Upload-Length; raises DeviationError."""
        return self._size("Upload-Length")

    def _size(self, name: str) -> int:
        value = self.headers.get(name, "")
        if not value.isdecimal():
            raise DeviationError(f"{self.request}: {name} is {value!r}, not a number of bytes")
        return int(value)


class Probe:
    """Requests to one server, and what it says it offers. Use as a context manager."""

    def __init__(self, subject: Subject) -> None:
        """Build for a server; nothing is asked yet."""
        self.subject = subject
        self.visit = f"target-check-{secrets.token_hex(4)}"
        self.offers: frozenset[str] = frozenset()
        self.unfinished: set[str] = set()
        self.finished: dict[str, int] = {}
        self._base = URL(subject.url)
        self._clock = ClockWatch()
        self._credentials = Credentials(subject.connection)
        self._session: aiohttp.ClientSession
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Read certificates and keys, and open the session. Raises KeyFileError."""
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(self._credentials)
            self._session = await opened.enter_async_context(
                aiohttp.ClientSession(
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    headers={"Accept-Encoding": "identity"},
                    timeout=aiohttp.ClientTimeout(total=self.subject.patience_s),
                )
            )
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection."""
        await self._opened.aclose()

    def require_offer(self, *extensions: str) -> None:
        """Raise NotOfferedError unless the server offers all of these."""
        missing = [name for name in extensions if name not in self.offers]
        if missing:
            raise NotOfferedError(f"{', '.join(missing)}: not offered")

    # The requests of the contract

    async def options(self) -> Reply:
        """Ask what the server offers."""
        return await self._ask("OPTIONS", self._base)

    async def create(
        self,
        size_bytes: int,
        *,
        body: bytes | None = None,
        key: str | None = None,
        metadata: Mapping[str, bytes | None] | None = None,
        digest: bytes | None = None,
        checksum: bytes | None = None,
    ) -> Reply:
        """Create an upload (POST). ``metadata`` changes some of what every upload is given."""
        fields = {
            "Upload-Length": str(size_bytes),
            "Upload-Metadata": wire.encode_metadata(self.metadata() | dict(metadata or {})),
            "Idempotency-Key": key or secrets.token_hex(16),
            **_digests(digest, checksum),
        }
        return await self.post(fields, body)

    async def post(self, fields: Mapping[str, str], body: bytes | None = None) -> Reply:
        """POST to the collection with exactly these fields, and the body's type if there is one."""
        if body is not None:
            fields = {**fields, "Content-Type": BYTES}
        reply = await self._ask("POST", self._base, fields, body)
        if reply.status == 201:
            size, url = int(fields["Upload-Length"]), self.location(reply)
            if reply.headers.get("Upload-Offset", "0") == str(size):
                self.finished[url] = size
            else:
                self.unfinished.add(url)
        return reply

    def metadata(self) -> dict[str, bytes | None]:
        """Return what a dock would say of a recording."""
        return {
            "filename": b"dockd-target-check/recording",
            "kind": b"recording",
            "mtime_ns": b"1700000000000000000",
            "dock": self.subject.dock.encode(),
            "camera": CAMERA.encode(),
            "visit": self.visit.encode(),
            "custody_head": b"0" * 64,
        }

    def location(self, reply: Reply) -> str:
        """Return the upload's URL; raises DeviationError when it is missing or leads elsewhere."""
        location = reply.headers.get("Location", "")
        try:
            url = self._base.join(URL(location, encoded=True))
        except ValueError:
            raise DeviationError(f"Location {location!r} is not a URL") from None
        if not location or url.origin() != self._base.origin():
            raise DeviationError(f"Location {location!r} is not on {self._base.origin()}")
        return str(url)

    async def head(self, url: str) -> Reply:
        """Ask where an upload is."""
        return await self._ask("HEAD", URL(url, encoded=True), {"Cache-Control": "no-store"})

    async def patch(
        self,
        url: str,
        offset: int,
        body: bytes | AsyncIterator[bytes],
        *,
        length: int | None = None,
        digest: bytes | None = None,
        checksum: bytes | None = None,
    ) -> Reply:
        """Send bytes; an iterator needs the ``length`` that is announced."""
        fields = {
            "Upload-Offset": str(offset),
            "Content-Type": BYTES,
            "Content-Length": str(len(body) if isinstance(body, bytes) else length),
            **_digests(digest, checksum),
        }
        return await self._ask("PATCH", URL(url, encoded=True), fields, body)

    async def delete(self, url: str) -> Reply:
        """Ask for an upload to be deleted."""
        return await self._ask("DELETE", URL(url, encoded=True))

    async def get(self, url: str) -> Reply:
        """Ask for what an upload holds."""
        return await self._ask("GET", URL(url, encoded=True))

    async def ask_for_receipt(self, url: str) -> Reply:
        """Ask for a receipt, once."""
        return await self._ask("GET", URL(url, encoded=True) / "receipt")

    async def receipt_keys(self) -> Reply:
        """Ask for the statements about newer receipt keys."""
        return await self._ask("GET", self._base / "receipt-keys")

    # What checks do again and again

    async def new_upload(self, size_bytes: int) -> str:
        """Create an upload that must succeed, and return its URL."""
        return self.location((await self.create(size_bytes)).require(201))

    async def send(
        self, data: bytes, *, key: str | None = None, digest: bytes | None = None
    ) -> str:
        """Bring the server to hold a recording, by creation and PATCH; return its URL."""
        created = (await self.create(len(data), key=key)).require(201)
        url = self.location(created)
        if data:
            whole = digest or hashlib.sha256(data).digest()
            reply = (await self.patch(url, 0, data, digest=whole)).require(204)
            if reply.offset() != len(data):
                raise DeviationError(f"{reply.request}: offset {reply.offset()}, not {len(data)}")
        self.is_finished(url, len(data))
        return url

    def is_finished(self, url: str, size_bytes: int) -> None:
        """Remember an upload that stays."""
        self.unfinished.discard(url)
        self.finished[url] = size_bytes

    async def receipt(self, url: str) -> Reply:
        """Ask until there is a receipt or a refusal; raises DeviationError after long patience."""
        async for _ in self.attempts("the receipt is still being checked"):
            reply = await self.ask_for_receipt(url)
            if reply.status != 202:
                return reply
        raise AssertionError("attempts never end without an error")

    async def settled_offset(self, url: str) -> int:
        """Ask until a lock is given back and the offset stands still."""
        before: int | None = None
        async for _ in self.attempts("the upload stays locked"):
            reply = await self.head(url)
            if reply.status != 423:
                offset = reply.require(200, 204).offset()
                if offset == before:
                    return offset
                before = offset
        raise AssertionError("attempts never end without an error")

    async def attempts(self, what: str) -> AsyncGenerator[None, None]:
        """Yield now and then, ever more rarely, until patience ends with DeviationError."""
        until, pause_s = asyncio.get_running_loop().time() + self.subject.patience_s, _FIRST_PAUSE_S
        while asyncio.get_running_loop().time() < until:
            yield
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        raise DeviationError(f"{what} after {self.subject.patience_s:g} seconds")

    async def broken_patch(self, url: str, offset: int, body: bytes, announced: int) -> None:
        """Announce more than ``body``, send it, and break the connection."""

        async def some() -> AsyncIterator[bytes]:
            yield body
            await asyncio.sleep(HELD_S)  # the bytes shall arrive before the end does
            raise ConnectionAbortedError

        try:
            await self.patch(url, offset, some(), length=announced)
        except TargetError:
            return
        raise DeviationError("PATCH was answered before its body had come")

    @asynccontextmanager
    async def held_patch(
        self, url: str, body: bytes, digest: bytes
    ) -> AsyncIterator["asyncio.Task[Reply | None]"]:
        """Send half of a body, and the rest when the block ends. The task's result is None for a break."""
        go_on = asyncio.Event()

        async def in_two() -> AsyncIterator[bytes]:
            yield body[: len(body) // 2]
            await go_on.wait()
            yield body[len(body) // 2 :]

        async def send() -> Reply | None:
            try:
                return await self.patch(url, 0, in_two(), length=len(body), digest=digest)
            except TargetError:
                return None

        task = asyncio.create_task(send())
        try:
            await asyncio.wait([task], timeout=HELD_S)
            yield task
            go_on.set()
            await asyncio.wait([task])
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _ask(
        self,
        method: str,
        url: URL,
        fields: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
    ) -> Reply:
        request = f"{method} {url}"
        try:
            async with self._session.request(
                method,
                url,
                headers={"Tus-Resumable": wire.TUS_VERSION, **(fields or {})},
                data=io.BytesIO(body) if isinstance(body, bytes) else body,
                allow_redirects=False,
                ssl=self._credentials.tls or True,
                proxy=self._credentials.proxy,
                proxy_headers=self._credentials.proxy_headers,
            ) as response:
                self._clock.heard(response.headers)
                raw = bytearray()
                async for piece in response.content.iter_any():
                    raw += piece
                    if len(raw) > _LARGEST_BODY_BYTES:
                        raise DeviationError(f"{request}: the answer does not end")
                return Reply(request, response.status, response.headers.copy(), bytes(raw))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise broken(request, error, self._clock) from error


def _digests(digest: bytes | None, checksum: bytes | None) -> dict[str, str]:
    fields = {}
    if digest is not None:
        fields["Repr-Digest"] = wire.repr_digest(digest)
    if checksum is not None:
        fields["Upload-Checksum"] = wire.upload_checksum(checksum)
    return fields
