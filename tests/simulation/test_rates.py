"""Docks with a limited rate, on virtual time: what goes first, and hours in which nothing goes."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from dockd.config import UploadConfig
from dockd.core.lifecycle import BayState
from dockd.core.model import UploadKind
from dockd.core.timetable import DAYS
from tests.simulated.cameras import SimulatedCamera
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera

MBIT = 125_000


def limit(dock: SimulatedDock, **upload: object) -> None:
    """Change the rates while the dock runs, as a reload does."""
    dock.config = dock.config.model_copy(update={"upload": UploadConfig.model_validate(upload)})


def line(dock: SimulatedDock, from_s: float, to_s: float) -> str:
    """A line of a timetable that begins and ends so many seconds from now, to the minute."""
    begin, end = (
        dock.clock.now().astimezone() + timedelta(seconds=seconds) for seconds in (from_s, to_s)
    )
    return f"{DAYS[begin.weekday()]} {begin:%H:%M}-{end:%H:%M}"


def sending(dock: SimulatedDock) -> Any:
    return dock.dock.status()["sending"]


def held(dock: SimulatedDock) -> list[bytes]:
    return [spec.path for spec, _ in dock.store.held()]


@virtual_time
async def test_a_visit_takes_as_long_as_the_limit_says() -> None:
    async with SimulatedDock() as dock:
        limit(dock, rate_mbit_s=1)
        dock.source.plug("1", body_camera("cam-1", 3_000_000, 1_000_000, *[3000] * 100))
        await dock.until(lambda: len(held(dock)) == 102, every_s=0.05)
        assert asyncio.get_running_loop().time() == pytest.approx(4_300_000 / MBIT, rel=0.03)


@virtual_time
async def test_hours_in_which_nothing_is_sent_cost_time_and_nothing_else() -> None:
    """INV-3: what was sent before is kept; no failure is counted and no store is pestered."""
    async with SimulatedDock() as dock:
        limit(dock, rate_mbit_s=1)
        dock.source.plug("1", body_camera("cam-1", 3_000_000))
        await asyncio.sleep(10)
        sent = dock.store.uploads[next(iter(dock.store.uploads))].data
        assert len(sent) == pytest.approx(10 * MBIT, rel=0.1)
        limit(dock, rate_mbit_s=1, timetable={line(dock, 0, 7200): 0})
        await asyncio.sleep(2)
        stopped_at, requests = len(sent), len(dock.store.requests)
        await asyncio.sleep(7000)
        assert len(sent) == stopped_at
        assert len(dock.store.requests) == requests
        assert dock.bay().explanation is not None
        assert "lets nothing be sent at this time" in dock.bay().explanation  # type: ignore[operator]
        await dock.until_state("1", BayState.READY)
        assert dock.clock.monotonic_s() < 7300
        (recording,) = dock.bay().recordings.by_path.values()  # type: ignore[union-attr]
        assert recording.attempts == 1
        assert recording.resent_bytes < 20_000
        assert len(dock.store.held(UploadKind.RECORDING)) == 1


@virtual_time
async def test_a_flagged_clip_does_not_wait_for_a_large_one() -> None:
    async with SimulatedDock(bays=("1", "2")) as dock:
        limit(dock, rate_mbit_s=8, streams=1)
        dock.source.plug("1", body_camera("cam-1", 100_000_000))
        await asyncio.sleep(5)
        camera = SimulatedCamera("cam-2")
        camera.record(b"DCIM/flagged/1.mp4", bytes(2_000_000))
        dock.source.plug("2", camera)
        await dock.until(lambda: b"DCIM/flagged/1.mp4" in held(dock), within_s=10)


@virtual_time
async def test_the_camera_with_the_least_left_is_ready_first() -> None:
    async with SimulatedDock(bays=("1", "2", "3")) as dock:
        limit(dock, rate_mbit_s=8, streams=1)
        dock.source.plug("1", body_camera("cam-1", *[3_000_000] * 10))
        dock.source.plug("2", body_camera("cam-2", *[3_000_000] * 3))
        dock.source.plug("3", body_camera("cam-3", *[3_000_000] * 2))
        order: list[str] = []

        def note_who_is_done() -> bool:
            done = {name for name, bay in dock.dock.bays.items() if bay.state is BayState.READY}
            order.extend(done - set(order))
            return len(order) == 3

        await dock.until(note_who_is_done)
    assert order == ["3", "2", "1"]


@virtual_time
async def test_the_time_left_is_told_as_it_turns_out() -> None:
    async with SimulatedDock(bays=("1", "2", "3")) as dock:
        lines = {line(dock, 300, 360): 0.1, line(dock, 360, 1800): 0}
        limit(dock, rate_mbit_s=0.2, timetable=lines)
        assert sending(dock) == {
            "mbit_s": None,
            "limit_mbit_s": 0.2,
            "bytes_left": 0,
            "seconds_left": 0,
        }
        dock.source.plug("1", body_camera("cam-1", 500_000))
        dock.source.plug("2", body_camera("cam-2", 2_000_000))
        dock.source.plug("3", body_camera("cam-3", 7_000_000))
        await asyncio.sleep(1)
        assert sending(dock)["seconds_left"] is None
        await asyncio.sleep(29)
        told = {bay["bay"]: 30 + bay["seconds_left"] for bay in dock.dock.status()["bays"]}  # type: ignore[attr-defined]
        told_all = 30 + sending(dock)["seconds_left"]
        done: dict[str, float] = {}

        def note_when_sent() -> bool:
            for name, bay in dock.dock.bays.items():
                if bay.recordings is None or not bay.recordings.bytes_left:
                    done.setdefault(name, asyncio.get_running_loop().time())
            return len(done) == 3

        await dock.until(note_when_sent, every_s=1.0)
    assert told == {name: pytest.approx(seconds, rel=0.05) for name, seconds in done.items()}
    assert told_all == told["3"]


@virtual_time
async def test_nobody_can_tell_the_time_left_while_the_store_is_away() -> None:
    async with SimulatedDock() as dock:
        limit(dock, rate_mbit_s=8)
        dock.source.plug("1", body_camera("cam-1", 50_000_000))
        await asyncio.sleep(10)
        assert sending(dock)["seconds_left"] == pytest.approx(40, abs=2)
        dock.store.down = True
        await asyncio.sleep(5)
        assert sending(dock)["seconds_left"] is None
