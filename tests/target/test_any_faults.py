"""Whatever happens on the way, a store that is well in the end holds exactly one right copy."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dockd.core.errors import (
    AdministrativeRefusalError,
    ChecksumMismatchError,
    OffsetConflictError,
    ProtocolViolationError,
    TargetError,
    TargetFaultError,
    TargetFullError,
    TargetUnavailableError,
    UploadGoneError,
    UploadLockedError,
)
from tests.simulated.clock import SimulatedClock, run_virtual
from tests.simulated.store import APPEND, CREATE, DISCOVER, OFFSET, RECEIPT, SimulatedStore
from tests.target.dock_side import DockSide

ERRORS = st.sampled_from(
    [
        TargetUnavailableError("away"),
        TargetUnavailableError("busy", status=503, retry_after_s=30),
        TargetUnavailableError("gateway", status=502),
        TargetFullError("full", status=507),
        TargetFaultError("oops", status=500),
        UploadLockedError("locked", status=423),
        OffsetConflictError("elsewhere", status=409),
        UploadGoneError("gone", status=404),
        ChecksumMismatchError("changed", status=460),
        AdministrativeRefusalError("no", status=403),
        ProtocolViolationError("nonsense"),
    ]
)
VERBS = st.sampled_from([DISCOVER, CREATE, OFFSET, APPEND, RECEIPT])
FAULTS = st.one_of(
    st.tuples(st.just("fail"), VERBS, ERRORS),
    st.tuples(st.just("lose_answer"), VERBS, st.none()),
    st.tuples(st.just("cut"), st.integers(0, 6000), st.none()),
    st.tuples(st.just("lose_bytes"), st.integers(1, 6000), st.none()),
)


def order(store: SimulatedStore, kind: str, what: Any, error: TargetError | None) -> None:
    if kind == "fail" and error is not None:
        store.fail_next(what, error)
    elif kind == "lose_answer":
        store.lose_answer(what)
    elif kind == "cut":
        store.cut_append(what)
    elif kind == "lose_bytes":

        def lose(answer: object) -> object:
            for url, upload in store.uploads.items():
                if upload.receipt is None:
                    store.lose_bytes(url, what)
            return answer

        store.alter_next(APPEND, lose)


@settings(max_examples=150, deadline=None)
@given(
    size=st.sampled_from([0, 1, 64, 65, 100, 101, 1000, 5003]),
    faults=st.lists(FAULTS, max_size=12),
    checking_s=st.sampled_from([0.0, 5.0]),
)
def test_any_faults_then_health(
    size: int, faults: list[tuple[str, Any, TargetError | None]], checking_s: float
) -> None:
    """INV-3: nothing half-sent is ever taken for complete; INV-1: what has a receipt is right."""
    data = bytes(number % 251 for number in range(size))

    async def visit() -> None:
        store = SimulatedStore(
            SimulatedClock(asyncio.get_running_loop()), latency_s=0.01, checking_s=checking_s
        )
        dock = DockSide(store)
        for kind, what, error in faults:
            order(store, kind, what, error)
        for _ in range(20):
            try:
                sent = await dock.send(data, url=dock.urls[-1] if dock.urls else None)
                receipt = sent.receipt or await dock.uploader.receipt(sent.url)
            except TargetError:
                continue
            break
        else:
            raise AssertionError("the faults were over, and it did not end")
        claims = store.verifier.verify(receipt)
        assert (claims.sha256, claims.size_bytes) == (sent.sha256, size)
        assert list(store.objects.values()) == [data]
        assert len(store.held()) == 1

    run_virtual(visit())
