"""What the store loses after a camera was erased is noticed, whenever the store can be asked."""

from collections.abc import Iterator

import pytest
import structlog

from dockd.core.errors import UploadGoneError
from dockd.core.lifecycle import BayState
from dockd.core.model import UploadKind
from dockd.recheck import LONGEST_PAUSE_S
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera


@pytest.fixture
def lines() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def erase(dock: SimulatedDock, number: int) -> None:
    dock.source.plug("1", body_camera(f"cam-{number}", 5_000, 10))
    await dock.until_state("1", BayState.READY)
    dock.source.unplug("1")
    await dock.until_state("1", BayState.EMPTY)


def forget_newest(dock: SimulatedDock, visits: int) -> None:
    manifests = [
        upload.url
        for upload in dock.store.uploads.values()
        if upload.spec.kind is UploadKind.MANIFEST
    ]
    for url in manifests[-visits:]:
        dock.store.forget(url)


def forget_all(dock: SimulatedDock) -> UploadGoneError:
    for url in list(dock.store.uploads):
        dock.store.forget(url)
    return UploadGoneError("restored from a backup", status=404)


def lost(lines: list[structlog.typing.EventDict]) -> list[str]:
    return [line["camera"] for line in lines if line["event"] == "footage.lost"]


def test_each_lost_visit_is_reported_once(lines: list[structlog.typing.EventDict]) -> None:
    """INV-2. Restarts, too, repeat nothing."""

    @virtual_time
    async def run() -> None:
        async with SimulatedDock() as dock:
            for number in range(4):
                await erase(dock, number)
            assert lost(lines) == []
            forget_newest(dock, 2)
            await dock.until(lambda: len(lost(lines)) == 2, within_s=LONGEST_PAUSE_S + 60)
            await dock.restart()
            before = len(dock.store.requests)
            await dock.until(
                lambda: len(dock.store.requests) > before, within_s=LONGEST_PAUSE_S + 60
            )
            assert len(dock.store.requests) <= before + 2

    run()
    assert lost(lines) == ["cam-3", "cam-2"]


def test_a_store_that_is_away_is_asked_again(lines: list[structlog.typing.EventDict]) -> None:
    @virtual_time
    async def run() -> None:
        async with SimulatedDock() as dock:
            await erase(dock, 1)
            forget_newest(dock, 1)
            dock.store.down = True
            with pytest.raises(TimeoutError):
                await dock.until(lambda: bool(lost(lines)), within_s=3 * LONGEST_PAUSE_S)
            dock.store.down = False
            await dock.until(lambda: bool(lost(lines)), within_s=120)

    run()


def test_what_the_store_forgot_before_the_wipe_is_sent_again(
    lines: list[structlog.typing.EventDict],
) -> None:
    """INV-1: a receipt does not hold bytes, the store does: it is asked once more before the wipe."""

    @virtual_time
    async def run() -> None:
        async with SimulatedDock() as dock:
            camera = body_camera("cam-1", 5_000, 10)
            dock.source.plug("1", camera)
            # The first answer to a question about a receipt is the one at the end of the hold.
            dock.store.fail_next("receipt", lambda: forget_all(dock))
            await dock.until_state("1", BayState.READY)
            assert len(dock.store.held()) == 2
            assert len(dock.store.held(UploadKind.MANIFEST)) == 1
            assert camera.files == {}

    run()
    assert [line["event"] for line in lines].count("manifest.lost") == 1
    assert lost(lines) == []
