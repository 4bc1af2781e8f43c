"""The real store is killed while the real dock uploads to it, again and again; the dock just goes on."""

import asyncio
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

from dockd.core.lifecycle import BayState
from dockd.ops import events
from dockd.store.layout import Layout
from tests.faults.processes import Dockd, parsed, read_whole_lines
from tests.faults.site import Site, footage
from tests.faults.triggers import Kill, ShortPauses

SIZES_BYTES = (2_500_000, 9_000, 0, 1_500_000)


def store_at(root: Path, port: int, *triggers: Kill) -> Dockd:
    arguments = ("--data", str(root / "store"), "--listen", f"127.0.0.1:{port}", "--reserve-mib=0")
    return Dockd("store", "serve", *arguments, log=root / "store.log", triggers=triggers)


async def started(store: Dockd) -> str:
    assert await store.said(events.STORE_STARTED)
    return str(next(line["url"] for line in store.lines() if "url" in line))


async def killed_before(store: Dockd, ready: asyncio.Task[bool]) -> bool:
    """Wait until the store dies, or the camera is ready; return whether it was the store."""
    dead = asyncio.create_task(store.ended())
    await asyncio.wait({dead, ready}, return_when=asyncio.FIRST_COMPLETED)
    if not dead.done():
        await store.stop()
    await dead
    return not ready.done()


async def test_killed_while_bytes_arrive_again_and_again(fast_path: Path) -> None:
    """INV-1, INV-3: what was acknowledged is kept, nothing is sent to its end twice."""
    async with store_at(fast_path, 0) as store:
        url = await started(store)
        port = urlsplit(url).port or 0
        await store.stop()
    site = Site(fast_path / "dock-1", Layout(fast_path / "store"))
    site.prepare(url)
    site.plug(footage(site.dock, SIZES_BYTES))
    lives = 0
    async with site.run(ShortPauses()) as dock:
        ready = asyncio.create_task(dock.said(events.BAY_STATE, state=BayState.READY))
        for writes in cycle((1, 2, 3)):
            lives += 1
            async with store_at(fast_path, port, Kill("pwritev", writes, after=True)) as store:
                if not await killed_before(store, ready):
                    break
        assert await ready
        assert await dock.stop() == 0
    site.check_finished()
    assert 3 < lives < 100
    again = [
        line
        for line in parsed(read_whole_lines(site.log))
        if line["event"] == "upload.offset_went_back"
    ]
    assert again == []
