"""The dock's requests to the store that are not about footage: enrolment, renewal, receipt keys.

docs/enrolment.md has the protocol. One call is one request; nothing here tries again.
"""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from yarl import URL

from dockd.core.errors import EnrolmentError
from dockd.evidence.keys import SigningKey, VerifyingKey
from dockd.target.broken import broken
from dockd.target.clock import ClockWatch
from dockd.target.connection import Connection
from dockd.target.credentials import Credentials

REQUEST_TIMEOUT_S = 30.0

_LARGEST_ANSWER_BYTES = 64 * 1024
_SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What the store answers to an enrolment; PEM where it is a key or a certificate."""

    store_id: str
    collection: str
    receipt_key: str
    certificate: str


class EnrolmentClient:
    """Asks a store. Made by :func:`asking`. Every method raises EnrolmentError and TargetError."""

    def __init__(self, base: URL, session: aiohttp.ClientSession, credentials: Credentials) -> None:
        """Build for a store's address; its path counts for receipt keys only."""
        self._base = base
        self._origin = base.origin()
        self._session = session
        self._credentials = credentials
        self._clock = ClockWatch()

    async def authority(self) -> bytes:
        """Return what says of itself that it is the certificate of the store's authority.

        It is fetched without knowing from whom: the caller compares it with the token.
        """
        return await self._ask("GET", self._origin / "enrolment/ca", tls=False)

    async def enrol(self, secret: str, dock: str, csr: bytes, ca: bytes) -> Enrolment:
        """Use a token's secret up, over a connection to whoever this authority vouches for."""
        tls = ssl.create_default_context(cadata=ca.decode("ascii"))
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        asked = {"secret": secret, "dock": dock, "csr": csr.decode()}
        fields = _object(await self._ask("POST", self._origin / "enrolment", asked, tls=tls))
        names = ("store_id", "collection", "receipt_key", "certificate")
        return Enrolment(*(_text(fields, name) for name in names))

    async def renew(self, csr: bytes) -> str:
        """Return a new certificate, PEM, for the dock's own key."""
        asked = {"csr": csr.decode()}
        answer = await self._ask("POST", self._origin / "enrolment/renewal", asked)
        return _text(_object(answer), "certificate")

    async def receipt_keys(self) -> tuple[str, ...]:
        """Return the store's statements about its receipt keys."""
        statements = _object(await self._ask("GET", self._base / "receipt-keys")).get("statements")
        if not isinstance(statements, list) or not all(isinstance(s, str) for s in statements):
            raise EnrolmentError(f"{self._base}: what came is no list of statements")
        return tuple(statements)

    async def _ask(
        self,
        method: str,
        url: URL,
        body: Mapping[str, str] | None = None,
        *,
        tls: ssl.SSLContext | bool | None = None,
    ) -> bytes:
        credentials = self._credentials
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                allow_redirects=False,
                ssl=tls if tls is not None else credentials.tls or True,
                proxy=credentials.proxy,
                proxy_headers=credentials.proxy_headers,
            ) as response:
                self._clock.heard(response.headers)
                answer = await response.content.read(_LARGEST_ANSWER_BYTES)
                while len(answer) < _LARGEST_ANSWER_BYTES and not response.content.at_eof():
                    answer += await response.content.read(_LARGEST_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise broken(f"{method} {url}", error, self._clock) from error
        if response.status not in (200, 201):
            words = " ".join(answer.decode(errors="replace").split())[:_SHOWN_CHARS]
            raise EnrolmentError(f"{method} {url}: {response.status} {words}")
        return answer


@asynccontextmanager
async def asking(url: str, connection: Connection) -> AsyncIterator[EnrolmentClient]:
    """Open a session for a few requests. Raises KeyFileError."""
    async with (
        Credentials(connection) as credentials,
        aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        ) as session,
    ):
        yield EnrolmentClient(URL(url), session, credentials)


def signing_request(key: SigningKey) -> bytes:
    """Return a certificate signing request (RFC 2986) for a dock's key, signed by it, in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, key.key_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key.private, None)
    return request.public_bytes(Encoding.PEM)


def check_certificate(pem: str, key: SigningKey, authority: x509.Certificate) -> None:
    """See that a certificate is for this key and by this authority. Raises EnrolmentError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        certificate.verify_directly_issued_by(authority)
        public = certificate.public_key()
    except (ValueError, TypeError, InvalidSignature) as error:
        raise EnrolmentError("the store's answer is not a certificate of its authority") from error
    if not isinstance(public, Ed25519PublicKey) or VerifyingKey(public) != key.public:
        raise EnrolmentError("the certificate that came is not for this dock's key")


def _object(answer: bytes) -> dict[str, object]:
    try:
        fields = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise EnrolmentError("the store's answer is not JSON") from error
    if not isinstance(fields, dict):
        raise EnrolmentError("the store's answer is not a JSON object")
    return fields


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise EnrolmentError(f"the store's answer has no {name!r}")
    return value
