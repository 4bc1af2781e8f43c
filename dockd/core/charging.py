"""When a camera has charged enough to be handed out, and who may charge while power is short."""

from collections.abc import Sequence
from dataclasses import dataclass

from dockd.core.model import ChargeStatus

LONGEST_TURN_S = 4 * 3600.0
"""A camera that is not charged by then makes room for those that wait, if there are any."""


def is_charged(status: ChargeStatus, elapsed_s: float, minimum_s: float) -> bool:
    """Whether to show the camera as ready after it has charged for ``elapsed_s`` seconds.

    ``minimum_s`` is the dock's own least time. A battery that can be read decides; for one that
    cannot, time alone has to.
    """
    if elapsed_s < max(minimum_s, 0.0):
        return False
    if status.wanted_percent is not None and status.battery_percent is not None:
        return status.battery_percent >= status.wanted_percent
    return elapsed_s >= status.minimum_s


@dataclass(frozen=True, slots=True)
class Demand:
    """What a camera draws from its port, or would if it were its turn.

    ``since_s`` is its place in the queue: when it was docked, or when its last turn was over. ``fixed``
    says that it has power whatever is decided: to be read, or because its port has no switch.
    """

    bay: str
    draw_ma: int
    since_s: float
    fixed: bool


def share_power(demands: Sequence[Demand], budget_ma: int) -> frozenset[str]:
    """Return the bays whose cameras may draw now.

    Cameras that are fixed come first, for their footage has to be read. What they leave goes to the
    others in the order of the queue. The first that does not fit ends it, so that one which draws
    much is not passed over for ever by those that draw little; only one that draws more than the
    whole budget is passed over.
    """
    drawing = {demand.bay for demand in demands if demand.fixed}
    left_ma = budget_ma - sum(demand.draw_ma for demand in demands if demand.fixed)
    queue = [demand for demand in demands if not demand.fixed and demand.draw_ma <= budget_ma]
    for demand in sorted(queue, key=lambda demand: (demand.since_s, demand.bay)):
        if demand.draw_ma > left_ma:
            break
        left_ma -= demand.draw_ma
        drawing.add(demand.bay)
    return frozenset(drawing)
