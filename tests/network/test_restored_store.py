"""A store comes back from a backup that is older than what it has acknowledged and signed for."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dockd.core.lifecycle import BayState
from dockd.ops import events
from tests.faults.processes import Dockd
from tests.faults.site import footage
from tests.faults.triggers import ShortPauses
from tests.network.line import REQUESTS, Fault, in_body
from tests.network.station import LARGE_BYTES, SMALL_BYTES, Station
from tests.network.triggers import FrequentRechecks


@contextlib.asynccontextmanager
async def docked(
    path: Path, *sizes_bytes: int, hold_s: float
) -> AsyncIterator[tuple[Station, Dockd]]:
    """Run a dock with a camera in it, before a store of which there is a backup from before."""
    async with Station.built(path) as station:
        await station.back_up_store()
        station.site.change_config("[cameras]", f"[wipe]\nhold_s = {hold_s}\n[cameras]")
        station.site.plug(footage(station.site.dock, sizes_bytes))
        async with station.site.run(ShortPauses(), FrequentRechecks()) as dock:
            yield station, dock


@pytest.mark.parametrize("sizes_bytes", [(LARGE_BYTES,), (SMALL_BYTES, LARGE_BYTES)], ids=str)
async def test_it_has_lost_an_upload_under_way(
    fast_path: Path, sizes_bytes: tuple[int, ...]
) -> None:
    """INV-1: what was half sent is sent anew, and so is what had its receipt."""
    async with docked(fast_path, *sizes_bytes, hold_s=0) as (station, dock):

        async def cuts(*_: object) -> None:
            if len(sizes_bytes) > 1:
                assert await dock.said(events.RECORDING_CONFIRMED)
            await station.cuts()

        station.line.faults = [Fault("PATCH", REQUESTS, in_body(0.5), cuts)]
        assert await dock.said(events.TARGET_UNAVAILABLE)
        await station.restore_store()
        station.proxy.restore()
        assert await dock.said(events.BAY_STATE, state=BayState.READY)
        assert await dock.stop() == 0
    # The first manifest names what had its receipt, and is refused because that is not there any more.
    station.site.check_finished(refused_manifests=len(sizes_bytes) - 1)


async def test_it_has_lost_all_while_the_camera_was_held(fast_path: Path) -> None:
    """INV-1: the receipts are sound, and the store does not hold the bytes any more: no wipe on them."""
    async with docked(fast_path, SMALL_BYTES, LARGE_BYTES, hold_s=1.5) as (station, dock):
        assert await dock.said(events.BAY_STATE, state=BayState.HOLDING)
        await station.restore_store()
        assert await dock.said(events.BAY_STATE, state=BayState.READY)
        assert await dock.stop() == 0
    station.site.check_finished()


async def test_it_has_lost_what_no_camera_has_any_more(fast_path: Path) -> None:
    """INV-2: nothing can be sent again, so people must know: in the log once, and in the custody log."""
    async with docked(fast_path, SMALL_BYTES, 0, hold_s=0) as (station, dock):
        assert await dock.said(events.BAY_STATE, state=BayState.READY)
        assert not any(line["event"] == events.FOOTAGE_LOST.name for line in dock.lines())
        await station.restore_store()
        assert await dock.said(events.FOOTAGE_LOST, recordings=2)
        # Life goes on: the next camera's footage is held, and what was reported is not asked for again.
        station.site.pull()
        station.site.plug(footage("another", [SMALL_BYTES]), camera="cam-2")
        assert await dock.said(events.BAY_STATE, state=BayState.READY, camera="cam-2")
        before = station.line.requests["GET"]
        await station.line.made("GET", before + 2)
        assert await dock.stop() == 0
        said = [line for line in dock.lines() if line["event"] == events.FOOTAGE_LOST.name]
    assert len(said) == 1
    (kept,) = [entry for entry in station.site.custody() if entry["event"] == "footage.lost"]
    assert kept["details"]["recordings"] == 2
