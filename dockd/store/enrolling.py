"""The requests by which docks are enrolled and stay so; docs/enrolment.md has the protocol.

A token is ``dockd-`` and base64url of 48 bytes: 16 random ones, which the store wants to hear once, and the
SHA-256 of its authority's certificate, by which the dock knows the store.
"""

import asyncio
import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from aiohttp import hdrs, web
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dockd.evidence.keys import VerifyingKey
from dockd.ops import events
from dockd.store.access import Access
from dockd.store.app import COLLECTION, ENROLMENT
from dockd.store.ca import Authority
from dockd.store.docks import Docks, EnrolledDock, EnrolmentRefusedError
from dockd.store.headers import RequestRefusedError
from dockd.store.layout import Layout

TOKEN_PREFIX = "dockd-"  # noqa: S105 (marks tokens, is none)
SECRET_BYTES = 16
_LARGEST_REQUEST_BYTES = 16 * 1024
_ARRIVAL_TIMEOUT_S = 10.0


T = TypeVar("T", bound="_Request")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Enrolment(_Request):
    secret: str = Field(max_length=100)
    dock: str = Field(min_length=1, max_length=100)
    csr: str


class _Renewal(_Request):
    csr: str


def make_token(authority: Authority) -> tuple[bytes, str]:
    """Return a new secret, and the token that carries it together with the authority's fingerprint."""
    secret = secrets.token_bytes(SECRET_BYTES)
    return secret, TOKEN_PREFIX + base64.urlsafe_b64encode(secret + authority.fingerprint).decode()


@dataclass(frozen=True, slots=True)
class Enrolling:
    """Answers ``/enrolment``. Everything it needs is handed in."""

    store_id: str
    layout: Layout
    authority: Authority
    docks: Docks
    access: Access
    now: Callable[[], datetime]

    def add_routes(self, app: web.Application) -> None:
        """Add the requests to an application."""
        app.router.add_get(f"{ENROLMENT}/ca", self._ca, allow_head=False)
        app.router.add_post(ENROLMENT, self._enrol)
        app.router.add_post(f"{ENROLMENT}/renewal", self._renew)

    async def _ca(self, _request: web.Request) -> web.Response:
        """Hand out the authority's certificate; who asks compares it with the token."""
        return web.Response(body=self.authority.pem, content_type="application/x-pem-file")

    async def _enrol(self, request: web.Request) -> web.Response:
        asked = await _read(request, _Enrolment)
        key = _key_of(asked.csr)
        secret = _decode(asked.secret)
        now = self.now()
        certificate = self.authority.certify_dock(asked.dock, key, now)
        until = certificate.not_valid_after_utc
        try:
            await self.docks.enrol(secret, asked.dock, key, now=now, until=until)
        except EnrolmentRefusedError as error:
            events.STORE_ENROLMENT_REFUSED.log(
                dock=asked.dock, key=key.key_id, address=request.remote, reason=str(error)
            )
            raise RequestRefusedError(403, str(error)) from error
        events.STORE_ENROLLED.log(
            dock=asked.dock, key=key.key_id, address=request.remote, until=until.isoformat()
        )
        receipt_key = await asyncio.to_thread(self.layout.receipt_public_key.read_text)
        return web.json_response(
            {
                "store_id": self.store_id,
                "collection": COLLECTION,
                "receipt_key": receipt_key,
                "certificate": _pem(certificate),
            },
            status=201,
            headers={hdrs.CACHE_CONTROL: "no-store"},
        )

    async def _renew(self, request: web.Request) -> web.Response:
        dock: EnrolledDock = await self.access.require_for_renewal(request)
        key = _key_of((await _read(request, _Renewal)).csr)
        if key.key_id != dock.key.key_id:
            raise RequestRefusedError(403, "a renewal is for the dock's own key; enrol a new one")
        certificate = self.authority.certify_dock(dock.name, key, self.now())
        until = certificate.not_valid_after_utc
        await self.docks.renewed(key, until)
        events.STORE_RENEWED.log(dock=dock.name, key=key.key_id, until=until.isoformat())
        return web.json_response({"certificate": _pem(certificate)}, status=201)


async def _read(request: web.Request, kind: type[T]) -> T:
    """Read what anybody may send, within bounds of size and time."""
    body = b""
    try:
        async with asyncio.timeout(_ARRIVAL_TIMEOUT_S):
            while len(body) <= _LARGEST_REQUEST_BYTES and not request.content.at_eof():
                body += await request.content.read(_LARGEST_REQUEST_BYTES)
    except TimeoutError as error:
        raise RequestRefusedError(408, "the request did not come in time") from error
    if len(body) > _LARGEST_REQUEST_BYTES:
        raise RequestRefusedError(413, "far too long")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise RequestRefusedError(400, "not a request for a certificate") from error


def _key_of(csr: str) -> VerifyingKey:
    """Return the key of a certificate signing request (RFC 2986), which its owner has signed."""
    try:
        read = x509.load_pem_x509_csr(csr.encode())
        public = read.public_key()
        signed = read.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise RequestRefusedError(400, "not a certificate signing request in PEM") from error
    if not signed or not isinstance(public, Ed25519PublicKey):
        raise RequestRefusedError(400, "the request is not signed with its own Ed25519 key")
    return VerifyingKey(public)


def _decode(secret: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(secret.encode())
    except ValueError as error:
        raise RequestRefusedError(400, "the secret is not base64url") from error


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
