"""Builds the store, starts it, and stops it in order."""

import asyncio
import contextlib
import ipaddress
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from dockd.core.errors import DockdError, ListenRefusedError, StoreError
from dockd.journal.database import Database
from dockd.journal.durable import DirectoryLock
from dockd.ops import events, notify
from dockd.store.access import Access
from dockd.store.app import COLLECTION, StoreApp
from dockd.store.ca import (
    Authority,
    certified_names,
    load_authority,
    load_server_certificate,
    renew_server_certificate,
    server_context,
)
from dockd.store.catalogue import MIGRATIONS, Catalogue, Upload, UploadState
from dockd.store.docks import Docks, open_docks
from dockd.store.enrolling import Enrolling
from dockd.store.expiry import Expiry
from dockd.store.finishing import Finishing, Places
from dockd.store.layout import Layout, load_or_create_identity
from dockd.store.objects import Objects, Quarantine
from dockd.store.receipt_keys import ReceiptKeys
from dockd.store.receiving import Receiving
from dockd.store.settings import StoreSettings
from dockd.store.threads import Threads
from dockd.store.uploads import UnfinishedUploads

DEFAULT_LISTEN = "127.0.0.1:1080"

FIELD_SETTINGS = StoreSettings()

_THREADS = 16
_SHUTDOWN_S = 5.0
_MAX_HEADER_BYTES = 32 * 1024
_KEEPALIVE_S = 75.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 lets the kernel choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``ADDRESS:PORT``, as in ``127.0.0.1:1080`` or ``[::1]:1080``.

        Raises ListenRefusedError when it is anything else.
        """
        host, _, port = text.rpartition(":")
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ListenRefusedError(f"{text!r} is not ADDRESS:PORT")
        address = cls(host.removeprefix("[").removesuffix("]"), int(port))
        try:
            ipaddress.ip_address(address.host)
        except ValueError:
            raise ListenRefusedError(f"{address.host!r} is not an IP address") from None
        return address

    def require_loopback(self) -> None:
        """Raise ListenRefusedError where others could reach the store over a network."""
        if not ipaddress.ip_address(self.host).is_loopback:
            raise ListenRefusedError(
                f"{self.host} is open to others, and this store has no certificates"
            )

    def url(self, scheme: str = "http", name: str | None = None) -> str:
        """Return the URL of the upload collection, under ``name`` where the address is every address."""
        every = ipaddress.ip_address(self.host).is_unspecified
        host = name if every and name is not None else self.host
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}{COLLECTION}"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Store:
    """A running store. ``url`` is where uploads are created."""

    url: str
    store_id: str
    receipt_key: Path

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls,
        data_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: StoreSettings = FIELD_SETTINGS,
        now: Callable[[], datetime] = _now,
    ) -> AsyncIterator["Store"]:
        """Run a store for the length of the ``async with`` block; port 0 lets the kernel choose.

        A store that has a certificate authority (``dockd store init``) speaks TLS and takes enrolled
        docks only. One without listens on loopback only, and takes everybody.

        Raises ListenRefusedError, StoreError, AlreadyRunningError, KeyFileError, JournalError and
        OSError when it cannot start.
        """
        address = Address(host, port)
        layout = Layout(data_dir)
        authority = await asyncio.to_thread(load_authority, layout)
        if authority is None:
            address.require_loopback()
        await asyncio.to_thread(data_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(DirectoryLock(data_dir))
            identity = await asyncio.to_thread(load_or_create_identity, layout)
            database = await Database.open(layout.catalogue, MIGRATIONS)
            stack.push_async_callback(database.close)
            threads = Threads(_THREADS)
            stack.push_async_callback(asyncio.to_thread, threads.close)
            keys = await asyncio.to_thread(ReceiptKeys, layout, identity.store_id)
            gate = None
            if authority is not None:
                docks = await stack.enter_async_context(open_docks(layout.docks))
                gate = _Gate.build(layout, identity.store_id, authority, docks, now)
            parts = _Parts.build(layout, keys, Catalogue(database), threads, settings, now, gate)
            unfinished, unchecked = await parts.recover()
            await stack.enter_async_context(parts.working())
            bound = await stack.enter_async_context(parts.listening(address))
            url = bound.url() if gate is None else bound.url("https", gate.names[0])
            store = cls(url, identity.store_id, layout.receipt_public_key)
            events.STORE_STARTED.log(
                url=store.url,
                store=store.store_id,
                receipt_key=str(store.receipt_key),
                unfinished=unfinished,
                unchecked=unchecked,
            )
            yield store
        events.STORE_STOPPED.log(store=identity.store_id)


async def serve(data_dir: Path, address: Address, settings: StoreSettings) -> None:
    """Run the store until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    async with Store.running(
        data_dir, host=address.host, port=address.port, settings=settings
    ) as store:
        notify.alive(f"{store.store_id} listens at {store.url}")
        await stopped.wait()
        notify.stopping()


