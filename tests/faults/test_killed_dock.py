"""The real daemon is killed at each step of a visit that leaves a trace on a disk, and starts again.

Whatever the step, the next start brings the visit to its end by itself, and INV-1 to INV-4 hold.
"""

import asyncio
import signal
from itertools import count
from pathlib import Path

import pytest

from dockd.core.lifecycle import BayState
from dockd.ops import events
from dockd.store.layout import Layout
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults.site import Site, footage
from tests.faults.triggers import Kill

SIZES_BYTES = (9_000, 1_500_000, 0)
"""One that goes along with its creation, one that is streamed, and an empty one."""

AT_ONCE = 2
"""Runs beside each other."""


async def killed_and_started_again(site: Site, url: str, kill: Kill) -> bool:
    """Kill the daemon at a step of a visit, check, finish the visit, check; false: it never came to it."""
    site.prepare(url)
    site.plug(footage(site.dock, SIZES_BYTES))
    killed = await killed_at(site, kill)
    if killed:
        assert not await killed_at(site)
    site.check_finished()
    return killed


async def killed_at(site: Site, *kill: Kill) -> bool:
    """Run the daemon until the camera is ready, and stop it in order, unless it is killed before."""
    async with site.run(*kill) as dock:
        ready = await dock.said(events.BAY_STATE, state=BayState.READY)
        exit_code = await (dock.stop() if ready else dock.ended())
    assert exit_code in (0, -signal.SIGKILL), dock.errors()
    site.check_nothing_lost()
    return exit_code != 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["commit", "fsync", "rename", "unlink"])
async def test_killed_at_every_step(fast_path: Path, step: str, after: bool) -> None:
    """INV-1, INV-2, INV-3, INV-4."""
    numbers = count(1)
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(fast_path / "store", settings=settings) as store:

        async def one_after_the_other() -> None:
            for number in numbers:
                site = Site(fast_path / f"dock-{number}", Layout(fast_path / "store"))
                kill = Kill(step, number, after)
                if not await killed_and_started_again(site, store.url, kill):
                    break

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_after_the_other())
    assert next(numbers) > AT_ONCE + 1


async def test_killed_again_and_again(fast_path: Path) -> None:
    """INV-3: a daemon that lives for three commits at a time gets there, too."""
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(fast_path / "store", settings=settings) as store:
        site = Site(fast_path / "dock-1", Layout(fast_path / "store"))
        site.prepare(store.url)
        site.plug(footage(site.dock, SIZES_BYTES))
        lives = 1
        while await killed_at(site, Kill("commit", 3, after=True)):
            lives += 1
    site.check_finished()
    assert 3 < lives < 20
