"""What a restart must not do over: seal again, or begin a hold anew."""

import asyncio

import pytest

from dockd.config import WipeConfig
from dockd.core.lifecycle import BayState
from dockd.core.model import UploadKind
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera

HOLD_S = 86_400.0


@virtual_time
async def test_a_hold_goes_on_through_restarts_and_ends_in_time() -> None:
    """A dock that reboots every night must not keep footage on its cameras for ever."""
    async with SimulatedDock(wipe=WipeConfig(hold_s=HOLD_S)) as dock:
        camera = body_camera("cam-1", 5_000)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.HOLDING)
        began = dock.clock.monotonic_s()
        for _ in range(4):
            await asyncio.sleep(HOLD_S / 5)
            await dock.restart()
        await dock.until(lambda: not camera.files, within_s=HOLD_S)
        assert HOLD_S <= dock.clock.monotonic_s() - began < HOLD_S + 120
        assert len(dock.store.held(UploadKind.MANIFEST)) == 1


@pytest.mark.parametrize("before", [False, True])
def test_one_manifest_however_often_the_power_goes(before: bool) -> None:
    """INV-3: at every write of the journal the power goes; the store gets the manifest once."""

    @virtual_time
    async def run() -> None:
        async with SimulatedDock() as dock:
            dock.source.plug("1", body_camera("cam-1", 10, 9_000))
            await dock.until_state("1", BayState.READY)
            writes = dock.database.writes
        for number in range(2, writes + 1):
            async with SimulatedDock() as dock:
                dock.database.cut_at, dock.database.cut_before = number, before
                dock.source.plug("1", body_camera("cam-1", 10, 9_000))
                await dock.until(lambda: dock.database.dead)
                await dock.restart()
                await dock.until_state("1", BayState.READY)
                assert len(dock.store.held(UploadKind.MANIFEST)) == 1, number
                assert len(dock.store.held()) == 2

    run()
