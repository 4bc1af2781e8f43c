"""A dock whose power is short: cameras charge in turns, and footage never waits for that."""

import asyncio
import io

import pytest
from rich.console import Console

from dockd.cli.status import status_table
from dockd.core.charging import LONGEST_TURN_S
from dockd.core.lifecycle import BayState
from dockd.core.model import ChargeStatus, Power, Verdict
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera

BAYS = ("1", "2", "3", "4")
CHARGE_S = 1_800.0


def short_of_power(dock: SimulatedDock, budget_ma: int, *switchable: str) -> None:
    charge = dock.config.charge.model_copy(update={"budget_ma": budget_ma})
    dock.config = dock.config.model_copy(update={"charge": charge})
    dock.source.switchable = set(switchable)
    for bay in BAYS:
        dock.source.charging[bay] = ChargeStatus(Power.ON, minimum_s=CHARGE_S)


def drawn_ma(dock: SimulatedDock) -> int:
    """What all cameras draw that are not charged yet."""
    return sum(
        dock.source.drawn_ma(name)
        for name, bay in dock.dock.bays.items()
        if bay.state is not BayState.READY
    )


def printed(dock: SimulatedDock) -> str:
    out = io.StringIO()
    Console(file=out, width=250).print(status_table(dock.dock.status()))
    return out.getvalue()


async def until_all_ready(dock: SimulatedDock, within_s: float) -> int:
    """Wait until every camera is ready; return the most that was drawn while nobody was read."""
    most_ma = 0

    def all_ready() -> bool:
        nonlocal most_ma
        if all(bay.state in (BayState.CHARGING, BayState.READY) for bay in dock.dock.bays.values()):
            most_ma = max(most_ma, drawn_ma(dock))
        return all(bay.state is BayState.READY for bay in dock.dock.bays.values())

    # Not until they have all been read, and the first turns are given.
    await dock.until(
        lambda: all(bay.visit and bay.visit.finished_at for bay in dock.dock.bays.values())
    )
    await asyncio.sleep(30)
    await dock.until(all_ready, within_s=within_s)
    return most_ma


@virtual_time
async def test_cameras_charge_in_turns_and_all_become_ready() -> None:
    async with SimulatedDock(BAYS) as dock:
        short_of_power(dock, 1_000, *BAYS)
        cameras = {bay: body_camera(f"cam-{bay}", 10, 5_000) for bay in BAYS}
        for bay, camera in cameras.items():
            dock.source.plug(bay, camera)
        assert await until_all_ready(dock, 3 * CHARGE_S) == 1_000
        assert not any(camera.files for camera in cameras.values())
        assert len(dock.store.held()) == 4 * 2, "nothing was sent twice"


@virtual_time
async def test_one_that_waits_says_so_and_is_looked_into_again_when_its_port_is_on() -> None:
    """INV-2: nobody could see whether it was pulled and used meanwhile."""
    async with SimulatedDock(("1", "2")) as dock:
        short_of_power(dock, 500, *BAYS)
        dock.source.plug("1", body_camera("cam-1", 10))
        await dock.until_state("1", BayState.CHARGING)
        late = body_camera("cam-2", 10)
        dock.source.plug("2", late)
        await dock.until(lambda: dock.bay("2").charger.waiting is not None)
        assert "waits for its turn" in (dock.bay("2").explanation or "")
        bays = {bay["bay"]: bay for bay in dock.dock.status()["bays"]}  # type: ignore[attr-defined]
        assert (bays["2"]["power"], bays["2"]["draw_ma"], bays["1"]["draw_ma"]) == ("off", 0, 500)
        assert dock.dock.status()["power_budget_ma"] == 500
        table = printed(dock)
        assert "cameras may draw 500 of 500 mA" in table
        assert "waits for its turn to charge" in table
        late.record(b"DCIM/MOV_0009.MP4", b"recorded while nobody could see")
        await dock.until_state("2", BayState.READY, within_s=3 * CHARGE_S)
        assert late.files == {}
        assert dock.bay("2").visit.verdict is Verdict.WIPED  # type: ignore[union-attr]
        assert b"recorded while nobody could see" in [data for _, data in dock.store.held()]