@dataclass(frozen=True, slots=True)
class _Gate:
    """What a store needs to know docks, and to be known by them."""

    layout: Layout
    authority: Authority
    docks: Docks
    access: Access
    enrolling: Enrolling
    tls: ssl.SSLContext
    names: tuple[str, ...]
    now: Callable[[], datetime]

    @classmethod
    def build(
        cls,
        layout: Layout,
        store_id: str,
        authority: Authority,
        docks: Docks,
        now: Callable[[], datetime],
    ) -> "_Gate":
        access = Access(docks, now)
        enrolling = Enrolling(store_id, layout, authority, docks, access, now)
        tls, names = server_context(layout), certified_names(layout)
        return cls(layout, authority, docks, access, enrolling, tls, names, now)

    def renew(self) -> None:
        """Renew the store's own certificate in time; new connections use it. Blocking."""
        if renew_server_certificate(self.layout, self.authority, self.now()):
            load_server_certificate(self.tls, self.layout)
            events.STORE_CERTIFIED.log(names=list(self.names))


@dataclass(frozen=True, slots=True)
class _Parts:
    """The store's parts, put together."""

    layout: Layout
    places: Places
    catalogue: Catalogue
    receiving: Receiving
    finishing: Finishing
    expiry: Expiry
    app: StoreApp
    threads: Threads
    settings: StoreSettings
    gate: _Gate | None

    @classmethod
    def build(
        cls,
        layout: Layout,
        keys: ReceiptKeys,
        catalogue: Catalogue,
        threads: Threads,
        settings: StoreSettings,
        now: Callable[[], datetime],
        gate: _Gate | None,
    ) -> "_Parts":
        unfinished = UnfinishedUploads(layout.unfinished, reserve_bytes=settings.reserve_bytes)
        quarantine = Quarantine(layout.quarantine)
        places = Places(unfinished, Objects(layout.objects, quarantine), quarantine)
        receiving = Receiving(unfinished, threads, settings)
        docks = gate.docks if gate is not None else None
        finishing = Finishing(places, catalogue, keys, docks, threads, settings, now)
        expiry = Expiry(catalogue, unfinished, receiving, threads, settings, now)
        app = StoreApp(
            keys.store_id,
            settings,
            catalogue,
            unfinished,
            places.objects,
            receiving,
            finishing,
            expiry,
            threads,
            now,
            keys,
            gate.access if gate is not None else None,
        )
        return cls(
            layout, places, catalogue, receiving, finishing, expiry, app, threads, settings, gate
        )

    async def recover(self) -> tuple[int, int]:
        """Take up what an earlier run left; return how many uploads are unfinished, and unchecked."""
        found = await self.threads.run(self._prepare)
        receiving = {upload.upload_id: upload for upload in await self.catalogue.receiving()}
        await self._clear_leftovers([name for name in found if name not in receiving])
        complete = [
            upload
            for upload in receiving.values()
            if found.get(upload.upload_id, 0) == upload.size_bytes
        ]
        for upload in complete:
            self.finishing.submit(upload)
        return len(receiving) - len(complete), len(complete)

    def _prepare(self) -> dict[str, int]:
        self.places.objects.prepare()
        self.places.quarantine.prepare()
        names = self.places.unfinished.recover()
        return {name: self.places.unfinished.arrived(name).size_bytes for name in names}

    async def _clear_leftovers(self, names: Sequence[str]) -> None:
        """Remove files whose upload has ended; one that no upload explains goes to quarantine."""
        known = await self.catalogue.find_all(names)
        for name in names:
            await self.threads.run(self._clear_leftover, name, known.get(name))

    def _clear_leftover(self, name: str, upload: Upload | None) -> None:
        path = self.places.unfinished.path(name)
        if upload is None:
            self.places.quarantine.add(path, name, {"error": "no upload of this id is known"})
            events.STORE_STRAY.log(name=name)
        elif upload.state is UploadState.HELD and not self._is_held(upload):
            return  # the only copy: kept for a person, `dockd store verify` reports the object
        path.unlink()

    def _is_held(self, upload: Upload) -> bool:
        return upload.sha256 is not None and self.places.objects.holds(
            upload.sha256, upload.size_bytes
        )

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Check uploads and drop expired ones in the background."""
        tasks = [asyncio.create_task(self.finishing.run()), asyncio.create_task(self._sweep())]
        try:
            yield
        finally:
            self.finishing.stop()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _sweep(self) -> None:
        while True:
            try:
                await self.expiry.sweep()
                if self.gate is not None:
                    await self.threads.run(self.gate.renew)
            except (DockdError, OSError) as error:
                events.STORE_FAULT.log(method="", path="(sweep)", status=500, reason=str(error))
            await asyncio.sleep(self.settings.sweep_s)

    @contextlib.asynccontextmanager
    async def listening(self, address: Address) -> AsyncIterator[Address]:
        """Answer requests; yield the address with the port that the kernel chose."""
        app = self.app.build()
        if self.gate is not None:
            self.gate.enrolling.add_routes(app)
        runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_KEEPALIVE_S,
            max_field_size=_MAX_HEADER_BYTES,
            shutdown_timeout=_SHUTDOWN_S,
        )
        await runner.setup()
        try:
            try:
                tls = self.gate.tls if self.gate is not None else None
                await web.TCPSite(runner, address.host, address.port, ssl_context=tls).start()
            except OSError as error:
                raise StoreError(
                    f"cannot listen on {address.host}:{address.port}: {error}"
                ) from error
            yield Address(address.host, runner.addresses[0][1])
        finally:
            self.receiving.stop()
            await runner.cleanup()
