"""Builds the store, starts it, and stops it in order."""

import asyncio
import contextlib
import ipaddress
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from dockd.core.errors import JournalError, ListenRefusedError, StoreError
from dockd.journal.database import Database
from dockd.journal.durable import DirectoryLock
from dockd.ops import events, notify
from dockd.store.app import COLLECTION, StoreApp
from dockd.store.catalogue import MIGRATIONS, Catalogue, Upload, UploadState
from dockd.store.expiry import Expiry
from dockd.store.finishing import Finishing, Places
from dockd.store.layout import Identity, Layout, load_or_create_identity
from dockd.store.objects import Objects, Quarantine
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

        Raises ListenRefusedError when it is anything else, or not a loopback address.
        """
        host, _, port = text.rpartition(":")
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ListenRefusedError(f"{text!r} is not ADDRESS:PORT")
        address = cls(host.removeprefix("[").removesuffix("]"), int(port))
        address.require_loopback()
        return address

    def require_loopback(self) -> None:
        """Raise ListenRefusedError where others could reach the store over a network."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            raise ListenRefusedError(f"{self.host!r} is not an IP address") from None
        if not address.is_loopback:
            raise ListenRefusedError(
                f"{self.host} is open to others, and the store has no transport security yet"
            )

    def url(self) -> str:
        """Return the URL of the upload collection."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{COLLECTION}"


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

        Raises ListenRefusedError, StoreError, AlreadyRunningError, KeyFileError, JournalError and
        OSError when it cannot start.
        """
        address = Address(host, port)
        address.require_loopback()
        layout = Layout(data_dir)
        await asyncio.to_thread(data_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(DirectoryLock(data_dir))
            identity = await asyncio.to_thread(load_or_create_identity, layout)
            database = await Database.open(layout.catalogue, MIGRATIONS)
            stack.push_async_callback(database.close)
            threads = Threads(_THREADS)
            stack.push_async_callback(asyncio.to_thread, threads.close)
            parts = _Parts.build(layout, identity, Catalogue(database), threads, settings, now)
            unfinished, unchecked = await parts.recover()
            await stack.enter_async_context(parts.working())
            bound = await stack.enter_async_context(parts.listening(address))
            store = cls(bound.url(), identity.store_id, layout.receipt_public_key)
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

    @classmethod
    def build(
        cls,
        layout: Layout,
        identity: Identity,
        catalogue: Catalogue,
        threads: Threads,
        settings: StoreSettings,
        now: Callable[[], datetime],
    ) -> "_Parts":
        unfinished = UnfinishedUploads(layout.unfinished, reserve_bytes=settings.reserve_bytes)
        quarantine = Quarantine(layout.quarantine)
        places = Places(unfinished, Objects(layout.objects, quarantine), quarantine)
        receiving = Receiving(unfinished, threads, settings)
        finishing = Finishing(places, catalogue, identity, threads, settings, now)
        expiry = Expiry(catalogue, unfinished, receiving, threads, settings, now)
        app = StoreApp(
            identity.store_id,
            settings,
            catalogue,
            unfinished,
            places.objects,
            receiving,
            finishing,
            expiry,
            threads,
            now,
        )
        return cls(layout, places, catalogue, receiving, finishing, expiry, app, threads, settings)

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
            except (JournalError, OSError) as error:
                events.STORE_FAULT.log(method="", path="(expiry)", status=500, reason=str(error))
            await asyncio.sleep(self.settings.sweep_s)

    @contextlib.asynccontextmanager
    async def listening(self, address: Address) -> AsyncIterator[Address]:
        """Answer requests; yield the address with the port that the kernel chose."""
        runner = web.AppRunner(
            self.app.build(),
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_KEEPALIVE_S,
            max_field_size=_MAX_HEADER_BYTES,
            shutdown_timeout=_SHUTDOWN_S,
        )
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, address.host, address.port).start()
            except OSError as error:
                raise StoreError(
                    f"cannot listen on {address.host}:{address.port}: {error}"
                ) from error
            yield Address(address.host, runner.addresses[0][1])
        finally:
            self.receiving.stop()
            await runner.cleanup()
