"""When a camera has charged enough to be handed out."""

from dockd.core.model import ChargeStatus


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
