"""Rates by the time of the week, on days when clocks are changed, too."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockd.core.timetable import Timetable, TimetableError

LONDON = ZoneInfo("Europe/London")


def london(moment: datetime) -> datetime:
    return moment.astimezone(LONDON)


def at(text: str) -> datetime:
    """A time of London's wall clock in a week that begins on Monday, 2 June 2031."""
    return datetime.fromisoformat(f"2031-06-{text}").replace(tzinfo=LONDON)


WORK = Timetable.parse({"Mon-Fri 07:00-19:00": 20, "Sat,Sun 22:00-06:00": 0})


@pytest.mark.parametrize(
    ("when", "mbit_s"),
    [
        ("02 06:59:59", None),
        ("02 07:00:00", 20.0),
        ("06 18:59:59", 20.0),
        ("06 19:00:00", None),
        ("07 12:00:00", None),
        ("07 22:00:00", 0.0),
        ("08 05:59:59", 0.0),
        ("08 06:00:00", None),
        ("08 23:00:00", 0.0),
        ("09 05:59:00", 0.0),  # Sunday's night ends on Monday
        ("09 06:30:00", None),
    ],
)
def test_the_limit_is_that_of_the_line_in_force(when: str, mbit_s: float | None) -> None:
    assert WORK.limit_at(at(when)) == mbit_s


def test_outside_all_lines_the_general_limit_holds() -> None:
    assert Timetable(WORK.spans, 5.0).limit_at(at("02 06:00:00")) == 5.0


def test_a_range_of_days_goes_round_the_end_of_the_week() -> None:
    table = Timetable.parse({"Sat-Mon 00:00-24:00": 1})
    assert [table.limit_at(at(f"0{day} 12:00:00")) for day in range(2, 9)] == [
        1, None, None, None, None, 1, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({"Mon 7:00-19:00": 20}, "is not like"),
        ({"Mon-Fri": 20}, "is not like"),
        ({"Mo 07:00-19:00": 20}, "'Mo', which is no day"),
        ({"Mon- 07:00-19:00": 20}, "no day"),
        ({"Mon 07:00-07:00": 20}, "names no time"),
        ({"Mon 24:00-07:00": 20}, "names no time"),
        ({"Mon 07:61-08:00": 20}, "no time of day at 07:61"),
        ({"Mon 07:00-24:01": 20}, "no time of day at 24:01"),
        ({"Mon 07:00-19:00": "20"}, "must be a number"),
        ({"Mon 07:00-19:00": True}, "must be a number"),
        ({"Mon 07:00-19:00": float("inf")}, "must be a number"),
        ({"Mon 07:00-19:00": -1}, "must be 0, or"),
        ({"Mon 07:00-19:00": 0.01}, "must be 0, or"),
        ({"Mon-Fri 07:00-19:00": 20, "Fri 18:59-20:00": 5}, "overlap"),
        ({"Sun 22:00-06:00": 20, "Mon 05:00-07:00": 5}, "overlap"),
        ({"Mon 22:00-06:00": 20, "Mon-Tue 05:00-07:00": 5}, "overlap"),
    ],
)
def test_what_cannot_be_meant_is_refused(lines: dict[str, object], words: str) -> None:
    with pytest.raises(TimetableError, match=words):
        Timetable.parse(lines)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(TimetableError) as caught:
        Timetable.parse({"x": 1, "Mon 07:00-08:00": -5})
    assert len(caught.value.problems) == 2


def test_lines_that_touch_do_not_overlap() -> None:
    Timetable.parse({"Mon 07:00-19:00": 20, "Mon 19:00-07:00": 5, "Tue 07:00-08:00": 1})


@pytest.mark.parametrize(
    ("lines", "otherwise", "ever"),
    [
        ({}, None, True),
        ({}, 0.0, False),
        ({"Mon-Sun 00:00-24:00": 0}, None, False),
        ({"Mon-Sun 07:00-07:01": 5}, 0.0, True),
        ({"Mon-Sun 07:00-06:59": 0}, None, True),
    ],
)
def test_a_timetable_that_never_sends_is_known(
    lines: dict[str, object], otherwise: float | None, *, ever: bool
) -> None:
    assert Timetable(Timetable.parse(lines).spans, otherwise).ever_sends is ever


def test_the_next_change_is_the_next_edge() -> None:
    assert WORK.next_change(at("02 03:00:30"), london) == at("02 06:00:00")
    assert WORK.next_change(at("03 07:00:00"), london) == at("03 19:00:00")
    assert WORK.next_change(at("06 19:00:00"), london) == at("07 22:00:00")


@pytest.mark.parametrize("lines", [{}, {"Mon-Sun 00:00-24:00": 3}])
def test_where_nothing_changes_there_is_no_next_change(lines: dict[str, object]) -> None:
    assert Timetable.parse(lines).next_change(at("02 03:00:30"), london) is None


def test_an_hour_that_is_left_out_has_no_limit() -> None:
    """In London on 30 March 2031, 01:00 is followed by 02:00."""
    table = Timetable.parse({"Sun 01:15-02:30": 7})
    midnight = datetime(2031, 3, 30, tzinfo=UTC)
    change = table.next_change(midnight, london)
    assert change == datetime(2031, 3, 30, 1, 0, tzinfo=UTC)
    assert table.next_change(change, london) == datetime(2031, 3, 30, 1, 30, tzinfo=UTC)


def test_an_hour_that_comes_twice_is_limited_twice() -> None:
    """In London on 26 October 2031, 02:00 summer time is followed by 01:00."""
    table = Timetable.parse({"Sun 01:30-02:00": 7})
    moment, changes = datetime(2031, 10, 25, 12, 0, tzinfo=UTC), []
    for _ in range(4):
        found = table.next_change(moment, london)
        assert found is not None
        changes.append(found)
        moment = found
    night = datetime(2031, 10, 26, tzinfo=UTC)
    assert changes == [night + timedelta(minutes=minutes) for minutes in (30, 60, 90, 120)]


NEW_YEAR = datetime(2031, 1, 1, tzinfo=UTC)
LINES = ("Mon-Fri 07:00-19:00", "Sat,Sun 22:00-06:00", "Sun 06:00-06:01", "Wed 23:59-00:30")


@settings(deadline=None)
@given(
    st.timedeltas(timedelta(), timedelta(days=365)).map(lambda since: NEW_YEAR + since),
    st.sets(st.sampled_from(LINES)),
)
def test_between_now_and_the_next_change_the_limit_stays(now: datetime, chosen: set[str]) -> None:
    table = Timetable.parse({line: number + 1 for number, line in enumerate(sorted(chosen))})
    limit, change = table.limit_at(london(now)), table.next_change(now, london)
    end = change or now + timedelta(days=8)
    for part in range(50):
        assert table.limit_at(london(now + (end - now) * part / 50)) == limit
    if change is not None:
        assert table.limit_at(london(change)) != limit
