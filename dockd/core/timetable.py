"""How fast footage may be sent at which time of the week, by the dock's local time.

A line is ``"Mon-Fri 07:00-19:00" = 20``: days, a span of the clock, megabits (10**6 bits) a second.
Days are names or ranges of names, separated by commas; a range may go round the end of the week. A
span that ends at or before its beginning lasts into the next day. Zero means that nothing is sent.

The clock on the wall decides, also in nights in which it is put forward or back: an hour that comes
twice is limited twice as its line says, and one that is left out is not limited at all.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from dockd.core.estimate import Phase

LEAST_MBIT_S = 0.1
"""The least rate but nothing: each of many streams still moves before anybody takes it for stalled."""

BYTES_S_PER_MBIT_S = 125_000

MOST_MBIT_S = 1_000_000.0

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_DAY_MIN, _WEEK_MIN = 24 * 60, 7 * 24 * 60
_MINUTE, _QUARTER_HOUR = timedelta(minutes=1), timedelta(minutes=15)
_LOOK_AHEAD = timedelta(days=8)
_LINE = re.compile(r"(\S+) +(\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)


class TimetableError(ValueError):
    """A timetable cannot be understood. ``problems`` has one line for each fault found."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        """Build from all its faults."""
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Minutes of the week, from Monday 00:00 on, the end not included, and the limit in them."""

    begin_min: int
    end_min: int
    mbit_s: float
    line: str


@dataclass(frozen=True, slots=True)
class Timetable:
    """Spans that do not overlap, in order, and the limit outside them all (None: there is none)."""

    spans: tuple[Span, ...] = ()
    otherwise_mbit_s: float | None = None

    @classmethod
    def parse(cls, lines: Mapping[str, object]) -> "Timetable":
        """Read the lines of a timetable; raises TimetableError with everything that is wrong."""
        spans: list[Span] = []
        problems: list[str] = []
        for line, rate in lines.items():
            try:
                spans.extend(_spans(line, check_rate(rate)))
            except ValueError as error:
                problems.append(f"{line!r} {error}")
        spans.sort()
        for earlier, later in pairwise(spans):
            if later.begin_min < earlier.end_min:
                problems.append(f"{earlier.line!r} and {later.line!r} overlap")
        if problems:
            raise TimetableError(tuple(dict.fromkeys(problems)))
        return cls(tuple(spans))

    @property
    def ever_sends(self) -> bool:
        """Whether there is a minute of the week in which anything may be sent."""
        if any(span.mbit_s > 0 for span in self.spans):
            return True
        covered_min = sum(span.end_min - span.begin_min for span in self.spans)
        return covered_min < _WEEK_MIN and self.otherwise_mbit_s != 0

    def limit_at(self, local: datetime) -> float | None:
        """Return the limit in Mbit/s at a time of the dock's wall clock; None where there is none."""
        minute = local.weekday() * _DAY_MIN + local.hour * 60 + local.minute
        for span in self.spans:
            if span.begin_min <= minute < span.end_min:
                return span.mbit_s
        return self.otherwise_mbit_s

    def next_change(
        self, now: datetime, to_local: Callable[[datetime], datetime]
    ) -> datetime | None:
        """Return the moment, in UTC, at which another limit comes into force; None if none ever does.

        ``to_local`` gives the wall clock of an aware time, such as :meth:`datetime.astimezone`.
        """
        if not self.spans:
            return None
        limit = self.limit_at(to_local(now))
        at = now.astimezone(UTC)
        until = at + _LOOK_AHEAD
        while at < until:
            # Clocks are put forward and back at quarters of an hour, so no jump can be missed.
            past_quarter = timedelta(
                minutes=at.minute % 15, seconds=at.second, microseconds=at.microsecond
            )
            at += min(_QUARTER_HOUR - past_quarter, self._to_next_edge(to_local(at)))
            if self.limit_at(to_local(at)) != limit:
                return at
        return None

    def phases(
        self, now: datetime, to_local: Callable[[datetime], datetime], limit: int = 100
    ) -> Iterator[Phase]:
        """Yield the limits from now on, each as long as it is in force; at most so many of them."""
        for _ in range(limit):
            mbit_s = self.limit_at(to_local(now))
            bytes_s = None if mbit_s is None else mbit_s * BYTES_S_PER_MBIT_S
            change = self.next_change(now, to_local)
            yield Phase(bytes_s, None if change is None else (change - now).total_seconds())
            if change is None:
                return
            now = change

    def _to_next_edge(self, local: datetime) -> timedelta:
        within = timedelta(seconds=local.second, microseconds=local.microsecond)
        now = (local.weekday() * _DAY_MIN + local.hour * 60 + local.minute) * _MINUTE + within
        edges = (edge * _MINUTE for span in self.spans for edge in (span.begin_min, span.end_min))
        return min((edge - now for edge in edges if edge > now), default=_QUARTER_HOUR)


def check_rate(value: object) -> float:
    """Return a rate in Mbit/s; raises ValueError for what is none, or too small to keep streams alive."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a number of Mbit/s")
    if value != 0 and not LEAST_MBIT_S <= value <= MOST_MBIT_S:
        raise ValueError(f"must be 0, or {LEAST_MBIT_S} to {MOST_MBIT_S:.0f} Mbit/s")
    return float(value)


def _spans(line: str, mbit_s: float) -> Iterator[Span]:
    parts = _LINE.fullmatch(line.strip())
    if parts is None:
        raise ValueError('is not like "Mon-Fri 07:00-19:00"')
    begin_min = _minute_of_day(parts[2], parts[3])
    end_min = _minute_of_day(parts[4], parts[5])
    if begin_min in (_DAY_MIN, end_min):
        raise ValueError("names no time")
    if end_min < begin_min:
        end_min += _DAY_MIN
    for day in sorted(_days(parts[1])):
        begin, end = day * _DAY_MIN + begin_min, day * _DAY_MIN + end_min
        yield Span(begin, min(end, _WEEK_MIN), mbit_s, line)
        if end > _WEEK_MIN:
            yield Span(0, end - _WEEK_MIN, mbit_s, line)


def _minute_of_day(hour: str, minute: str) -> int:
    value = int(hour) * 60 + int(minute)
    if int(minute) > 59 or value > _DAY_MIN:
        raise ValueError(f"has no time of day at {hour}:{minute}")
    return value


def _days(text: str) -> set[int]:
    days: set[int] = set()
    for item in text.split(","):
        first, dash, last = item.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"has {item!r}, which is no day: {', '.join(DAYS)}")
        begin = DAYS.index(first)
        length = (DAYS.index(last) - begin) % 7 + 1 if dash else 1
        days.update((begin + number) % 7 for number in range(length))
    return days
