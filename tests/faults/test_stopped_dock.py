"""The real daemon is told to stop in the midst of its work: it does, in time, and leaves nothing lying."""

import asyncio
import signal
from itertools import count
from pathlib import Path

import pytest

from dockd import daemon
from dockd.core.lifecycle import BayState
from dockd.ops import events
from dockd.store.layout import Layout
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults.site import Site, footage
from tests.faults.triggers import Hang, Kill, StopSoon

SIZES_BYTES = (9_000, 1_500_000, 0)
AT_ONCE = 2
STOP_WITHIN_S = 10.0


async def stopped_and_started_again(site: Site, url: str, at: Kill) -> bool:
    """Stop the daemon at a step of a visit, check, finish the visit; false: it never came to it."""
    site.prepare(url)
    site.plug(footage(site.dock, SIZES_BYTES))
    async with site.run(at) as dock:
        ready = await dock.said(events.BAY_STATE, state=BayState.READY)
        stopped = not ready
        assert await (dock.stop() if ready else dock.ended(STOP_WITHIN_S)) == 0, dock.errors()
        assert not dock.left_behind()
        assert dock.errors() == ""
        assert [line["event"] for line in dock.lines()][-1] == "daemon.stopped"
    site.check_no_leftovers()
    site.check_nothing_lost()
    async with site.run() as dock:
        assert await dock.said(events.BAY_STATE, state=BayState.READY)
        assert await dock.stop() == 0
    site.check_finished()
    return stopped


@pytest.mark.parametrize("step", ["commit", "pread"])
async def test_stopped_at_every_step(fast_path: Path, step: str) -> None:
    """INV-3: at every write of the journal, and while footage is read."""
    numbers = count(1)
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(fast_path / "store", settings=settings) as store:

        async def one_after_the_other() -> None:
            for number in numbers:
                site = Site(fast_path / f"dock-{number}", Layout(fast_path / "store"))
                at = Kill(step, number, after=True, sends=signal.SIGTERM)
                if not await stopped_and_started_again(site, store.url, at):
                    break

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_after_the_other())
    assert next(numbers) > AT_ONCE + 1


@pytest.mark.parametrize("call", ["open", "pread", "scandir", "stat", "unlink"])
async def test_stopped_while_calls_on_the_camera_hang(fast_path: Path, call: str) -> None:
    """INV-8: a dying card keeps neither the process nor the next start."""
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(fast_path / "store", settings=settings) as store:
        site = Site(fast_path / "dock-1", Layout(fast_path / "store"))
        site.prepare(store.url)
        dying = site.root / "dying"
        async with site.run(StopSoon(), Hang(call, site.bay(), once=dying)) as dock:
            assert await dock.said(events.DAEMON_STARTED)
            dying.touch()
            site.plug(footage(site.dock, SIZES_BYTES))
            await asyncio.sleep(0.3)  # nothing tells that a call hangs
            assert await dock.stop() == 0
        assert daemon.STOP_WITHIN_S < STOP_WITHIN_S - 1
        async with site.run() as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY)
            assert await dock.stop() == 0
        site.check_finished()
