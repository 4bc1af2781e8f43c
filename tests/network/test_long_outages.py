"""Outages of hours and fleets of docks, on virtual time."""

import asyncio
import gc
import random
from collections import Counter

import pytest

from dockd.config import UploadConfig
from dockd.core.errors import TargetUnavailableError
from dockd.core.lifecycle import BayState
from dockd.target.patience import Patience, RetryRules
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera

DAY_S = 86_400.0
DOCKS = 700
STREAMS = UploadConfig().streams


@virtual_time
async def test_a_lock_of_90_seconds_is_outlived() -> None:
    """INV-1: nothing is erased meanwhile, and there is no second upload."""
    async with SimulatedDock(latency_s=1.0) as dock:
        dock.store.cut_append(after_bytes=3_000)
        camera = body_camera("cam-1", 9_000)
        dock.source.plug("1", camera)
        await dock.until(lambda: any(upload.data for upload in dock.store.uploads.values()))
        (upload,) = dock.store.uploads.values()
        upload.locked = True
        before = len(dock.store.requests)
        await asyncio.sleep(90)
        assert len(camera.files) == 1
        assert len(dock.store.uploads) == 1
        assert len(dock.store.requests) - before < 40
        upload.locked = False
        await dock.until_state("1", BayState.READY, within_s=300)
        assert len(dock.store.held()) == 1
        assert camera.files == {}


@virtual_time
async def test_ten_thousand_recordings_wait_for_a_day() -> None:
    """INV-1, INV-3: memory and requests have bounds, and nothing but time is lost."""
    async with SimulatedDock() as dock:
        camera = body_camera("cam-1", *[20] * 10_000)
        dock.store.down = True
        dock.source.plug("1", camera)
        await asyncio.sleep(3_600)
        tasks, objects = len(asyncio.all_tasks()), count_objects()
        dock.store.requests.clear()
        await asyncio.sleep(DAY_S - 3_600)
        requests = len(dock.store.requests)
        dock.store.requests.clear()
        assert requests < 1.5 * DAY_S / 30, "one recording asks for all"
        assert count_objects() < objects + 5_000
        assert len(asyncio.all_tasks()) <= tasks + STREAMS < 80
        dock.store.down = False
        # The longest pause is a minute.
        await dock.until(lambda: not camera.files, within_s=120, every_s=1)
        assert len(dock.store.held()) == 10_000
        assert len(dock.store.requests) < 10_000 + 50


def count_objects() -> int:
    gc.collect()
    return len(gc.get_objects())


# A fleet


def pauses_end(error: TargetUnavailableError, outage_s: float, rng: random.Random) -> float:
    """Return when, after an outage, the first pause ends of somebody who noticed when it began."""
    patience, now_s = Patience(RetryRules(), rng), 0.0
    while now_s < outage_s:
        patience.begin_attempt()
        patience.failed(error)
        now_s += patience.pause_s(error)
    return now_s - outage_s


@pytest.mark.parametrize("seed", range(3))
def test_700_docks_do_not_come_back_at_once(seed: int) -> None:
    """Every dock noticed in the very same moment, as when a router fails; an hour later it is mended."""
    rng = random.Random(seed)
    seconds: Counter[int] = Counter()
    for _ in range(DOCKS):
        # One recording of a dock asks; with the answer all its streams begin.
        seconds[int(pauses_end(TargetUnavailableError("away"), 3_600, rng))] += 1 + STREAMS
    assert sum(seconds.values()) == DOCKS * (1 + STREAMS)
    assert max(seconds) <= 60
    # Pauses are 30 s on average: at first 1/30 of all docks come each second, and fewer later.
    assert max(seconds.values()) < 2 * DOCKS * (1 + STREAMS) / 30


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wanted_s", [5.0, 30.0, 600.0])
def test_docks_told_the_same_second_do_not_come_back_in_it(wanted_s: float, seed: int) -> None:
    """A store that is busy answers each stream: all of them are told the same."""
    busy = TargetUnavailableError("busy", status=503, retry_after_s=wanted_s)
    rng = random.Random(seed)
    seconds = Counter(int(pauses_end(busy, 0.5, rng)) for _ in range(DOCKS * STREAMS))
    assert max(seconds.values()) < DOCKS * STREAMS / 2


@virtual_time
async def test_a_pause_is_never_short_for_long() -> None:
    """No busy loop: after ten failures a stream makes two requests a minute, whatever the store says."""
    rng = random.Random(1)
    patience = Patience(RetryRules(), rng)
    error = TargetUnavailableError("busy", status=503, retry_after_s=0)
    for _ in range(10):
        patience.failed(error)
        patience.pause_s(error)
    pauses = []
    for _ in range(1_000):
        patience.failed(error)
        pauses.append(patience.pause_s(error))
    assert 25 < sum(pauses) / len(pauses) < 35
