"""What a person wants first goes first."""

from typing import Any

import pytest

from dockd.config import UploadConfig
from dockd.core.lifecycle import BayState
from dockd.send_now import MAX_SHOWN, send_now
from tests.simulated.cameras import SimulatedCamera
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera

SLOW = UploadConfig(rate_mbit_s=1.0, streams=1)


def ask(dock: SimulatedDock, what: str) -> Any:
    return send_now(dock.dock.bays.values(), what)


def has(dock: SimulatedDock, camera: str, name: bytes) -> bool:
    return any(spec.camera == camera and spec.path.endswith(name) for spec, _ in dock.store.held())


async def slow_dock(dock: SimulatedDock) -> None:
    """Two cameras with much to send, of which little has been."""
    dock.config = dock.config.model_copy(update={"upload": SLOW})
    dock.dock.services.dispatcher.limits = dock.dock.services.dispatcher.limits.__class__(1, 1, 10)
    dock.source.plug("1", body_camera("cam-1", *[1_000_000] * 3))
    dock.source.plug("2", body_camera("cam-2", *[1_000_000] * 5))
    await dock.until(lambda: any(dock.store.uploads.values()))


@virtual_time
async def test_a_camera_goes_first() -> None:
    async with SimulatedDock(bays=("1", "2")) as dock:
        await slow_dock(dock)
        answer = ask(dock, "cam-2")
        assert (answer["found"], answer["bay"], answer["waiting"]) == ("cam-2", "2", 5)
        await dock.until_state("2", BayState.CHARGING, within_s=50)
        assert not has(dock, "cam-1", b"MOV_0001.MP4")
        await dock.until_state("1", BayState.READY)


@pytest.mark.parametrize("what", ["cam-2/DCIM/MOV_0005.MP4", "DCIM/MOV_0005.MP4", "MOV_0005.MP4"])
def test_a_recording_goes_first(what: str) -> None:
    @virtual_time
    async def run() -> None:
        async with SimulatedDock(bays=("1", "2")) as dock:
            await slow_dock(dock)
            answer = ask(dock, what)
            assert answer["found"] == "cam-2/DCIM/MOV_0005.MP4"
            assert answer["waiting"] == 1
            await dock.until(lambda: has(dock, "cam-2", b"MOV_0005.MP4"), within_s=12)
            assert len(dock.store.held()) == 1

    run()


@virtual_time
async def test_of_several_one_must_be_chosen_and_nothing_is_done() -> None:
    async with SimulatedDock(bays=("1", "2")) as dock:
        await slow_dock(dock)
        answer = ask(dock, "MOV_0001.MP4")
        assert answer["found"] is None
        assert answer["candidates"] == ["cam-1/DCIM/MOV_0001.MP4", "cam-2/DCIM/MOV_0001.MP4"]


@virtual_time
async def test_what_is_nowhere_is_not_found() -> None:
    async with SimulatedDock() as dock:
        assert ask(dock, "cam-1") == {
            "what": "cam-1",
            "found": None,
            "bay": None,
            "state": None,
            "waiting": 0,
            "candidates": [],
            "candidates_in_all": 0,
        }


@virtual_time
async def test_many_names_are_counted_and_not_all_told() -> None:
    async with SimulatedDock() as dock:
        camera = SimulatedCamera("cam-1")
        for number in range(MAX_SHOWN + 5):
            camera.record(f"{number}/a.mp4".encode(), b"clip")
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.CHARGING)
        answer = ask(dock, "a.mp4")
        assert (len(answer["candidates"]), answer["candidates_in_all"]) == (
            MAX_SHOWN,
            MAX_SHOWN + 5,
        )
        done = ask(dock, "cam-1")
        assert (done["found"], done["waiting"], done["state"]) == ("cam-1", 0, "charging")


@virtual_time
async def test_what_turns_up_later_on_the_camera_goes_first_too() -> None:
    async with SimulatedDock(bays=("1", "2"), watches_when_ready=True) as dock:
        camera = body_camera("cam-1", 10)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        assert ask(dock, "cam-1")["waiting"] == 0
        dock.config = dock.config.model_copy(update={"upload": SLOW})
        dock.source.plug("2", body_camera("cam-2", 5_000_000))
        camera.record(b"DCIM/NEW.MP4", bytes(500_000))
        await dock.until(lambda: has(dock, "cam-1", b"NEW.MP4"), within_s=20)
        assert not has(dock, "cam-2", b"MOV_0001.MP4")
