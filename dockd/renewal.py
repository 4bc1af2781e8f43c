"""Staying enrolled: a running dock renews its certificate, and follows the store's receipt keys.

Neither stops anything when it fails. A certificate has a third of its life left when this begins to try;
a receipt by a key that is not known yet makes it ask at once.
"""

import asyncio
import math
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from dockd.config import TargetConfig
from dockd.core.errors import DockdError, EnrolmentError, ReceiptInvalidError, TargetError
from dockd.enrolled import CERTIFICATE_NAME
from dockd.evidence.certificates import load_certificates
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import ReceiptVerifier
from dockd.journal import durable
from dockd.ops import events
from dockd.target.connection import Connection
from dockd.target.enrolment import asking, check_certificate, signing_request

STATEMENTS_NAME = "receipt-key-statements.txt"

LOOK_EVERY_S = 3600.0
LEARN_AGAIN_S = 5.0
"""The least time between two questions about receipt keys that unknown ones cause."""

_LARGEST_FILE_BYTES = 64 * 1024


class Renewal:
    """Keeps certificate and receipt keys of one dock up to date. :meth:`run` is its life."""

    def __init__(
        self, target: TargetConfig, state_dir: Path, key: SigningKey, verifier: ReceiptVerifier
    ) -> None:
        """Build, and take what earlier runs have learnt about receipt keys. Blocking."""
        self._target = target
        self._connection = Connection.of(target)
        self._certificate = state_dir / CERTIFICATE_NAME
        self._statements = state_dir / STATEMENTS_NAME
        self._key = key
        self._verifier = verifier
        self._asking = asyncio.Lock()
        self._asked_s = -math.inf
        self._times_asked = 0
        self._take(self._remembered())

    async def run(self) -> None:
        """Look now and every hour, until cancelled."""
        while True:
            await self.renew_if_due()
            await self.learn_receipt_keys()
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.5, 1.0))  # noqa: S311 (spreads load)

    async def learn_receipt_keys(self) -> None:
        """Ask the store for its newer receipt keys. Who comes meanwhile shares the answer."""
        asked = self._times_asked
        async with self._asking:
            if self._times_asked > asked:
                return
            await asyncio.sleep(self._asked_s + LEARN_AGAIN_S - time.monotonic())
            self._asked_s = time.monotonic()
            try:
                await self._learn()
            finally:
                self._times_asked += 1

    async def _learn(self) -> None:
        for url in (self._target.url, *self._target.fallback_urls):
            try:
                async with asking(url, self._connection) as client:
                    statements = await client.receipt_keys()
            except DockdError:
                continue  # a store that has none, or is away: receipts of known keys count as before
            if self._take(statements):
                text = "".join(f"{statement}\n" for statement in self._verifier.statements)
                await asyncio.to_thread(durable.write_file, self._statements, text.encode("ascii"))
            return

    async def renew_if_due(self) -> bool:
        """Renew the certificate in the last third of its life; return whether that was done."""
        if self._target.certificate != self._certificate:
            return False  # no certificate, or one that is not the store's to renew
        until: datetime | None = None
        try:
            certificate = (await asyncio.to_thread(load_certificates, self._certificate))[0]
            until = certificate.not_valid_after_utc
            life = until - certificate.not_valid_before_utc
            if datetime.now(UTC) < until - life / 3:
                return False
            until = await self._renew()
        except (DockdError, OSError) as error:
            words = until.isoformat() if until is not None else None
            events.DOCK_NOT_CERTIFIED.log(until=words, reason=str(error))
            return False
        events.DOCK_CERTIFIED.log(until=until.isoformat())
        return True

    async def _renew(self) -> datetime:
        """Get a new certificate and use it for new connections; return until when it is valid."""
        failures: list[TargetError] = []
        for url in (self._target.url, *self._target.fallback_urls):
            try:
                async with asking(url, self._connection) as client:
                    pem = await client.renew(signing_request(self._key))
            except TargetError as error:
                failures.append(error)
                continue
            if self._target.ca_file is None:
                raise EnrolmentError("no authority is pinned that could have certified this dock")
            authority = (await asyncio.to_thread(load_certificates, self._target.ca_file))[0]
            check_certificate(pem, self._key, authority)
            await asyncio.to_thread(durable.write_file, self._certificate, pem.encode(), 0o644)
            return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
        raise failures[0]

    def _take(self, statements: Sequence[str]) -> bool:
        try:
            learnt = self._verifier.learn(statements)
        except ReceiptInvalidError as error:
            events.DOCK_RECEIPT_KEY_REFUSED.log(reason=str(error))
            return False
        if learnt:
            events.DOCK_RECEIPT_KEY.log(key=self._verifier.newest.key_id)
        return learnt

    def _remembered(self) -> Sequence[str]:
        try:
            with self._statements.open("rb") as file:
                return file.read(_LARGEST_FILE_BYTES).decode("ascii", "replace").split()
        except FileNotFoundError:
            return ()
        except OSError as error:
            events.DOCK_RECEIPT_KEY_REFUSED.log(reason=f"{self._statements}: {error.strerror}")
            return ()
