"""The life of a bay: one table ``(state, event) → (state, actions, verdict)``.

A bay is always in exactly one state. Each state has at most one piece of work (:data:`WORK`), which
the shell starts on entry and stops on exit; the work ends by reporting an event. Everything else
that must happen on the way is an action of the transition. An event that the table does not hold
for a state raises :class:`IllegalEventError` and leaves the bay as it was.

Removal is an ordinary event in every state with a camera. Nothing is erased outside ``WIPING``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dockd.core.model import Verdict


class BayState(StrEnum):
    """Where a bay stands; :data:`MEANING` has the words for it."""

    EMPTY = "empty"
    REFUSED = "refused"
    OPENING = "opening"
    SCANNING = "scanning"
    INGESTING = "ingesting"
    SEALING = "sealing"
    HOLDING = "holding"
    WIPING = "wiping"
    CHARGING = "charging"
    READY = "ready"
    ATTENTION = "attention"


class BayEvent(StrEnum):
    """What can happen to a bay."""

    PLUGGED = "plugged"
    FOUND_READY = "found_ready"
    DEVICE_REFUSED = "device_refused"
    UNPLUGGED = "unplugged"
    OPENED = "opened"
    FOUND_WORK = "found_work"
    FOUND_NOTHING = "found_nothing"
    FOUND_ERASED = "found_erased"
    ALL_CONFIRMED = "all_confirmed"
    ROUND_DONE = "round_done"
    SEALED = "sealed"
    SEAL_REFUSED = "seal_refused"
    SEAL_BROKEN = "seal_broken"
    HOLD_OVER = "hold_over"
    WIPE_NOT_WANTED = "wipe_not_wanted"
    WIPED = "wiped"
    CAMERA_DIFFERS = "camera_differs"
    CHARGED = "charged"
    FOOTAGE_FOUND = "footage_found"
    PERSON_NEEDED = "person_needed"
    TRY_AGAIN = "try_again"


class Action(StrEnum):
    """What the shell does on a transition, in the order given, before it starts the new work."""

    BEGIN_VISIT = "begin_visit"
    CLOSE_VOLUME = "close_volume"
    END_VISIT = "end_visit"


class Work(StrEnum):
    """What a bay is busy with in a state."""

    OPEN = "open"
    SCAN = "scan"
    INGEST = "ingest"
    SEAL = "seal"
    HOLD = "hold"
    WIPE = "wipe"
    CHARGE = "charge"
    WATCH = "watch"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Transition:
    """Where an event leads. With a ``verdict`` the visit is finished and summed up on the way."""

    state: BayState
    actions: tuple[Action, ...] = ()
    verdict: Verdict | None = None


class IllegalEventError(ValueError):
    """The event cannot happen in this state: a mistake in the caller."""


_S, _E, _A = BayState, BayEvent, Action

MEANING: Mapping[BayState, str] = {
    _S.EMPTY: "put a camera in",
    _S.REFUSED: "this device is not a camera we know",
    _S.OPENING: "do not remove",
    _S.SCANNING: "do not remove",
    _S.INGESTING: "copying, do not remove",
    _S.SEALING: "copied, being checked",
    _S.HOLDING: "copied, kept on the camera for now",
    _S.WIPING: "being erased, do not remove",
    _S.CHARGING: "charging",
    _S.READY: "take it",
    _S.ATTENTION: "tell a supervisor; the footage is still on the camera",
}
"""What an officer is told of a bay in each state."""

WORK: Mapping[BayState, Work] = {
    _S.OPENING: Work.OPEN,
    _S.SCANNING: Work.SCAN,
    _S.INGESTING: Work.INGEST,
    _S.SEALING: Work.SEAL,
    _S.HOLDING: Work.HOLD,
    _S.WIPING: Work.WIPE,
    _S.CHARGING: Work.CHARGE,
    _S.READY: Work.WATCH,
    _S.ATTENTION: Work.WAIT,
}

_LEAVE = (_A.CLOSE_VOLUME, _A.END_VISIT)
_PULLED = Transition(_S.EMPTY, _LEAVE, Verdict.INTERRUPTED)
_ASK = Transition(_S.ATTENTION, (_A.CLOSE_VOLUME,))

TABLE: Mapping[tuple[BayState, BayEvent], Transition] = {
    (_S.EMPTY, _E.PLUGGED): Transition(_S.OPENING, (_A.BEGIN_VISIT,)),
    (_S.EMPTY, _E.FOUND_READY): Transition(_S.READY),
    (_S.EMPTY, _E.DEVICE_REFUSED): Transition(_S.REFUSED),
    (_S.REFUSED, _E.UNPLUGGED): Transition(_S.EMPTY),
    (_S.OPENING, _E.OPENED): Transition(_S.SCANNING),
    (_S.OPENING, _E.PERSON_NEEDED): _ASK,
    (_S.OPENING, _E.UNPLUGGED): _PULLED,
    (_S.SCANNING, _E.FOUND_WORK): Transition(_S.INGESTING),
    (_S.SCANNING, _E.FOUND_NOTHING): Transition(_S.CHARGING, (_A.CLOSE_VOLUME,), Verdict.EMPTY),
    # A wipe that was cut short has come to its end while the camera was opened.
    (_S.SCANNING, _E.FOUND_ERASED): Transition(_S.CHARGING, (_A.CLOSE_VOLUME,), Verdict.WIPED),
    (_S.SCANNING, _E.ALL_CONFIRMED): Transition(_S.SEALING),
    (_S.SCANNING, _E.PERSON_NEEDED): _ASK,
    (_S.SCANNING, _E.UNPLUGGED): _PULLED,
    (_S.INGESTING, _E.ROUND_DONE): Transition(_S.SCANNING),
    (_S.INGESTING, _E.PERSON_NEEDED): _ASK,
    (_S.INGESTING, _E.UNPLUGGED): _PULLED,
    (_S.SEALING, _E.SEALED): Transition(_S.HOLDING),
    (_S.SEALING, _E.SEAL_REFUSED): Transition(_S.SCANNING),
    (_S.SEALING, _E.PERSON_NEEDED): _ASK,
    (_S.SEALING, _E.UNPLUGGED): _PULLED,
    # Who erases a device has to have it alone.
    (_S.HOLDING, _E.HOLD_OVER): Transition(_S.WIPING, (_A.CLOSE_VOLUME,)),
    (_S.HOLDING, _E.SEAL_BROKEN): Transition(_S.SCANNING),
    (_S.HOLDING, _E.WIPE_NOT_WANTED): Transition(_S.CHARGING, (_A.CLOSE_VOLUME,), Verdict.KEPT),
    (_S.HOLDING, _E.PERSON_NEEDED): _ASK,
    (_S.HOLDING, _E.UNPLUGGED): _PULLED,
    (_S.WIPING, _E.WIPED): Transition(_S.CHARGING, (_A.CLOSE_VOLUME,), Verdict.WIPED),
    (_S.WIPING, _E.CAMERA_DIFFERS): Transition(_S.OPENING),
    (_S.WIPING, _E.PERSON_NEEDED): _ASK,
    (_S.WIPING, _E.UNPLUGGED): _PULLED,
    (_S.CHARGING, _E.CHARGED): Transition(_S.READY),
    (_S.CHARGING, _E.PERSON_NEEDED): _ASK,
    (_S.CHARGING, _E.UNPLUGGED): Transition(_S.EMPTY, _LEAVE),
    (_S.READY, _E.FOOTAGE_FOUND): Transition(
        _S.OPENING, (_A.CLOSE_VOLUME, _A.END_VISIT, _A.BEGIN_VISIT)
    ),
    (_S.READY, _E.PERSON_NEEDED): _ASK,
    (_S.READY, _E.UNPLUGGED): Transition(_S.EMPTY, _LEAVE),
    (_S.ATTENTION, _E.TRY_AGAIN): Transition(_S.OPENING),
    (_S.ATTENTION, _E.UNPLUGGED): Transition(_S.EMPTY, _LEAVE, Verdict.ATTENTION),
}


def after(state: BayState, event: BayEvent) -> Transition:
    """Return where the event leads; raise :class:`IllegalEventError` if it cannot happen here."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise IllegalEventError(f"{event} cannot happen to a bay that is {state}") from None


def diagram() -> str:
    """Return the table as a Mermaid state diagram; docs/lifecycle.md carries it, a test compares."""
    lines = ["stateDiagram-v2", "    [*] --> empty"]
    for (state, event), transition in TABLE.items():
        label = event.value + (f" / {transition.verdict}" if transition.verdict else "")
        lines.append(f"    {state} --> {transition.state}: {label}")
    return "\n".join(lines)
