"""The limit of the rate on real connections to a real store."""

import asyncio
import random
from pathlib import Path
from time import monotonic

from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from dockd.target.pace import Pace
from dockd.target.tus import TusTarget
from dockd.target.uploader import Uploader
from tests.simulated.source import MemorySource, spec_of
from tests.target.dock_side import events_named, logged

BYTES_S = 12_000_000
SIZE = 3_000_000


async def nothing(_: str) -> None:
    pass


async def send(uploader: Uploader, number: int, size: int = SIZE) -> None:
    data = random.Random(number).randbytes(size)
    await uploader.send(
        spec_of(data, path=f"{number}.mp4".encode(), key=f"{number}"),
        MemorySource(data, chunk_bytes=1 << 20),
        url=None,
        on_created=nothing,
        on_progress=lambda _: None,
        turn=uploader.pace.turn(str(number % 2)),
    )


async def test_streams_together_keep_the_limit_and_use_it(tmp_path: Path) -> None:
    settings = StoreSettings(reserve_bytes=0)
    limits: list[float | None] = [BYTES_S]
    async with (
        Store.running(tmp_path / "store", settings=settings) as store,
        TusTarget(store.url, stall_timeout_s=5) as target,
    ):
        uploader = Uploader(target, rng=random.Random(1), pace=Pace(lambda: limits[0]))
        began = monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(send(uploader, number))
            group.create_task(send(uploader, 3, 20_000))
        seconds = monotonic() - began
        assert seconds >= (3 * SIZE + 20_000) / BYTES_S / 1.03
        # A busy machine may be slower; that it is not so by its own fault is shown on virtual time.
        limits[0] = None
        began = monotonic()
        await send(uploader, 4, 6 * SIZE)
        assert monotonic() - began < seconds


async def test_a_wait_of_our_own_is_no_stall(tmp_path: Path) -> None:
    settings = StoreSettings(reserve_bytes=0)
    limits: list[float | None] = [4000]
    async with (
        Store.running(tmp_path / "store", settings=settings) as store,
        TusTarget(store.url, stall_timeout_s=1.0) as target,
    ):
        uploader = Uploader(target, rng=random.Random(1), pace=Pace(lambda: limits[0]))
        with logged() as lines:
            await send(uploader, 1, 6000)
            limits[0] = BYTES_S
            sending = asyncio.create_task(send(uploader, 2))
            await asyncio.sleep(0.1)
            limits[0] = 0
            await asyncio.sleep(1.5)
            assert not sending.done()
            limits[0] = None
            await sending
        assert events_named(lines, "upload.retry") == []
