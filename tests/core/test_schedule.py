"""Which recordings start next."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dockd.core.schedule import PATIENCE_S, BayLoad, Limits, Start, Waiting, in_order, plan

LIMITS = Limits(streams=4, streams_per_bay=2, small_bytes=100)


def small(name: str, *, urgent: bool = False) -> Waiting:
    return Waiting(name.encode(), 10, urgent)


def large(name: str, *, urgent: bool = False) -> Waiting:
    return Waiting(name.encode(), 1000, urgent)


def load(bay: str, *waiting: Waiting, left: int = 0, running: tuple[Waiting, ...] = ()) -> BayLoad:
    return BayLoad(bay, left, running, waiting)


def test_urgent_recordings_go_before_all_others() -> None:
    starts = plan(
        [load("1", small("a"), left=1), load("2", small("b"), small("c", urgent=True), left=9)],
        LIMITS,
        0.0,
    )
    assert starts[0] == Start("2", b"c")


def test_each_bay_gets_one_stream_before_any_gets_two() -> None:
    """INV-8: a bay with much to send does not keep the others waiting."""
    bays = [load(name, small(name + "1"), small(name + "2"), left=5) for name in "abcd"]
    assert [start.bay for start in plan(bays, LIMITS, 0.0)] == ["a", "b", "c", "d"]


def test_the_camera_with_the_least_left_goes_first() -> None:
    bays = [load("1", large("x"), left=900), load("2", large("y"), left=30)]
    assert [start.bay for start in plan(bays, Limits(1, 1, 100), 0.0)] == ["2"]


def test_a_bay_sends_one_large_recording_at_a_time_and_small_ones_beside_it() -> None:
    bay = load("1", large("b"), small("c"), large("d"), running=(large("a"),))
    assert plan([bay], LIMITS, 0.0) == (Start("1", b"c"),)


def test_nothing_starts_beyond_the_limits() -> None:
    full = load("1", small("z"), running=(small("a"), small("b")))
    assert plan([full], LIMITS, 0.0) == ()
    assert plan([load("2", small("y")), full], Limits(2, 2, 100), 0.0) == ()


def test_urgent_recordings_of_a_bay_keep_their_order() -> None:
    waiting = [small("a"), small("b", urgent=True), small("c"), small("d", urgent=True)]
    assert [item.path for item in in_order(waiting)] == [b"b", b"d", b"a", b"c"]


def test_an_urgent_recording_never_waits_for_a_large_one() -> None:
    busy = load("1", large("b", urgent=True), running=(large("a"),))
    others = [load(name, small("y"), running=(large("x"),)) for name in "234"]
    assert plan([busy, *others], LIMITS, 0.0) == (Start("1", b"b"),)
    assert plan([busy], Limits(1, 1, 100), 0.0) == (Start("1", b"b"),)


def test_each_bay_has_one_urgent_recording_beyond_the_limits_and_not_more() -> None:
    """INV-8: what one bay marks as urgent takes no more than its own."""
    bays = [
        load(name, large("b", urgent=True), large("c", urgent=True), running=(large("a"),))
        for name in "12"
    ]
    assert plan(bays, Limits(2, 1, 100), 0.0) == (Start("1", b"b"), Start("2", b"b"))
    going = load("1", small("c", urgent=True), running=(large("b", urgent=True),))
    assert plan([going], Limits(1, 1, 100), 0.0) == ()


def test_a_bay_that_waits_too_long_is_served() -> None:
    """INV-8: cameras with little left that keep coming do not hold up the one with much."""
    patient = BayLoad("1", 10_000, (), (large("x"),), served_at_s=0.0)
    newcomer = BayLoad("2", 10, (), (small("y", urgent=True), small("z")), served_at_s=PATIENCE_S)
    one = Limits(1, 1, 100)
    assert plan([patient, newcomer], one, PATIENCE_S - 1)[0] == Start("2", b"y")
    assert plan([patient, newcomer], one, PATIENCE_S)[0] == Start("1", b"x")
    longer = BayLoad("3", 20_000, (), (large("v"),), served_at_s=-1.0)
    assert plan([patient, newcomer, longer], one, PATIENCE_S)[0] == Start("3", b"v")


waitings = st.lists(
    st.builds(Waiting, st.binary(min_size=1, max_size=3), st.integers(0, 200), st.booleans()),
    max_size=6,
    unique_by=lambda waiting: waiting.path,
)
loads = st.lists(st.tuples(waitings, st.integers(0, 500), st.floats(0, 100)), max_size=5).map(
    lambda bays: [
        BayLoad(str(number), left, tuple(items[:1]), tuple(items[1:]), served_at_s)
        for number, (items, left, served_at_s) in enumerate(bays)
    ]
)


@settings(deadline=None)
@given(loads, st.integers(1, 8), st.integers(1, 4))
def test_a_plan_keeps_every_limit_and_leaves_no_slot_free_in_vain(
    bays: list[BayLoad], streams: int, streams_per_bay: int
) -> None:
    limits = Limits(streams, streams_per_bay, 100)
    starts = plan(bays, limits, 100.0)
    assert len(set(starts)) == len(starts)
    running = {bay.bay: list(bay.running) for bay in bays}
    waiting = {bay.bay: {item.path: item for item in bay.waiting} for bay in bays}
    for start in starts:
        total = sum(map(len, running.values()))
        now = running[start.bay]
        chosen = waiting[start.bay].pop(start.path)
        first_urgent = chosen.urgent and not any(item.urgent for item in now)
        assert first_urgent or (total < streams and len(now) < streams_per_bay)
        a_large_one_runs = any(item.size_bytes > 100 for item in now)
        assert first_urgent or chosen.size_bytes <= 100 or not a_large_one_runs
        now.append(chosen)
    total = sum(map(len, running.values()))
    for bay in bays:
        now, left = running[bay.bay], waiting[bay.bay].values()
        urgent_runs = any(item.urgent for item in now)
        assert urgent_runs or not any(item.urgent for item in left)
        room = total < streams and len(now) < streams_per_bay
        if room and not any(item.size_bytes > 100 for item in now):
            assert not left


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=8), st.integers(1, 3))
def test_every_bay_is_served_in_the_end(sizes: list[int], streams: int) -> None:
    """INV-8: whatever keeps arriving elsewhere, no bay waits for ever."""
    limits = Limits(streams, 1, 100)
    served_at_s = dict.fromkeys(map(str, range(len(sizes))), 0.0)
    longest = 0.0
    for round_number in range(200):
        now_s = 10.0 * round_number
        bays = [
            BayLoad(bay, sizes[int(bay)], (), (small(f"{bay} {round_number}"),), since)
            for bay, since in served_at_s.items()
        ]
        for start in plan(bays, limits, now_s):
            longest = max(longest, now_s - served_at_s[start.bay])
            served_at_s[start.bay] = now_s
    longest = max(longest, *(now_s - since for since in served_at_s.values()))
    assert longest <= PATIENCE_S + 10.0 * len(sizes)
