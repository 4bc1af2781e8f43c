"""The measured rate."""

from typing import Any

import pytest

from dockd.target.meter import LEAST_S, Meter


def about(bytes_s: float) -> Any:
    return pytest.approx(bytes_s, rel=0.05)


def known(meter: Meter) -> tuple[float, float | None]:
    measured = meter.throughput
    return (measured.bytes_s, measured.limit_bytes_s) if measured is not None else (0, None)


def send(meter: Meter, from_s: float, to_s: float, bytes_s: float, limit: float | None) -> None:
    steps = int((to_s - from_s) * 10)
    for step in range(1, steps + 1):
        meter.passes(from_s + step / 10, limit, busy=True)
        meter.sent(int(bytes_s / 10))


def test_the_rate_is_that_of_the_last_time() -> None:
    meter = Meter()
    meter.passes(100.0, None, busy=False)
    assert known(meter) == (0, None)
    send(meter, 100, 100 + LEAST_S / 2, 1000, None)
    assert known(meter) == (0, None)
    send(meter, 100 + LEAST_S / 2, 110, 1000, None)
    assert known(meter) == (about(1000), None)
    send(meter, 110, 210, 5000, None)
    assert known(meter) == (about(5000), None)


def test_time_with_nothing_to_send_does_not_count() -> None:
    meter = Meter()
    meter.passes(0, None, busy=False)
    send(meter, 0, 10, 1000, None)
    meter.passes(7200, None, busy=False)
    assert known(meter) == (about(1000), None)


def test_a_link_that_is_down_is_seen_to_be() -> None:
    meter = Meter()
    meter.passes(0, None, busy=False)
    send(meter, 0, 10, 1000, None)
    send(meter, 10, 300, 0, None)
    assert known(meter)[0] < 1


def test_another_limit_is_measured_anew_and_the_old_rate_is_known_until_then() -> None:
    meter = Meter()
    meter.passes(0, 1000, busy=False)
    send(meter, 0, 10, 1000, 1000)
    meter.passes(10, 0, busy=True)
    meter.passes(7200, 0, busy=True)
    assert known(meter) == (about(1000), 1000)
    meter.passes(7200, 5000, busy=True)
    send(meter, 7200, 7210, 4900, 5000)
    assert known(meter) == (about(4900), 5000)
