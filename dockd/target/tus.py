"""The tus 1.0.0 client: one call is one request and one answer, on one aiohttp session.

Extensions used where offered: creation, creation-with-upload, checksum. docs/upload-target.md is the
contract. Nothing here tries again; :mod:`dockd.target.uploader` does.
"""

import re
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from dockd.core.errors import ProtocolViolationError, TargetUnavailableError
from dockd.core.model import Appended, Created, ReceiptPending, TargetProperties, UploadSpec
from dockd.target import headers as wire
from dockd.target.answers import EXPECTED, Answer, Verb
from dockd.target.body import StreamedBody

CONNECT_TIMEOUT_S = 20.0
STALL_TIMEOUT_S = 60.0

_KEEP_ALIVE_S = 4.0
"""Shorter than servers keep idle connections (node: 5 s), so that none is used as it is closed."""

_LONGEST_TEXT_BYTES = 64 << 10
_POLL_AFTER_S = 1.0
_COMPACT_JWS = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class TusTarget:
    """An :class:`~dockd.core.interfaces.UploadTarget` behind a tus URL. Use as a context manager.

    What goes beyond tus core and creation is used once :meth:`discover` has heard it offered.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Build for the URL at which uploads are created, such as ``https://store/files/``.

        ``stall_timeout_s`` is the longest time without a byte accepted or received; there is no bound
        on a whole request, because 64 GB take their time. ``tls`` says whom to trust and as whom to
        appear; without it, the system's certificate authorities and nobody.
        """
        self._base = URL(base_url)
        self._connect_timeout_s = connect_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._tls: ssl.SSLContext | bool = tls if tls is not None else True
        self._properties = TargetProperties(
            creation_with_upload=False, checksum_sha256=False, receipts=False
        )
        self._open_session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._open_session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"Tus-Resumable": wire.TUS_VERSION, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._connect_timeout_s, sock_read=self._stall_timeout_s
            ),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection."""
        if self._open_session is not None:
            await self._open_session.close()

    async def discover(self) -> TargetProperties:
        """Ask what the target can do (OPTIONS)."""
        answer = await self._ask(Verb.DISCOVER, self._base, {})
        answer.check()
        self._properties = wire.properties_of(answer.headers)
        return self._properties

    async def create(self, spec: UploadSpec, body: bytes | None, sha256: bytes | None) -> Created:
        """Create the upload, or find the one of the same key (POST)."""
        fields = {
            "Upload-Length": str(spec.size_bytes),
            "Upload-Metadata": wire.metadata_of(spec),
            "Idempotency-Key": spec.key,
        }
        if body is None or not self._properties.creation_with_upload:
            answer = await self._ask(Verb.CREATE, self._base, fields)
        else:
            fields |= self._digests(sha256, sha256)
            answer = await self._ask_streaming(
                Verb.CREATE, self._base, fields, _single(body), len(body)
            )
        answer.check()
        held = wire.upload_offset(answer.headers) if "Upload-Offset" in answer.headers else 0
        return Created(self._location(answer), held, answer.headers.get("Dockd-Receipt"))

    async def offset(self, url: str) -> int:
        """Return how many bytes the upload holds (HEAD)."""
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
    ) -> Appended:
        """Send exactly ``length`` bytes from ``offset`` on (PATCH)."""
        fields = {"Upload-Offset": str(offset), **self._digests(chunk_sha256, whole_sha256)}
        answer = await self._ask_streaming(Verb.APPEND, self._own(url), fields, body, length)
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

    # Requests

    async def _ask_streaming(
        self,
        verb: Verb,
        url: URL,
        fields: Mapping[str, str],
        chunks: AsyncIterator[bytes],
        length: int,
    ) -> Answer:
        body = StreamedBody(chunks, length, self._stall_timeout_s)
        try:
            answer = await self._ask(verb, url, fields, body)
        except TargetUnavailableError:
            if body.failure is not None:
                raise body.failure from None
            late = body.late_refusal()
            if late is None:
                raise
            answer = Answer(verb, str(url), *late)
        finally:
            await body.stop()
        if answer.status in EXPECTED[verb] and not body.complete:
            raise ProtocolViolationError(
                f"{verb} {url}: {answer.status} after {body.handed_over} of {length} bytes"
            )
        return answer

    async def _ask(
        self, verb: Verb, url: URL, fields: Mapping[str, str], body: StreamedBody | None = None
    ) -> Answer:
        answer = None
        try:
            async with self._session.request(
                verb, url, headers=fields, data=body, allow_redirects=False
            ) as response:
                text = await self._text(response)
                reason = response.reason or ""
                answer = Answer(verb, str(url), response.status, reason, response.headers, text)
                if body is not None and not body.complete:
                    response.close()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # An answer that was read counts, even if the connection breaks under the rest of the body.
            if answer is None:
                raise TargetUnavailableError(f"{verb} {url}: {_cause(error)}") from error
        return answer

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._open_session is None:
            raise RuntimeError("the target is used outside its 'async with'")
        return self._open_session

    async def _text(self, response: aiohttp.ClientResponse) -> str:
        """Read a short text; of a refusal, what can be had of it: its status counts without words."""
        raw = bytearray()
        try:
            while len(raw) <= _LONGEST_TEXT_BYTES and (piece := await response.content.readany()):
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

    def _location(self, answer: Answer) -> str:
        location = answer.headers.get("Location", "")
        if not location:
            raise ProtocolViolationError(f"{answer.url}: 201 without a Location")
        try:
            return str(self._own(str(self._base.join(URL(location, encoded=True)))))
        except ValueError as error:
            raise ProtocolViolationError(f"Location {location!r} is not a URL") from error

    def _own(self, url: str) -> URL:
        """Return the URL if it is on the target itself: footage goes nowhere else."""
        own = URL(url, encoded=True)
        if not own.absolute or own.origin() != self._base.origin():
            raise ProtocolViolationError(f"{url} is not on {self._base.origin()}")
        return own


def _cause(error: BaseException) -> str:
    """Say in a person's words what kept a request from its answer."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} is not known (DNS): {error.strerror or error}"
        case aiohttp.ClientConnectorCertificateError():
            return f"the server's certificate is not accepted: {error.certificate_error}"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return f"TLS failed: {error}"
        case aiohttp.ConnectionTimeoutError():
            return "no connection in time"
        case aiohttp.SocketTimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorError():
            return f"no connection: {error.strerror or error}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return f"the answer was cut short: {error}"
        case aiohttp.ClientOSError() if error.strerror:
            return f"the connection broke: {error.strerror}"
    return f"the connection broke: {str(error) or type(error).__name__}"


async def _single(body: bytes) -> AsyncIterator[bytes]:
    yield body
