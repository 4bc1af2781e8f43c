"""The tus 1.0.0 client: one call is one request and one answer, on one aiohttp session.

Extensions used where offered: creation, creation-with-upload, checksum. docs/upload-target.md is the
contract. Nothing here tries again; :mod:`dockd.target.uploader` does.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from dockd.core.errors import (
    ProtocolViolationError,
    RequestTooLargeError,
    TargetError,
    TargetUnavailableError,
    UploadGoneError,
    UploadMovedError,
)
from dockd.core.interfaces import UploadTurn
from dockd.core.model import (
    Appended,
    Created,
    HeldUpload,
    ReceiptPending,
    TargetProperties,
    UploadSpec,
)
from dockd.ops import events
from dockd.target import headers as wire
from dockd.target.addresses import RETURN_AFTER_S, Addresses
from dockd.target.answers import EXPECTED, Answer, Verb
from dockd.target.body import StreamedBody
from dockd.target.broken import broken
from dockd.target.clock import ClockWatch
from dockd.target.connection import Connection
from dockd.target.credentials import Credentials

CONNECT_TIMEOUT_S = 20.0
STALL_TIMEOUT_S = 60.0

_KEEP_ALIVE_S = 4.0
"""Shorter than servers keep idle connections (node: 5 s), so that none is used as it is closed."""

_LONGEST_TEXT_BYTES = 64 << 10
_POLL_AFTER_S = 1.0
_REDIRECTS = frozenset({301, 302, 307, 308})
_MOST_REDIRECTS = 5
_COMPACT_JWS = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class TusTarget:
    """An :class:`~dockd.core.interfaces.UploadTarget` behind a tus URL. Use as a context manager.

    What goes beyond tus core and creation is used once :meth:`discover` has heard it offered.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connection: Connection = Connection(),  # noqa: B008 (immutable)
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        return_after_s: float = RETURN_AFTER_S,
        clock: ClockWatch | None = None,
    ) -> None:
        """Build for the URL at which uploads are created, such as ``https://store/files/``.

        ``connect_timeout_s`` is for everything before the request: name, proxy, TLS handshake.
        ``stall_timeout_s`` is the longest time without a byte accepted or received; there is no bound
        on a whole request, because 64 GB take their time. A fallback address is used for
        ``return_after_s`` before the first one is tried again.
        """
        urls = (base_url, *connection.fallback_urls)
        self._addresses = Addresses(urls, return_after_s=return_after_s)
        self._credentials = Credentials(connection)
        self._clock = clock if clock is not None else ClockWatch()
        self._connect_timeout_s = connect_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._store_id: str | None = None
        self._properties = TargetProperties(
            creation_with_upload=False, checksum_sha256=False, receipts=False
        )
        self._open_session: aiohttp.ClientSession | None = None
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Read certificates and keys, and open the session. Raises KeyFileError."""
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(self._credentials)
            self._open_session = await opened.enter_async_context(self._new_session())
            self._opened = opened.pop_all()
        return self

    def _new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"Tus-Resumable": wire.TUS_VERSION, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._connect_timeout_s, sock_read=self._stall_timeout_s
            ),
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection."""
        self._open_session = None
        await self._opened.aclose()

    async def discover(self) -> TargetProperties:
        """Ask what the target can do (OPTIONS), at each of its addresses until one answers.

        Raises the first address's error, with the words of all.
        """
        failures: list[TargetError] = []
        for address in self._addresses.to_try():
            try:
                properties = await self._discover_at(address)
            except TargetError as error:
                failures.append(error)
                continue
            before = self._addresses.current
            if self._addresses.use(address):
                events.TARGET_ADDRESS.log(url=str(address), before=str(before))
            self._properties = properties
            return properties
        first = failures[0]
        words = "; ".join(str(error) for error in failures)
        raise type(first)(words, status=first.status, retry_after_s=first.retry_after_s)

    async def _discover_at(self, address: URL) -> TargetProperties:
        answer = await self._ask(Verb.DISCOVER, address, {})
        answer.check()
        properties = wire.properties_of(answer.headers)
        if self._store_id is None:
            self._store_id = properties.store_id
        elif properties.store_id != self._store_id:
            raise ProtocolViolationError(
                f"{address} is the store {properties.store_id}, and not {self._store_id} as before"
            )
        return properties

    async def _return_if_due(self) -> None:
        if self._addresses.return_due:
            await self.discover()

    async def create(
        self,
        spec: UploadSpec,
        body: bytes | None,
        sha256: bytes | None,
        *,
        turn: UploadTurn | None = None,
    ) -> Created:
        """Create the upload, or find the one of the same key (POST)."""
        await self._return_if_due()
        base = self._addresses.current
        fields = {
            "Upload-Length": str(spec.size_bytes),
            "Upload-Metadata": wire.metadata_of(spec),
            "Idempotency-Key": spec.key,
        }
        if body is None or not self._properties.creation_with_upload:
            answer = await self._ask(Verb.CREATE, base, fields)
        else:
            fields |= self._digests(sha256, sha256)
            answer = await self._follow(
                base,
                lambda url: self._ask_streaming(
                    Verb.CREATE, url, fields, _single(body), len(body), turn
                ),
            )
            if answer.status == 413:
                raise RequestTooLargeError(str(answer.error()), status=answer.status)
        answer.check()
        held = wire.upload_offset(answer.headers) if "Upload-Offset" in answer.headers else 0
        return Created(self._location(answer, base), held, answer.headers.get("Dockd-Receipt"))

    async def offset(self, url: str) -> int:
        """Return how many bytes the upload holds (HEAD)."""
        await self._return_if_due()
        answer = await self._ask(Verb.OFFSET, self._own(url), {"Cache-Control": "no-store"})
        answer.check()
        return wire.upload_offset(answer.headers)

    async def append(
        self,
        url: str,
        offset: int,
        length: int,
        body: AsyncIterator[bytes],
        *,
        chunk_sha256: bytes | None = None,
        whole_sha256: bytes | None = None,
        turn: UploadTurn | None = None,
    ) -> Appended:
        """Send exactly ``length`` bytes from ``offset`` on (PATCH)."""
        fields = {"Upload-Offset": str(offset), **self._digests(chunk_sha256, whole_sha256)}
        answer = await self._ask_streaming(Verb.APPEND, self._own(url), fields, body, length, turn)
        if (moved := self._redirect(answer)) is not None:
            raise UploadMovedError(
                f"{url} is at {moved} now",
                url=str(self._addresses.remembered(moved)),
                status=answer.status,
            )
        answer.check()
        now_at = wire.upload_offset(answer.headers)
        if not offset <= now_at <= offset + length:
            raise ProtocolViolationError(
                f"{url} was at {offset}, was sent {length} bytes, and says it is at {now_at}"
            )
        return Appended(now_at, answer.headers.get("Dockd-Receipt"))

    async def receipt(self, url: str) -> str | ReceiptPending:
        """Return the receipt, or when to ask again (GET)."""
        answer = await self._ask(Verb.RECEIPT, self._own(url) / "receipt", {})
        answer.check()
        if answer.status == 202:
            return ReceiptPending(answer.retry_after_s or _POLL_AFTER_S)
        receipt = answer.text.strip()
        if not _COMPACT_JWS.fullmatch(receipt):
            raise ProtocolViolationError(f"{answer.url}: what came is not a receipt")
        return receipt

    async def describe(self, url: str) -> HeldUpload:
        """Return what the target says of an upload (HEAD), with the metadata that it was given."""
        answer = await self._ask(Verb.OFFSET, self._own(url), {"Cache-Control": "no-store"})
        answer.check()
        return HeldUpload(
            wire.upload_offset(answer.headers),
            wire.upload_length(answer.headers),
            wire.decode_metadata(answer.headers.get("Upload-Metadata", "")),
        )

    async def content(self, url: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes that the target holds of a complete upload, as it gives them back (GET)."""
        own = self._own(url)
        request = f"{Verb.RECEIPT} {own}"
        try:
            async with self._request(Verb.RECEIPT, own, {"Cache-Control": "no-store"}) as response:
                if response.status != 200:
                    text, reason = await self._text(response), response.reason or ""
                    answer = Answer(
                        Verb.RECEIPT, str(own), response.status, reason, response.headers, text
                    )
                    answer.check()
                    raise ProtocolViolationError(f"{request}: {answer.status} instead of the bytes")
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise ProtocolViolationError(f"{request}: the bytes come encoded")
                while piece := await response.content.readany():
                    yield piece
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise broken(request, error, self._clock) from error

    # Requests

    async def _ask_streaming(
        self,
        verb: Verb,
        url: URL,
        fields: Mapping[str, str],
        chunks: AsyncIterator[bytes],
        length: int,
        turn: UploadTurn | None,
    ) -> Answer:
        body = StreamedBody(chunks, length, self._stall_timeout_s, turn)
        try:
            answer = await self._ask_once(verb, url, fields, body)
        except TargetUnavailableError:
            if body.failure is not None:
                raise body.failure from None
            try:
                late = body.late_refusal()
            except ssl.SSLError as alert:
                raise broken(f"{verb} {url}", alert, self._clock) from alert
            if late is None:
                raise
            answer = Answer(verb, str(url), *late)
        finally:
            await body.stop()
        # A body that comes along to an upload that exists already is ignored, and may be cut short.
        if answer.status in EXPECTED[verb] and not body.complete and verb is not Verb.CREATE:
            raise ProtocolViolationError(
                f"{verb} {url}: {answer.status} after {body.handed_over} of {length} bytes"
            )
        return answer

    async def _ask(self, verb: Verb, url: URL, fields: Mapping[str, str]) -> Answer:
        return await self._follow(url, lambda there: self._ask_once(verb, there, fields))

    async def _follow(self, url: URL, ask: Callable[[URL], Awaitable[Answer]]) -> Answer:
        """Ask, and ask again where a redirect leads on the target itself."""
        for _ in range(_MOST_REDIRECTS):
            answer = await ask(url)
            moved = self._redirect(answer)
            if moved is None:
                return answer
            url = moved
        raise ProtocolViolationError(f"{answer.verb} {url}: one redirect leads to the next")

    def _redirect(self, answer: Answer) -> URL | None:
        """Return where an answer redirects to, if that is on the target itself (RFC 9110 §15.4)."""
        location = answer.headers.get("Location", "")
        if answer.status not in _REDIRECTS or not location:
            return None
        try:
            there = URL(answer.url, encoded=True).join(URL(location, encoded=True))
            return there if self._addresses.own(there) else None
        except ValueError:
            return None

    async def _ask_once(
        self, verb: Verb, url: URL, fields: Mapping[str, str], body: StreamedBody | None = None
    ) -> Answer:
        answer = None
        # What has no body to send has no reason to take long, even if it drips all the time.
        whole_s = self._connect_timeout_s + self._stall_timeout_s if body is None else None
        try:
            async with (
                asyncio.timeout(whole_s),
                self._request(verb, url, fields, body) as response,
            ):
                self._clock.heard(response.headers)
                text = await self._text(response)
                reason = response.reason or ""
                answer = Answer(verb, str(url), response.status, reason, response.headers, text)
                if body is not None and not body.complete:
                    response.close()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # An answer that was read counts, even if the connection breaks under the rest of the body.
            if answer is None:
                secure = url.scheme == "https"
                raise broken(f"{verb} {url}", error, self._clock, secure=secure) from error
        return answer

    def _request(
        self, verb: Verb, url: URL, fields: Mapping[str, str], body: StreamedBody | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.request(
            verb,
            url,
            headers=fields,
            data=body,
            allow_redirects=False,
            ssl=self._credentials.tls or True,
            proxy=self._credentials.proxy,
            proxy_headers=self._credentials.proxy_headers,
        )

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._open_session is None:
            raise RuntimeError("the target is used outside its 'async with'")
        return self._open_session

    async def _text(self, response: aiohttp.ClientResponse) -> str:
        """Read a short text; of a refusal, what can be had of it: its status counts without words."""
        raw = bytearray()
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                while len(raw) <= _LONGEST_TEXT_BYTES and (
                    piece := await response.content.readany()
                ):
                    raw += piece
        except (aiohttp.ClientError, OSError, TimeoutError):
            if response.status < 300:
                raise
        if len(raw) > _LONGEST_TEXT_BYTES:
            response.close()
        return raw[:_LONGEST_TEXT_BYTES].decode(errors="replace")

    def _digests(self, chunk_sha256: bytes | None, whole_sha256: bytes | None) -> dict[str, str]:
        fields = {}
        if chunk_sha256 is not None and self._properties.checksum_sha256:
            fields["Upload-Checksum"] = wire.upload_checksum(chunk_sha256)
        if whole_sha256 is not None:
            fields["Repr-Digest"] = wire.repr_digest(whole_sha256)
        return fields

    # Addresses

    def _location(self, answer: Answer, base: URL) -> str:
        location = answer.headers.get("Location", "")
        if not location:
            raise ProtocolViolationError(f"{answer.url}: 201 without a Location")
        try:
            url = base.join(URL(location, encoded=True))
            own = self._addresses.own(url)
        except ValueError as error:
            raise ProtocolViolationError(f"Location {location!r} is not a URL") from error
        if not own:
            raise ProtocolViolationError(f"{url} is not on {base.origin()}")
        return str(self._addresses.remembered(url))

    def _own(self, url: str) -> URL:
        """Return the upload's URL at the address in use: footage goes nowhere else.

        A URL of another store is one from before the dock was given this one, which has no such upload.
        """
        own = URL(url, encoded=True)
        if not self._addresses.own(own):
            raise UploadGoneError(f"{url} is not on {self._addresses.current.origin()}")
        return self._addresses.in_use(own)


async def _single(body: bytes) -> AsyncIterator[bytes]:
    yield body
