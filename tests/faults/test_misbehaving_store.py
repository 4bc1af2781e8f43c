"""The real daemon before a store that refuses, breaks, hangs and lies: nothing is erased, and it says why."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from dockd.core.lifecycle import BayState
from dockd.ops import events
from dockd.ops.status import DaemonNotRunningError, ask_status
from dockd.store.layout import Layout
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults import front as fronts
from tests.faults.front import Fault, Front
from tests.faults.site import Site, footage
from tests.faults.triggers import ShortPauses

SIZES_BYTES = (9_000, 1_500_000, 0)

STATUSES = (400, 401, 402, 403, 404, 409, 410, 413, 423, 429, 460, 500, 502, 503, 504, 507)

FAULTS: dict[str, Fault] = {
    **{str(code): fronts.status(code) for code in STATUSES},
    "hangs": fronts.hangs,
    "closes": fronts.closes,
    "closes half-way": fronts.closes_half_way,
    "cuts its answers": fronts.cuts_its_answers,
    "says too far": fronts.says_offset(lambda offset: offset + 1),
    "says beyond the end": fronts.says_offset(lambda _: 10**12),
    "says too little": fronts.says_offset(lambda offset: offset // 2),
    "says nonsense": fronts.says_offset(lambda _: "many"),
    "portal": fronts.is_a_portal,
}


async def bay_that_says_why(site: Site, within_s: float = 20.0) -> dict[str, Any]:
    """Wait until the bay gives a reason, and return its status."""
    async with asyncio.timeout(within_s):
        while True:
            bays: list[dict[str, Any]] = []
            with contextlib.suppress(DaemonNotRunningError):  # it is starting
                bays = (await ask_status(site.state.socket))["bays"]
            if bays and bays[0]["reason"] is not None:
                return bays[0]
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", FAULTS)
async def test_nothing_is_erased_and_it_goes_on_by_itself(fast_path: Path, name: str) -> None:
    """INV-1, INV-3: from the first request on, and again in mid-visit."""
    settings = StoreSettings(reserve_bytes=0)
    async with (
        Store.running(fast_path / "store", settings=settings) as store,
        Front.before(store.url) as front,
    ):
        site = Site(fast_path / "dock-1", Layout(fast_path / "store"))
        site.prepare(front.url)
        docked = footage(site.dock, SIZES_BYTES)
        site.plug(docked)
        front.fault = FAULTS[name]
        async with site.run(ShortPauses()) as dock:
            bay = await bay_that_says_why(site)
            assert bay["state"] in ("ingesting", "attention")
            assert front.faults > 0
            assert site.on_camera() == docked
            front.fault = None
            assert await dock.said(events.BAY_STATE, state=BayState.READY)
            assert await dock.stop() == 0
        site.check_finished()
