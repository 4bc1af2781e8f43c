"""A store, a dock with one bay, and a faulty network between them: all real, in one folder."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
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


@dataclass(slots=True)
class Station:
    """``line`` is what the dock's requests go through, ``front`` a server between it and the store."""

    site: Site
    line: Line
    proxy: Proxy
    front: Front | None

    @classmethod
    @asynccontextmanager
    async def built(
        cls,
        root: Path,
        *,
        with_front: bool = False,
        receipt_wait_s: float = 0.2,
        stall_timeout_s: float = 30.0,
    ) -> AsyncIterator["Station"]:
        """Run store and network; the dock is run by :meth:`survives`."""
        settings = StoreSettings(
            reserve_bytes=0, receipt_wait_s=receipt_wait_s, stall_timeout_s=stall_timeout_s
        )
        line = Line()
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(
                Store.running(root / "store", settings=settings)
            )
            front = await stack.enter_async_context(Front.before(store.url)) if with_front else None
            parts = urlsplit(front.url if front is not None else store.url)
            proxy = await stack.enter_async_context(Proxy(parts.port or 0, carry=line.carry))
            site = Site(root / "dock-1", Layout(root / "store"))
            site.prepare(parts._replace(netloc=f"127.0.0.1:{proxy.port}").geturl())
            yield cls(site, line, proxy, front)

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

    def cuts_for(self, outage_s: float) -> Act:
        """Return what cuts every connection, old and new, for so long."""

        async def cuts(*_: object) -> None:
            self.proxy.cut()
            asyncio.get_running_loop().call_later(outage_s, self.proxy.restore)
            await asyncio.Event().wait()

        return cuts
