"""The dock's own disk fails while the daemon starts: it says so, or carries on; the next start works."""

import asyncio
import errno
import os
from itertools import count
from pathlib import Path

from dockd.ops import events
from dockd.store.layout import Layout
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults.site import Site
from tests.faults.triggers import FailingCalls

AT_ONCE = 2
ENOUGH_IN_A_ROW = 5
"""Starts that met no fault in a row, after which all calls of a start are taken to be through."""


async def start_and_start_again(site: Site, url: str, number: int) -> int:
    """Start with the ``number``-th call on the state directory failing; return the exit code."""
    site.prepare(url)
    async with site.run(FailingCalls(site.state.state_dir, errno.ENOSPC, first=number)) as dock:
        started = await dock.said(events.DAEMON_STARTED)
        code = await (dock.stop() if started else dock.ended())
        errors = dock.errors().splitlines()
    if code == 1:
        line, advice = errors
        assert line.startswith("dockd: ")
        assert os.strerror(errno.ENOSPC) in line
        assert advice.strip()
    else:
        assert (code, errors) == (0, [])
    async with site.run() as dock:
        assert await dock.said(events.DAEMON_STARTED)
        assert await dock.stop() == 0
    site.check_no_leftovers()
    return code


async def test_each_call_fails_in_turn(fast_path: Path) -> None:
    """INV-3: never a traceback, never a state from which a start does not go on."""
    numbers, ends = count(1), {}
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(fast_path / "store", settings=settings) as store:

        async def one_after_the_other() -> None:
            for number in numbers:
                site = Site(fast_path / f"dock-{number}", Layout(fast_path / "store"))
                ends[number] = await start_and_start_again(site, store.url, number)
                if all(ends.get(number - back) == 0 for back in range(ENOUGH_IN_A_ROW)):
                    break

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_after_the_other())
    assert list(ends.values()).count(1) > 20
