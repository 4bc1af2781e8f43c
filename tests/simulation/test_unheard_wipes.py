"""Wipes whose end nobody heard of: cut short and finished later, or finished while the dock was down.

The history is to be whole all the same, and each visit is to end with a verdict that is true. What the
helper keeps of them is stood in for by the simulated source.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from dockd.core.lifecycle import BayState
from dockd.core.model import Presence, RecordingState, Verdict
from dockd.evidence.custody import content
from tests.simulated.cameras import SimulatedCamera
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera

History = list[Mapping[str, Any]]


async def history(dock: SimulatedDock, event: str) -> History:
    said = [json.loads(json.dumps(content(entry))) for entry in await dock.entries()]
    return [entry for entry in said if entry["event"] == event]


async def begin_wipe_that_breaks_off(dock: SimulatedDock) -> SimulatedCamera:
    camera = body_camera("cam-1", 10, 5_000)
    camera.breaks_off = True
    dock.source.plug("1", camera)
    await dock.until(lambda: camera.half_erased is not None)
    return camera


async def dock_again(dock: SimulatedDock, camera: SimulatedCamera) -> None:
    dock.source.unplug("1")
    await dock.until_state("1", BayState.EMPTY)
    dock.source.plug("1", camera)
    await dock.until_state("1", BayState.READY)


async def check_history(dock: SimulatedDock, *, resumed: bool) -> None:
    """One wipe has ended, in the visit of its permit, with all of its recordings."""
    (done,) = await history(dock, "wipe.done")
    visits = [entry["visit"] for entry in await history(dock, "visit.started")]
    assert done["visit"] == visits[0]
    assert (done["camera"], done["details"]["resumed"]) == ("cam-1", resumed)
    assert (done["details"]["recordings"], done["details"]["verified"]) == (2, True)
    states = {item.state for item in await dock.journal.recordings(visits[0])}
    assert states == {RecordingState.ERASED}


@virtual_time
async def test_an_erasing_finished_at_the_next_docking_ends_the_visit_it_was_permitted_in() -> None:
    """INV-4: the wipe's end is in the log, and both visits have a verdict that is true."""
    async with SimulatedDock() as dock:
        camera = await begin_wipe_that_breaks_off(dock)
        await dock.until_state("1", BayState.EMPTY)
        assert await history(dock, "wipe.done") == []
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        await check_history(dock, resumed=True)
        finished = await history(dock, "visit.finished")
        verdicts = [entry["details"]["verdict"] for entry in finished]
        assert verdicts == [Verdict.INTERRUPTED, Verdict.WIPED]
        assert not dock.source.ended, "it was acknowledged"


@virtual_time
async def test_a_clip_that_is_new_under_an_erased_name_is_ingested() -> None:
    """INV-1: size and time are those of the recording before; no receipt is carried over to it."""
    async with SimulatedDock() as dock:
        camera = await begin_wipe_that_breaks_off(dock)
        old = {path: (len(file.content), file.mtime_ns) for path, file in camera.files.items()}  # type: ignore[arg-type]
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        dock.source.unplug("1")
        await dock.until_state("1", BayState.EMPTY)
        for path, (size_bytes, mtime_ns) in old.items():
            camera.record(path, b"n" * size_bytes, mtime_ns=mtime_ns)
        dock.source.plug("1", camera)
        await dock.until(lambda: not camera.files)
        assert {b"n" * 10, b"n" * 5_000} <= {data for _, data in dock.store.held()}


@virtual_time
async def test_an_erasing_is_heard_of_though_its_camera_never_comes_back() -> None:
    """INV-4: at the next opening of any camera; and once, however often it is offered."""
    async with SimulatedDock(("1", "2")) as dock:
        camera = await begin_wipe_that_breaks_off(dock)

        def die_before_hearing(_: Presence) -> None:
            dock.database.cut_at, dock.database.cut_before = dock.database.writes + 1, True

        dock.source.on_open = die_before_hearing
        dock.source.plug("1", camera)
        await dock.until(lambda: dock.database.dead)
        dock.source.on_open = lambda _: None
        dock.source.unplug("1")
        assert list(dock.source.ended)
        await dock.restart()
        assert await history(dock, "wipe.done") == []
        for camera_id in ("cam-2", "cam-3"):
            dock.source.plug("2", body_camera(camera_id))
            await dock.until_state("2", BayState.READY)
            await check_history(dock, resumed=True)
            dock.source.unplug("2")
            await dock.until_state("2", BayState.EMPTY)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        await check_history(dock, resumed=True)
        assert not dock.source.ended
        assert dock.bay().visit.verdict is Verdict.EMPTY, "it was erased before it came"  # type: ignore[union-attr]


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
def test_whatever_write_is_the_last_the_history_is_whole(before: bool) -> None:
    """INV-3, INV-4: the power goes at every write of the journal while a resumed erasing is recorded."""

    @virtual_time
    async def run() -> None:
        number, reached = 0, True
        while reached:
            number += 1
            async with SimulatedDock() as dock:
                camera = await begin_wipe_that_breaks_off(dock)
                await dock.until_state("1", BayState.EMPTY)
                dock.database.cut_at = dock.database.writes + number
                dock.database.cut_before = before
                dock.source.plug("1", camera)
                await dock.until(lambda: dock.database.dead or dock.bay().state is BayState.READY)
                reached = dock.database.dead
                if reached:
                    await dock.restart()
                    await dock.until_state("1", BayState.READY)
                await check_history(dock, resumed=True)
                assert dock.bay().visit.verdict is Verdict.WIPED, number  # type: ignore[union-attr]
                dock.database.cut_at = None
                await dock_again(dock, camera)
                await check_history(dock, resumed=True)
                assert not dock.source.ended, "told at the latest when it is docked again"
        assert number > 3

    run()


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
def test_a_wipe_whose_answer_is_lost_is_heard_of_after_the_restart(before: bool) -> None:
    """INV-3, INV-4: the helper has erased, and the dock loses power at any of its own writes."""

    @virtual_time
    async def run() -> None:
        async with SimulatedDock() as dock:
            dock.source.plug("1", body_camera("cam-1", 10, 5_000))
            await dock.until_state("1", BayState.READY)
            writes = dock.database.writes
        for number in range(2, writes + 1):
            async with SimulatedDock() as dock:
                dock.database.cut_at, dock.database.cut_before = number, before
                dock.source.plug("1", body_camera("cam-1", 10, 5_000))
                await dock.until(lambda: dock.database.dead)
                await dock.restart()
                await dock.until_state("1", BayState.READY)
                await check_history(dock, resumed=False)
                assert dock.bay().visit.verdict is Verdict.WIPED, number  # type: ignore[union-attr]

    run()
