"""When a camera has charged enough."""

import pytest

from dockd.core.charging import is_charged
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