@virtual_time
async def test_a_camera_with_footage_goes_before_one_that_charges() -> None:
    """INV-8: what is to be read has power, whoever else had it before."""
    async with SimulatedDock(("1", "2")) as dock:
        short_of_power(dock, 500, *BAYS)
        dock.source.plug("1", body_camera("cam-1", 10))
        await dock.until_state("1", BayState.CHARGING)
        dock.store.down = True
        dock.source.plug("2", body_camera("cam-2", 10))
        await dock.until(lambda: dock.bay("1").charger.waiting is not None)
        assert dock.bay("2").state is BayState.INGESTING
        assert dock.source.drawn_ma("1") == 0
        dock.store.down = False
        await until_all_ready(dock, 4 * CHARGE_S)


@virtual_time
async def test_a_port_without_a_switch_is_not_waited_for_and_counts() -> None:
    async with SimulatedDock(BAYS) as dock:
        short_of_power(dock, 1_000, "1", "2", "3")
        dock.source.plug("4", body_camera("cam-4", 10))
        await dock.until_state("4", BayState.CHARGING)
        for bay in BAYS[:3]:
            dock.source.plug(bay, body_camera(f"cam-{bay}", 10))
        await dock.until_state("4", BayState.READY, within_s=CHARGE_S + 120)
        assert await until_all_ready(dock, 4 * CHARGE_S) <= 1_500
        assert dock.bay("4").charger.waiting is None


@virtual_time
async def test_one_that_is_never_charged_makes_room_for_the_others() -> None:
    async with SimulatedDock(("1", "2")) as dock:
        short_of_power(dock, 500, *BAYS)
        dock.source.charging["1"] = ChargeStatus(Power.ON, battery_percent=10, wanted_percent=80)
        dock.source.plug("1", body_camera("cam-1", 10))
        await dock.until_state("1", BayState.CHARGING)
        dock.source.plug("2", body_camera("cam-2", 10))
        await dock.until_state("2", BayState.READY, within_s=LONGEST_TURN_S + 3 * CHARGE_S)
        await dock.until(lambda: dock.source.drawn_ma("1") == 500)
        assert dock.bay("1").state is not BayState.READY


@virtual_time
async def test_a_waiting_camera_that_was_pulled_is_gone_when_its_port_is_on() -> None:
    async with SimulatedDock(("1", "2")) as dock:
        short_of_power(dock, 500, *BAYS)
        dock.source.plug("1", body_camera("cam-1", 10))
        await dock.until_state("1", BayState.CHARGING)
        dock.source.plug("2", body_camera("cam-2", 10))
        await dock.until(lambda: dock.bay("2").charger.waiting is not None)
        dock.source.unplug("2")
        await dock.until_state("2", BayState.EMPTY, within_s=2 * CHARGE_S)


@pytest.mark.parametrize("draw_ma", [501, 5_000])
def test_one_that_draws_more_than_the_budget_waits_and_keeps_nobody_waiting(draw_ma: int) -> None:
    @virtual_time
    async def run() -> None:
        async with SimulatedDock(("1", "2")) as dock:
            short_of_power(dock, 500, *BAYS)
            hungry = body_camera("cam-1", 10)
            hungry.draw_ma = draw_ma
            dock.source.plug("1", hungry)
            await dock.until_state("1", BayState.CHARGING)
            dock.source.plug("2", body_camera("cam-2", 10))
            await dock.until_state("2", BayState.READY, within_s=2 * CHARGE_S)
            assert dock.bay("1").charger.waiting is not None
            assert hungry.files == {}, "its footage is taken all the same"

    run()
