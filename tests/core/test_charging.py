"""When a camera has charged enough, and who may charge while power is short."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.charging import Demand, is_charged, share_power
from dockd.core.model import ChargeStatus


@pytest.mark.parametrize(
    ("status", "elapsed_s", "charged"),
    [
        (ChargeStatus(), 59, False),
        (ChargeStatus(), 60, True),
        (ChargeStatus(minimum_s=600), 599, False),
        (ChargeStatus(minimum_s=600), 600, True),
        (ChargeStatus(battery_percent=79, wanted_percent=80, minimum_s=600), 9_000, False),
        (ChargeStatus(battery_percent=80, wanted_percent=80, minimum_s=600), 60, True),
        (ChargeStatus(battery_percent=80, wanted_percent=80), 59, False),
        (ChargeStatus(wanted_percent=80, minimum_s=600), 599, False),
        (ChargeStatus(wanted_percent=80, minimum_s=600), 600, True),
        (ChargeStatus(battery_percent=5), 60, True),
    ],
)
def test_the_battery_decides_where_it_can_be_read_and_time_elsewhere(
    status: ChargeStatus, elapsed_s: float, charged: bool
) -> None:
    assert is_charged(status, elapsed_s, minimum_s=60) is charged


def waits(bay: str, draw_ma: int = 500, since_s: float = 0.0) -> Demand:
    return Demand(bay, draw_ma, since_s, fixed=False)


def works(bay: str, draw_ma: int = 500, since_s: float = 0.0) -> Demand:
    return Demand(bay, draw_ma, since_s, fixed=True)


@pytest.mark.parametrize(
    ("demands", "budget_ma", "drawing"),
    [
        ([], 1000, ""),
        ([waits("a"), waits("b")], 1000, "ab"),
        ([waits("a", since_s=2), waits("b", since_s=1), waits("c", since_s=3)], 1000, "ba"),
        ([waits("a"), waits("b"), waits("c")], 1499, "ab"),
        ([waits("a", since_s=1), works("b", since_s=2)], 999, "b"),
        ([waits("a", since_s=1), works("b", since_s=2)], 1000, "ab"),
        ([works("a"), works("b"), works("c"), waits("d")], 1000, "abc"),
        # The first that does not fit ends the queue: it is not passed over by those that draw little.
        ([waits("a"), waits("b", 900, 1), waits("c", 100, 2)], 1000, "a"),
        # But one that could never be served does not keep the others waiting.
        ([waits("a", 1500), waits("b", since_s=1)], 1000, "b"),
        ([works("a", 0), waits("b", 0)], 100, "ab"),
    ],
)
def test_power_goes_to_work_first_and_then_by_the_queue(
    demands: list[Demand], budget_ma: int, drawing: str
) -> None:
    assert share_power(demands, budget_ma) == frozenset(drawing)


@dataclass
class Docked:
    """A camera that has to be read for a while, and then to be charged for a while."""

    bay: str
    draw_ma: int
    since_s: int
    work_s: int
    charge_s: int
    has_switch: bool

    def demand(self) -> Demand | None:
        if self.work_s == self.charge_s == 0:
            return None
        fixed = self.work_s > 0 or not self.has_switch
        return Demand(self.bay, self.draw_ma, self.since_s, fixed)


docked = st.builds(
    Docked,
    bay=st.just(""),
    draw_ma=st.integers(1, 900),
    since_s=st.integers(0, 9),
    work_s=st.integers(0, 9),
    charge_s=st.integers(0, 9),
    has_switch=st.booleans(),
)


@given(st.lists(docked, max_size=8), st.integers(900, 3000))
def test_the_budget_holds_and_everybody_is_charged(cameras: list[Docked], budget_ma: int) -> None:
    """Never more is drawn than the budget, or than what cannot be switched; and nobody starves."""
    for number, camera in enumerate(cameras):
        camera.bay = str(number)
    for _ in range(18 * len(cameras) + 1):
        demands = [demand for camera in cameras if (demand := camera.demand()) is not None]
        drawing = share_power(demands, budget_ma)
        fixed_ma = sum(demand.draw_ma for demand in demands if demand.fixed)
        drawn_ma = sum(demand.draw_ma for demand in demands if demand.bay in drawing)
        assert drawn_ma <= max(budget_ma, fixed_ma)
        assert {demand.bay for demand in demands if demand.fixed} <= drawing
        for camera in cameras:
            if camera.work_s:
                camera.work_s -= 1
            elif camera.charge_s and camera.bay in drawing:
                camera.charge_s -= 1
    assert not any(camera.demand() for camera in cameras)
