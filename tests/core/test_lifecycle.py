"""The table of a bay's life: what holds for every pair of state and event."""

from itertools import product

import pytest

from dockd.core.lifecycle import (
    TABLE,
    WORK,
    Action,
    BayEvent,
    BayState,
    IllegalEventError,
    Work,
    after,
    diagram,
)
from dockd.core.model import Verdict

WITH_CAMERA = set(BayState) - {BayState.EMPTY, BayState.REFUSED}
PAIRS = list(product(BayState, BayEvent))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_leads_somewhere_or_is_refused(state: BayState, event: BayEvent) -> None:
    if (state, event) in TABLE:
        assert after(state, event) is TABLE[state, event]
    else:
        with pytest.raises(
            IllegalEventError, match=f"{event} cannot happen to a bay that is {state}"
        ):
            after(state, event)


@pytest.mark.parametrize("state", sorted(WITH_CAMERA))
def test_a_camera_can_be_pulled_in_every_state(state: BayState) -> None:
    """INV-3: removal is normal, whatever the bay was doing."""
    transition = after(state, BayEvent.UNPLUGGED)
    assert transition.state is BayState.EMPTY
    assert transition.actions == (Action.CLOSE_VOLUME, Action.END_VISIT)


def test_every_state_is_reached_and_left() -> None:
    assert {transition.state for transition in TABLE.values()} == set(BayState)
    assert {state for state, _ in TABLE} == set(BayState)


def test_every_event_happens_somewhere() -> None:
    assert {event for _, event in TABLE} == set(BayEvent)


def test_wiping_is_entered_only_after_sealing_and_the_hold() -> None:
    """INV-1: there is no way into WIPING but through a sealed manifest and the end of its hold."""
    into_wiping = [
        pair for pair, transition in TABLE.items() if transition.state is BayState.WIPING
    ]
    into_holding = [
        pair for pair, transition in TABLE.items() if transition.state is BayState.HOLDING
    ]
    into_sealing = [
        pair for pair, transition in TABLE.items() if transition.state is BayState.SEALING
    ]
    assert into_wiping == [(BayState.HOLDING, BayEvent.HOLD_OVER)]
    assert into_holding == [(BayState.SEALING, BayEvent.SEALED)]
    assert into_sealing == [(BayState.SCANNING, BayEvent.ALL_CONFIRMED)]


def test_only_a_wipe_gives_the_verdict_wiped() -> None:
    """INV-1: "wiped" is said of a camera only when the wipe, or the report of an earlier one, said so."""
    said = {pair for pair, transition in TABLE.items() if transition.verdict is Verdict.WIPED}
    assert said == {(BayState.WIPING, BayEvent.WIPED), (BayState.SCANNING, BayEvent.FOUND_ERASED)}


def test_ready_comes_only_after_a_verdict_or_from_the_journal() -> None:
    """INV-2: no camera is shown as ready whose visit did not come to an end."""
    into_ready = {pair for pair, transition in TABLE.items() if transition.state is BayState.READY}
    assert into_ready == {
        (BayState.CHARGING, BayEvent.CHARGED),
        (BayState.EMPTY, BayEvent.FOUND_READY),
    }
    for transition in TABLE.values():
        if transition.state is BayState.CHARGING:
            assert transition.verdict in (Verdict.WIPED, Verdict.KEPT, Verdict.EMPTY)


@pytest.mark.parametrize("state", sorted(WORK))
def test_work_may_always_ask_for_a_person(state: BayState) -> None:
    """INV-2: trouble of any kind, in any work, ends where somebody sees it."""
    if state is not BayState.ATTENTION:
        assert after(state, BayEvent.PERSON_NEEDED).state is BayState.ATTENTION


def test_states_with_a_camera_have_work_and_the_others_none() -> None:
    assert set(WORK) == WITH_CAMERA
    assert set(WORK.values()) == set(Work)


def test_a_bay_in_need_of_a_person_tries_again_by_itself() -> None:
    """INV-7: a fault that a person has mended needs no restart."""
    assert after(BayState.ATTENTION, BayEvent.TRY_AGAIN).state is BayState.OPENING


def test_a_refused_device_never_has_a_visit() -> None:
    """INV-5: what is no camera is not opened."""
    assert after(BayState.EMPTY, BayEvent.DEVICE_REFUSED).actions == ()
    assert [event for state, event in TABLE if state is BayState.REFUSED] == [BayEvent.UNPLUGGED]


@pytest.mark.parametrize("state", sorted(WITH_CAMERA))
def test_every_visit_can_come_to_a_good_end(state: BayState) -> None:
    """INV-3: from every state there is a way on to READY without a person."""
    reached, frontier = {state}, [state]
    while frontier:
        at = frontier.pop()
        for (origin, event), transition in TABLE.items():
            if origin is at and event is not BayEvent.UNPLUGGED and transition.state not in reached:
                reached.add(transition.state)
                frontier.append(transition.state)
    assert BayState.READY in reached


def test_the_diagram_shows_every_transition() -> None:
    lines = diagram().splitlines()
    assert len(lines) == len(TABLE) + 2
    assert "    holding --> wiping: hold_over" in lines
    assert "    wiping --> charging: wiped / wiped" in lines
