"""Docks of a test's own, as the store sees them: a key, a certificate, a connection."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dockd.enrolment import Token
from dockd.evidence.keys import SigningKey
from dockd.store.ca import Authority, certify_names, load_authority, make_authority
from dockd.store.docks import open_docks
from dockd.store.enrolling import make_token
from dockd.store.layout import Layout, load_or_create_identity
from dockd.store.serve import Store
from dockd.target.connection import Connection
from dockd.target.enrolment import Enrolment, asking, signing_request
from tests.store.tus import QUICK, Time, Tus

NAMES = ("127.0.0.1", "localhost", "::1")


def new_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


def initialised(root: Path, now: datetime | None = None) -> tuple[Layout, Authority]:
    """Make a store that enrols docks, as ``dockd store init`` does."""
    layout = Layout(root)
    root.mkdir(parents=True, exist_ok=True)
    identity = load_or_create_identity(layout)
    authority = make_authority(layout, identity.store_id, now or datetime.now(UTC))
    certify_names(layout, authority, NAMES, now or datetime.now(UTC))
    return layout, authority


@dataclass
class Site:
    """A running store that enrols docks, and the time that it believes it is."""

    store: Store
    layout: Layout
    authority: Authority
    time: Time

    async def token(
        self, dock: str, *, again: bool = False, minutes: float = 60, now: datetime | None = None
    ) -> Token:
        """Make a token, in a process of its own as it were, beside the running store."""
        secret, text = make_token(self.authority)
        now = now or self.time.now()
        async with open_docks(self.layout.docks) as docks:
            until = now + timedelta(minutes=minutes)
            await docks.add_token(secret, dock, again=again, now=now, expires_at=until)
        return Token.parse(text)

    async def revoke(self, dock: str) -> None:
        async with open_docks(self.layout.docks) as docks:
            assert await docks.revoke(dock, self.time.now())

    async def enrol(self, dock: str, token: Token, key: SigningKey | None = None) -> "EnrolledDock":
        key = key or new_key()
        async with asking(self.store.url, Connection()) as client:
            ca = await client.authority()
            answer = await client.enrol(token.secret, dock, signing_request(key), ca)
        return EnrolledDock(self, dock, key, answer)

    async def new_dock(self, name: str) -> "EnrolledDock":
        return await self.enrol(name, await self.token(name))


@dataclass
class EnrolledDock:
    """A dock that has its certificate."""

    site: Site
    name: str
    key: SigningKey
    answer: Enrolment
    certificate: str = field(init=False)

    def __post_init__(self) -> None:
        self.certificate = self.answer.certificate

    def files(self, directory: Path) -> Connection:
        """Write what the dock connects with, and return where it is."""
        directory.mkdir(exist_ok=True)
        key = directory / "key.pem"
        key.touch(mode=0o600)
        key.write_bytes(
            self.key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        (directory / "certificate.pem").write_text(self.certificate)
        return Connection(
            ca_file=self.site.layout.ca,
            certificate=directory / "certificate.pem",
            private_key=key,
        )

    @asynccontextmanager
    async def talking(self, directory: Path) -> AsyncIterator[Tus]:
        """Talk tus to the store, as this dock."""
        connection = self.files(directory)
        tls = ssl.create_default_context(cafile=str(connection.ca_file))
        tls.load_cert_chain(str(connection.certificate), str(connection.private_key))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
            yield Tus(self.site.store, session)


@asynccontextmanager
async def enrolling_store(root: Path) -> AsyncIterator[Site]:
    """Run a store that enrols docks, made now if it is not there."""
    time, layout = Time(), Layout(root)
    authority = load_authority(layout) or initialised(root)[1]
    now: Callable[[], datetime] = time.now
    async with Store.running(root, settings=QUICK, now=now) as store:
        yield Site(store, layout, authority, time)
