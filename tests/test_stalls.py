"""The watchdog over calls on cameras: one that hangs is reported, one that erases may take its time.

Real threads hang here, as they do on a dying card.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from dockd import dock as module
from dockd.core.errors import CameraGoneError
from dockd.core.model import Camera, EndedWipe, IdentifiedBy, Presence
from dockd.dock import Dock
from tests.simulated.dock import SimulatedDock

STALL_S = 0.02
WITHIN_S = 20.0
CAMERA = Camera("c", IdentifiedBy.SERIAL)


class HangingSource:
    """A source with one camera whose opening hangs until it is let go."""

    bays = ("1",)
    watches_when_ready = False

    def __init__(self, *, half_erased: bool) -> None:
        self.half_erased = half_erased
        self.there = True
        self.let_go = threading.Event()

    def enumerate_cameras(self) -> Mapping[str, Sequence[Presence]]:
        return {"1": [Presence("1", CAMERA, "here")] if self.there else []}

    async def hints(self) -> AsyncGenerator[None, None]:
        await asyncio.Event().wait()
        yield

    def is_half_erased(self, _: Presence) -> bool:
        return self.half_erased

    def open_camera(self, _: Presence) -> Any:
        self.let_go.wait()
        raise CameraGoneError("let go")

    def ended_wipes(self) -> Sequence[EndedWipe]:
        return ()


@contextlib.asynccontextmanager
async def hanging(
    source: HangingSource, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Dock, list[EventDict]]]:
    """Run a dock whose one bay hangs in opening its camera, with the lines that it logs."""
    monkeypatch.setattr(module, "STALL_S", STALL_S)
    async with SimulatedDock() as template:
        cameras = template.config.cameras.model_copy(update={"reconcile_s": 0.001})
        template.config = template.config.model_copy(update={"cameras": cameras})
        dock = Dock(template.dock.services, [cast("Any", source)])
        with capture_logs() as lines:
            running = asyncio.create_task(dock.run())
            try:
                yield dock, lines
            finally:
                source.let_go.set()
                running.cancel()
                await asyncio.wait({running})


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110 - what is waited for is the passing of time
            await asyncio.sleep(0.001)


def stalls(lines: Sequence[EventDict]) -> list[str]:
    return [line["bay"] for line in lines if line["event"] == "bay.stalled"]


async def test_a_camera_that_cannot_be_opened_is_reported_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """INV-8: a dying card holds its own bay only, and somebody is told."""
    source = HangingSource(half_erased=False)
    async with hanging(source, monkeypatch) as (dock, lines):
        await until(lambda: stalls(lines) == ["1"])
        busy_s = dock.bays["1"].busy_s
        await until(lambda: dock.bays["1"].busy_s > busy_s + STALL_S)
        assert stalls(lines) == ["1"]


async def test_an_erasing_that_is_being_finished_is_shown_and_is_no_stall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """INV-3: overwriting a large card takes hours, also when it is taken up again."""
    source = HangingSource(half_erased=True)
    async with hanging(source, monkeypatch) as (dock, lines):
        await until(lambda: "1" in dock.bays and dock.bays["1"].busy_s > 5 * STALL_S)
        bay = dock.bays["1"]
        assert (bay.state, stalls(lines)) == ("opening", [])
        assert bay.explanation is not None
        assert "being finished" in bay.explanation


async def test_a_card_that_hangs_after_its_camera_was_pulled_is_reported_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = HangingSource(half_erased=True)
    async with hanging(source, monkeypatch) as (dock, lines):
        await until(lambda: "1" in dock.bays and dock.bays["1"].busy_s > 5 * STALL_S)
        assert stalls(lines) == []
        source.there = False
        await until(lambda: stalls(lines) == ["1"])
        assert dock.bays["1"].state == "empty"
