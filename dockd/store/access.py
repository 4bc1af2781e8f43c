"""Which dock is asking? Answered anew for each request, from the certificate of its connection.

TLS has checked that the caller holds the key of a certificate by the store's own authority. Whether that
key is a dock's, and the dock still welcome, is in the database of docks. Every refusal is a 403 with
words for a person at the dock: an operator can lift it, and the dock tries again by itself until then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dockd.core.timestamps import to_rfc3339
from dockd.evidence.keys import VerifyingKey
from dockd.ops import events
from dockd.store.docks import Docks, EnrolledDock
from dockd.store.headers import RequestRefusedError

RENEWABLE_FOR = timedelta(days=180)
"""How long after its end a certificate can still be renewed: for docks that were switched off."""

_TELL_AGAIN_AFTER = timedelta(minutes=1)
_MOST_REFUSALS_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class _Shown:
    """What matters of a certificate. ``key`` is None where it cannot be a dock's."""

    key: VerifyingKey | None
    until: datetime


class Access:
    """Lets docks in, by their certificates."""

    def __init__(self, docks: Docks, now: Callable[[], datetime]) -> None:
        """Build for the docks that are known."""
        self._docks = docks
        self._now = now
        self._told: dict[tuple[str | None, str], datetime] = {}

    async def require(self, request: web.Request) -> EnrolledDock:
        """Return the dock that is asking. Raises RequestRefusedError."""
        return await self._require(request, timedelta(0))

    async def require_for_renewal(self, request: web.Request) -> EnrolledDock:
        """Return the dock that is asking, even if its certificate has ended a while ago."""
        return await self._require(request, RENEWABLE_FOR)

    async def _require(self, request: web.Request, grace: timedelta) -> EnrolledDock:
        try:
            return await self._dock(request, grace)
        except RequestRefusedError as error:
            self._tell(request.remote, str(error))
            raise

    def _tell(self, address: str | None, reason: str) -> None:
        now = self._now()
        if now < self._told.get((address, reason), now):
            return
        if len(self._told) >= _MOST_REFUSALS_REMEMBERED:
            self._told.clear()
        self._told[address, reason] = now + _TELL_AGAIN_AFTER
        events.STORE_DOCK_REFUSED.log(address=address, reason=reason)

    async def _dock(self, request: web.Request, grace: timedelta) -> EnrolledDock:
        shown = _certificate(request)
        dock = await self._docks.by_key(shown.key.key_id) if shown.key is not None else None
        if dock is None:
            raise RequestRefusedError(
                403, "this certificate belongs to no dock that is enrolled here"
            )
        if dock.revoked_at is not None:
            raise RequestRefusedError(
                403, f"dock {dock.name!r} was revoked at {to_rfc3339(dock.revoked_at)}"
            )
        now = self._now()
        if shown.until + grace <= now:
            raise RequestRefusedError(
                403,
                f"the certificate of dock {dock.name!r} ended at {to_rfc3339(shown.until)}",
            )
        return dock


def _certificate(request: web.Request) -> _Shown:
    transport = request.transport
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    if der is None:
        raise RequestRefusedError(403, "a dock must show its certificate; see dockd enroll")
    return _read(der)


@lru_cache(maxsize=1024)
def _read(der: bytes) -> _Shown:
    certificate = x509.load_der_x509_certificate(der)
    public = certificate.public_key()
    key = VerifyingKey(public) if isinstance(public, Ed25519PublicKey) else None
    return _Shown(key, certificate.not_valid_after_utc)
