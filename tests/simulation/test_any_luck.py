"""Any sequence of luck, good and bad, then calm: footage is safe throughout, and everything ends well.

Hypothesis makes up the sequence; the dock, its journal, uploader and wipe gate are the real ones. The
rules are checked after every step, and once the faults have stopped, progress is demanded.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dockd.config import UploadConfig, WipeConfig
from dockd.core.errors import (
    DockdError,
    OffsetConflictError,
    ProtocolViolationError,
    TargetFaultError,
    TargetFullError,
    TargetRefusedError,
    TargetUnavailableError,
    UploadLockedError,
)
from dockd.core.lifecycle import BayState
from dockd.core.model import Appended, Created
from dockd.evidence.custody import content, verify_chain
from dockd.evidence.receipts import sign_receipt
from dockd.send_now import send_now
from tests.simulated.cameras import SimulatedCamera
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera

BAYS = ("1", "2")
HOLD_S = 20.0
"""Long enough for luck to strike between the proof and the wipe."""

VERBS = ("discover", "create", "offset", "append", "receipt")
FAULTS: tuple[Callable[[], DockdError], ...] = (
    lambda: TargetUnavailableError("the connection was reset"),
    lambda: TargetUnavailableError("503", status=503, retry_after_s=20),
    lambda: TargetFaultError("500", status=500),
    lambda: TargetFullError("507", status=507),
    lambda: TargetRefusedError("400", status=400),
    lambda: UploadLockedError("423", status=423),
    lambda: OffsetConflictError("409", status=409),
    lambda: ProtocolViolationError("the offset cannot be"),
)


class World:
    """Two bays, three cameras, one store, and everything that happened to footage."""

    def __init__(self, dock: SimulatedDock) -> None:
        self.dock = dock
        self.cameras = [
            body_camera("cam-1", 10, 6_000),
            body_camera("cam-2", 0, 40_000),
            body_camera("cam-3", 5_000, 20, 30),
        ]
        self.where: dict[str, SimulatedCamera] = {}
        self.clips = 0

    def plug(self, bay: str, number: int) -> None:
        camera = self.cameras[number]
        if bay not in self.where and camera not in self.where.values():
            self.where[bay] = camera
            self.dock.source.plug(bay, camera)

    def unplug(self, bay: str) -> None:
        if self.where.pop(bay, None) is not None:
            self.dock.source.unplug(bay)

    def record(self, number: int, name: int, size_bytes: int) -> None:
        """A new clip, often under a name that was used before, at a time that was used before."""
        self.clips += 1
        data = (f"clip {self.clips} ".encode() * (size_bytes // 7 + 1))[:size_bytes]
        path = f"DCIM/MOV_{name:04}.MP4".encode()
        mtime_ns = 1_900_000_000_000_000_000 + name
        self.cameras[number].record(path, data, mtime_ns=mtime_ns)

    def meddle(self, number: int) -> None:
        """The bytes of one file change behind its size and time."""
        for file in self.cameras[number].files.values():
            data = b"".join(file.chunks())
            file.content = bytes(reversed(data))
            return

    def wrong_receipt(self, how: int) -> None:
        """The next complete upload is answered with a receipt that is wrong in one respect."""
        changes: list[dict[str, object]] = [
            {"sha256": "0" * 64},
            {"size_bytes": 1},
            {"camera": "cam-9"},
            {"dock": "dock-9"},
            {"issuer": "other-store"},
        ]
        store = self.dock.store

        def spoil(answer: Appended | Created) -> Appended | Created:
            if answer.receipt is None:
                return answer
            claims = replace(store.verifier.verify(answer.receipt), **changes[how])  # type: ignore[arg-type]
            return replace(answer, receipt=sign_receipt(store.key, claims))

        store.alter_next("append", spoil)
        store.alter_next("create", spoil)

    def full_disk(self, for_writes: int) -> None:
        writes = self.dock.database.writes
        self.dock.database.full |= set(range(writes + 1, writes + 1 + for_writes))

    def limit(self, mbit_s: float | None) -> None:
        """Another rate comes into force, or an hour in which nothing is sent."""
        upload = UploadConfig.model_construct(rate_mbit_s=mbit_s)
        self.dock.config = self.dock.config.model_copy(update={"upload": upload})

    def check(self) -> None:
        """INV-1: whatever is no longer on a camera is at the store, signed for, byte for byte."""
        signed = {
            self.dock.store.verifier.verify(upload.receipt).sha256
            for upload in self.dock.store.uploads.values()
            if upload.receipt is not None
        }
        for camera in self.cameras:
            for path, digest in camera.erased:
                assert digest in signed, path
                assert hashlib.sha256(self.dock.store.objects[digest]).hexdigest() == digest


Step = Callable[[World], object]
numbers = st.integers(0, 2)
bays = st.sampled_from(BAYS)


def often(
    strategy: st.SearchStrategy[tuple[str, Step]],
) -> list[st.SearchStrategy[tuple[str, Step]]]:
    """What meets the dock in the middle of its work finds more than what meets it asleep."""
    return [strategy] * 3


steps: st.SearchStrategy[tuple[str, Step]] = st.one_of(
    *often(
        st.builds(
            lambda n, name, size: (f"record {n} {name} {size}", lambda w: w.record(n, name, size)),
            numbers,
            st.integers(1, 4),
            st.sampled_from([10, 5_000, 0]),
        )
    ),
    *often(
        st.builds(
            lambda s: (f"wait {s}", lambda _: asyncio.sleep(s)),
            st.sampled_from([5.0, 0.3, 15.0, 0.001, 90.0, 1_000.0]),
        )
    ),
    *often(st.builds(lambda n: (f"meddle {n}", lambda w: w.meddle(n)), numbers)),
    st.builds(lambda b, n: (f"plug {b} {n}", lambda w: w.plug(b, n)), bays, numbers),
    st.builds(lambda b: (f"unplug {b}", lambda w: w.unplug(b)), bays),
    st.builds(
        lambda v, f, times: (
            f"fail {v} {f} {times}",
            lambda w: w.dock.store.fail_next(v, FAULTS[f], times),
        ),
        st.sampled_from(VERBS),
        st.integers(0, len(FAULTS) - 1),
        st.integers(1, 12),
    ),
    st.builds(
        lambda v: (f"lose answer {v}", lambda w: w.dock.store.lose_answer(v)),
        st.sampled_from(VERBS),
    ),
    st.builds(
        lambda at: (f"cut append {at}", lambda w: w.dock.store.cut_append(at)),
        st.sampled_from([0, 1, 3_000, 30_000]),
    ),
    st.builds(lambda h: (f"wrong receipt {h}", lambda w: w.wrong_receipt(h)), st.integers(0, 4)),
    st.builds(
        lambda down: (f"down {down}", lambda w: setattr(w.dock.store, "down", down)), st.booleans()
    ),
    st.builds(lambda n: (f"disk full {n}", lambda w: w.full_disk(n)), st.integers(1, 5)),
    st.builds(
        lambda m: (f"limit {m}", lambda w: w.limit(m)), st.sampled_from([0.0, 0.1, 20.0, None])
    ),
    st.builds(
        lambda n: (f"send now {n}", lambda w: send_now(w.dock.dock.bays.values(), f"cam-{n + 1}")),
        numbers,
    ),
    st.just(("restart", lambda w: w.dock.restart())),
    st.builds(lambda n: (f"loop {n}", lambda _: _steps_of_the_loop(n)), st.integers(1, 60)),
)


async def _steps_of_the_loop(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=10, max_size=30), st.integers(0, 3))
def test_whatever_happens_footage_is_safe_and_all_ends_well(
    sequence: list[tuple[str, Step]], checking_s: int
) -> None:
    """INV-1, INV-2, INV-3, INV-4."""

    @virtual_time
    async def run() -> None:
        wipe = WipeConfig(hold_s=HOLD_S)
        async with SimulatedDock(BAYS, wipe=wipe, checking_s=checking_s, latency_s=0.01) as dock:
            world = World(dock)
            world.plug("1", 0)
            world.plug("2", 1)
            for _, step in sequence:
                outcome = step(world)
                if asyncio.iscoroutine(outcome):
                    await outcome
                await _steps_of_the_loop(3)
                world.check()
            dock.store.calm()
            dock.database.full.clear()
            world.limit(None)
            for bay in world.where:
                await dock.until_state(bay, BayState.READY, within_s=4 * 3_600, every_s=1)
                world.check()
            await _check_the_end(world)

    run()


async def _check_the_end(world: World) -> None:
    dock = world.dock
    for bay, camera in world.where.items():
        visit = dock.bay(bay).visit
        assert visit is not None
        # A ready USB camera is not looked into again until it is pulled: what was put on it since
        # by magic of this test may be there, and nothing else.
        late = {path for path, file in camera.files.items()}
        assert not late or visit.finished_at is not None
    entries = await dock.entries()
    heads = [dock.store.claims(upload, "").custody_head for upload in dock.store.uploads.values()]
    report = verify_chain(entries, dock.key.public, heads)
    assert not report.problems
    finished: Counter[str] = Counter()
    for entry in entries:
        fields = json.loads(json.dumps(content(entry)))
        if fields["event"] == "visit.finished":
            finished[fields["visit"]] += 1
    assert set(finished.values()) <= {1}
