"""Which recordings start next."""

from hypothesis import given
from hypothesis import strategies as st

from dockd.core.schedule import BayLoad, Limits, Start, Waiting, in_order, plan

LIMITS = Limits(streams=4, streams_per_bay=2, small_bytes=100)


def small(name: str, *, flagged: bool = False) -> Waiting:
    return Waiting(name.encode(), 10, flagged)


def large(name: str, *, flagged: bool = False) -> Waiting:
    return Waiting(name.encode(), 1000, flagged)


def load(bay: str, *waiting: Waiting, left: int = 0, running: tuple[Waiting, ...] = ()) -> BayLoad:
    return BayLoad(bay, left, running, waiting)


def test_flagged_recordings_go_before_all_others() -> None:
    starts = plan(
        [load("1", small("a"), left=1), load("2", small("b"), small("c", flagged=True), left=9)],
        LIMITS,
    )
    assert starts[0] == Start("2", b"c")


def test_each_bay_gets_one_stream_before_any_gets_two() -> None:
    """INV-8: a bay with much to send does not keep the others waiting."""
    bays = [load(name, small(name + "1"), small(name + "2"), left=5) for name in "abcd"]
    assert [start.bay for start in plan(bays, LIMITS)] == ["a", "b", "c", "d"]


def test_the_camera_with_the_least_left_goes_first() -> None:
    bays = [load("1", large("x"), left=900), load("2", large("y"), left=30)]
    assert [start.bay for start in plan(bays, Limits(1, 1, 100))] == ["2"]


def test_a_bay_sends_one_large_recording_at_a_time_and_small_ones_beside_it() -> None:
    bay = load("1", large("b"), small("c"), large("d"), running=(large("a"),))
    assert plan([bay], LIMITS) == (Start("1", b"c"),)


def test_nothing_starts_beyond_the_limits() -> None:
    full = load("1", small("z"), running=(small("a"), small("b")))
    assert plan([full], LIMITS) == ()
    assert plan([load("2", small("y")), full], Limits(2, 2, 100)) == ()


def test_flagged_recordings_of_a_bay_keep_their_order() -> None:
    waiting = [small("a"), small("b", flagged=True), small("c"), small("d", flagged=True)]
    assert [item.path for item in in_order(waiting)] == [b"b", b"d", b"a", b"c"]


waitings = st.lists(
    st.builds(Waiting, st.binary(min_size=1, max_size=3), st.integers(0, 200), st.booleans()),
    max_size=6,
    unique_by=lambda waiting: waiting.path,
)
loads = st.lists(st.tuples(waitings, st.integers(0, 500)), max_size=5).map(
    lambda bays: [
        BayLoad(str(number), left, tuple(items[:1]), tuple(items[1:]))
        for number, (items, left) in enumerate(bays)
    ]
)


@given(loads, st.integers(1, 8), st.integers(1, 4))
def test_a_plan_keeps_every_limit_and_leaves_no_slot_free_in_vain(
    bays: list[BayLoad], streams: int, streams_per_bay: int
) -> None:
    limits = Limits(streams, streams_per_bay, 100)
    starts = plan(bays, limits)
    assert len(set(starts)) == len(starts)
    running = {bay.bay: list(bay.running) for bay in bays}
    waiting = {bay.bay: {item.path: item for item in bay.waiting} for bay in bays}
    for start in starts:
        running[start.bay].append(waiting[start.bay].pop(start.path))
    total = sum(map(len, running.values()))
    assert not starts or total <= streams
    for bay in bays:
        now = running[bay.bay]
        begun = len(now) > len(bay.running)
        assert not begun or len(now) <= streams_per_bay
        assert not begun or sum(item.size_bytes > 100 for item in now) <= 1
        room = total < streams and len(now) < streams_per_bay
        if room and not any(item.size_bytes > 100 for item in now):
            assert not waiting[bay.bay]
