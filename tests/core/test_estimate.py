"""How long it will still take."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockd.core.estimate import Phase, Throughput, seconds_left

FOR_EVER = [Phase(None, None)]
FREE = Throughput(100.0, None)


def test_cameras_share_the_rate_and_are_done_one_after_the_other() -> None:
    left = {"little": 100, "middle": 300, "much": 1000}
    assert seconds_left(left, FREE, FOR_EVER) == {"little": 3.0, "middle": 7.0, "much": 14.0}


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert seconds_left({"1": 5}, None, FOR_EVER) == {"1": None}
    assert seconds_left({"1": 5}, Throughput(0.0, None), FOR_EVER) == {"1": None}
    assert seconds_left({"1": 5}, FREE, [Phase(0.0, None)]) == {"1": None}
    assert seconds_left({"1": 5000}, FREE, [Phase(None, 10.0)]) == {"1": None}


def test_limits_to_come_are_taken_into_account() -> None:
    phases = [Phase(None, 2.0), Phase(0.0, 50.0), Phase(10.0, 20.0), Phase(None, None)]
    left = {"now": 50, "tomorrow": 250, "after": 1000}
    assert seconds_left(left, FREE, phases) == {
        "now": 1.5,
        "tomorrow": 72 + (550 - 400) / 100,
        "after": 72 + (1300 - 400) / 100,
    }


@pytest.mark.parametrize(
    ("measured", "limit", "expected"),
    [
        (Throughput(98.0, 100.0), 1000.0, 980.0),
        (Throughput(98.0, 100.0), None, 98.0),
        (Throughput(101.0, 100.0), 10.0, 10.0),
        (Throughput(60.0, 100.0), 1000.0, 60.0),
        (Throughput(60.0, 100.0), 50.0, 50.0),
        (Throughput(60.0, None), 50.0, 50.0),
        (Throughput(60.0, None), 0.0, 0.0),
    ],
)
def test_what_held_the_rate_back_tells_what_another_limit_does(
    measured: Throughput, limit: float | None, expected: float
) -> None:
    assert measured.under(limit) == pytest.approx(expected)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), st.integers(0, 10**12), max_size=8))
def test_the_last_camera_is_done_when_all_bytes_are_sent(left: dict[str, int]) -> None:
    seconds = seconds_left(left, FREE, FOR_EVER)
    order = sorted(left, key=lambda name: left[name])
    times = [seconds[name] or 0.0 for name in order]
    assert times == sorted(times)
    if left:
        assert times[-1] == pytest.approx(sum(left.values()) / 100)
