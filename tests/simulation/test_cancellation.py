"""The dock is cancelled at each await of a visit in turn: nothing leaks, and the next start goes on."""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

from dockd.core.lifecycle import BayState
from dockd.core.model import UploadKind
from dockd.evidence.custody import content, verify_chain
from tests.simulated.clock import run_virtual
from tests.simulated.dock import SimulatedDock, body_camera
from tests.simulated.store import SimulatedStore


class Suspensions:
    """Counts each suspension of any task, and calls ``at_last`` at the one that is asked for."""

    def __init__(self, number: int, at_last: Callable[[], None]) -> None:
        self.left = number
        self._at_last = at_last

    def make_task(
        self, loop: asyncio.AbstractEventLoop, main: Any, **more: Any
    ) -> asyncio.Task[Any]:
        """Be the loop's task factory."""
        return asyncio.Task(self._awaited(main), loop=loop, **more)

    async def _awaited(self, main: Coroutine[Any, Any, Any]) -> Any:
        return await _Counted(main, self._one)

    def _one(self) -> None:
        self.left -= 1
        if self.left == 0:
            self._at_last()


class _Counted(Awaitable[Any]):
    def __init__(self, main: Coroutine[Any, Any, Any], count: Callable[[], None]) -> None:
        self._main = main
        self._count = count

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._main.__await__()
        try:
            waiting_for = next(steps)
            while True:
                self._count()
                try:
                    yield waiting_for
                except BaseException as error:  # noqa: BLE001 (handed on to the coroutine)
                    waiting_for = steps.throw(error)
                else:
                    waiting_for = next(steps)
        except StopIteration as done:
            return done.value


def calm(_: SimulatedStore) -> None:
    """No fault."""


def stormy(store: SimulatedStore) -> None:
    """A cut and lost answers lead the visit through more of its branches."""
    store.cut_append(after_bytes=3_000)
    store.lose_answer("create")
    store.lose_answer("receipt")


@pytest.mark.parametrize("weather", [calm, stormy])
def test_cancelled_at_any_await_of_a_visit(weather: Callable[[SimulatedStore], None]) -> None:
    """INV-1, INV-3: no task, no open volume, no locked upload; and then one whole visit."""
    number, reached = 0, True
    while reached:
        number += 1
        reached = run_virtual(cancelled_at(number, weather))
    assert number > 100


async def cancelled_at(number: int, weather: Callable[[SimulatedStore], None]) -> bool:
    """Cancel the dock at a suspension, then let it finish the visit; false: it was through before."""
    loop = asyncio.get_running_loop()
    dock = SimulatedDock(checking_s=0.3)
    weather(dock.store)
    camera = body_camera("cam-1", 10, 9_000)
    docked = {path: b"".join(file.chunks()) for path, file in camera.files.items()}
    dock.source.plug("1", camera)

    suspensions = Suspensions(number, dock.cancel)
    loop.set_task_factory(suspensions.make_task)
    await dock.start()
    with contextlib.suppress(asyncio.CancelledError):  # that of the dock; were it lost, this hangs
        await dock.until(lambda: suspensions.left > 0 and is_ready(dock))
    reached = suspensions.left <= 0
    loop.set_task_factory(None)
    await dock.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not dock.source.open_volumes
    assert not any(upload.locked for upload in dock.store.uploads.values())

    dock.store.calm()
    await dock.start()
    await dock.until(lambda: is_ready(dock))
    await dock.stop()
    assert camera.files == {}
    assert {spec.path: data for spec, data in dock.store.held()} == docked
    assert len(dock.store.held()) == len(docked)
    assert len(dock.store.held(UploadKind.MANIFEST)) == 1
    digests = {hashlib.sha256(data).hexdigest() for data in docked.values()}
    assert {digest for _, digest in camera.erased} == digests
    await check_custody(dock)
    return reached


def is_ready(dock: SimulatedDock) -> bool:
    return bool(dock.dock.bays) and dock.bay().state is BayState.READY


async def check_custody(dock: SimulatedDock) -> None:
    """INV-4: chain, signatures and anchors, and each thing happened once."""
    entries = await dock.entries()
    heads = [dock.store.claims(upload, "").custody_head for upload in dock.store.uploads.values()]
    assert verify_chain(entries, dock.key.public, heads).sound
    happened = Counter(dict(content(entry))["event"] for entry in entries)  # type: ignore[call-overload]
    assert happened["recording.confirmed"] == 2
    for event in ("visit.started", "visit.finished", "manifest.confirmed", "wipe.done"):
        assert happened[event] == 1, event
