"""A store, a dock with one bay, and a faulty network between them: all real, in one folder."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from dockd.core.lifecycle import BayState
from dockd.demo.proxy import Proxy
from dockd.ops import events
from dockd.store.layout import Layout
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults.front import Front
from tests.faults.site import Site, footage
from tests.faults.triggers import ShortPauses
from tests.network.line import Act, Fault, Line

SMALL_BYTES = 9_000
"""Goes along with its creation."""

LARGE_BYTES = 1_100_000
"""Comes as a creation, one long request, and one for its last bytes."""

MOST_REQUESTS = 25
"""What a visit of one recording and its manifest may cost, with a fault that strikes once."""


class Station:
    """``line`` is what the dock's requests go through, ``front`` a server between it and the store."""

    def __init__(self, root: Path, settings: StoreSettings) -> None:
        """Use :meth:`built`."""
        self.site = Site(root / "dock-1", Layout(root / "store"))
        self.line = Line()
        self.proxy = Proxy(0, carry=self.line.carry)
        self.front: Front | None = None
        self._settings = settings
        self._store = AsyncExitStack()
        self._backup = root / "backup"

    @classmethod
    @asynccontextmanager
    async def built(
        cls,
        root: Path,
        *,
        with_front: bool = False,
        receipt_wait_s: float = 0.2,
        stall_timeout_s: float = 30.0,
    ) -> AsyncIterator[Self]:
        """Run store and network; the dock is run by :meth:`survives`, or by the test."""
        station = cls(
            root,
            StoreSettings(
                reserve_bytes=0, receipt_wait_s=receipt_wait_s, stall_timeout_s=stall_timeout_s
            ),
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(station.stop_store)
            url = await station.start_store()
            if with_front:
                station.front = await stack.enter_async_context(Front.before(url))
                station.proxy.upstream_port = urlsplit(station.front.url).port or 0
            await stack.enter_async_context(station.proxy)
            station.site.prepare(
                urlsplit(url)._replace(netloc=f"127.0.0.1:{station.proxy.port}").geturl()
            )
            yield station

    async def start_store(self) -> str:
        """Run the store at a port of its own; return its URL."""
        store = await self._store.enter_async_context(
            Store.running(self.site.store.root, settings=self._settings)
        )
        self.proxy.upstream_port = urlsplit(store.url).port or 0
        return store.url

    async def stop_store(self) -> None:
        """Stop the store in order."""
        await self._store.aclose()

    async def back_up_store(self) -> None:
        """Copy what the store has now."""
        await self.stop_store()
        shutil.copytree(self.site.store.root, self._backup)
        await self.start_store()

    async def restore_store(self) -> None:
        """Bring the store back to what it had at its backup."""
        await self.stop_store()
        shutil.rmtree(self.site.store.root)
        shutil.copytree(self._backup, self.site.store.root)
        await self.start_store()

    async def survives(
        self,
        *faults: Fault,
        sizes_bytes: tuple[int, ...],
        most_requests: int = MOST_REQUESTS,
    ) -> list[dict[str, Any]]:
        """Dock a camera with such recordings and demand that it ends well, whatever strikes.

        While faults strike nothing is erased (INV-1); then everything is, on proof, by one run of the
        daemon; there is one copy of each recording, and the number of requests is bounded. Returns
        what the dock said of requests that it made again.
        """
        self.line.faults = list(faults)
        docked = footage(self.site.dock, sizes_bytes)
        erased_early: list[bool] = []
        self.line.on_strike = lambda: erased_early.append(self.site.on_camera() != docked)
        self.site.plug(docked)
        async with self.site.run(ShortPauses()) as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY)
            assert await dock.stop() == 0
            retries = [line for line in dock.lines() if line["event"] == events.UPLOAD_RETRY.name]
        self.site.check_finished()
        assert not self.line.faults, "a fault never struck"
        assert not any(erased_early)
        assert self.line.requests.total() <= most_requests, self.line.requests
        return retries

    async def cuts(self, *_: object) -> None:
        """Cut every connection, old and new, until the proxy is told to restore them."""
        self.proxy.cut()
        await asyncio.Event().wait()

    def cuts_for(self, outage_s: float) -> Act:
        """Return what cuts every connection for so long."""

        async def cuts(*_: object) -> None:
            asyncio.get_running_loop().call_later(outage_s, self.proxy.restore)
            await self.cuts()

        return cuts
