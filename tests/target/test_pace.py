"""The dock's rate and whose turn it is, on virtual time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest

from dockd.core.errors import SendingPausedError
from dockd.target.pace import (
    CLOSED_CHECK_S,
    KEEP_ALIVE_BYTES,
    KEEP_ALIVE_S,
    LEAST_PIECE_BYTES,
    PIECE_BYTES,
    URGENT_STALL_S,
    Pace,
    Turn,
)
from tests.simulated.clock import virtual_time

CHUNK = 1 << 20
MBIT_S = 125_000


class Limit:
    def __init__(self, bytes_s: float | None) -> None:
        self.bytes_s = bytes_s

    def __call__(self) -> float | None:
        return self.bytes_s


class Stream:
    """Sends for ever, as fast as it may, over a network and from a camera that take their time."""

    def __init__(
        self,
        pace: Pace,
        bay: str,
        *,
        urgent: bool = False,
        camera_s: float = 0.0,
        network_s: float = 0.0,
    ) -> None:
        self.pieces: list[tuple[float, int]] = []
        self.urgent = urgent
        self._turn = pace.turn(bay, lambda: self.urgent)
        self._camera_s = camera_s
        self._network_s = network_s

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.pieces)

    def since(self, when_s: float) -> int:
        return sum(size for at_s, size in self.pieces if at_s >= when_s)

    async def run(self) -> None:
        while True:
            self._turn.rest()
            await asyncio.sleep(self._camera_s)
            left = CHUNK
            while left:
                size = await self._turn.take(left)
                self.pieces.append((asyncio.get_running_loop().time(), size))
                left -= size
                await asyncio.sleep(self._network_s)


@contextlib.asynccontextmanager
async def running(*streams: Stream) -> AsyncIterator[Callable[[float], asyncio.Future[None]]]:
    tasks = [asyncio.create_task(stream.run()) for stream in streams]
    try:
        yield lambda seconds: asyncio.ensure_future(asyncio.sleep(seconds))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.mark.parametrize("mbit_s", [0.1, 1, 20, 333.3, 10_000])
@pytest.mark.parametrize("streams", [1, 64])
def test_the_rate_is_the_limit_in_the_long_run(mbit_s: float, streams: int) -> None:
    @virtual_time
    async def run() -> None:
        limit = mbit_s * MBIT_S
        pace = Pace(Limit(limit))
        all_streams = [Stream(pace, str(number % 8)) for number in range(streams)]
        seconds = min(20.0, 20_000 * LEAST_PIECE_BYTES / limit) if mbit_s < 5000 else 1.0
        seconds = max(seconds, 1.0)
        async with running(*all_streams) as wait:
            await wait(seconds)
        sent = sum(stream.bytes for stream in all_streams)
        assert 0.95 * limit * seconds - PIECE_BYTES <= sent <= 1.03 * limit * seconds + PIECE_BYTES

    run()


@virtual_time
async def test_many_streams_go_evenly_and_none_stands_still() -> None:
    """No server takes a stream for dead because the dock has many."""
    pace = Pace(Limit(1 * MBIT_S))
    streams = [Stream(pace, str(number % 8)) for number in range(64)]
    async with running(*streams) as wait:
        await wait(60)
    for stream in streams:
        times = [at_s for at_s, _ in stream.pieces]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert max(gaps) < 10


@virtual_time
async def test_without_a_limit_nobody_waits() -> None:
    stream = Stream(Pace(), "1", network_s=0.001)
    async with running(stream) as wait:
        await wait(1)
    assert stream.bytes >= 990 * PIECE_BYTES


@pytest.mark.parametrize("later", [1.0, 5.0, None])
def test_another_limit_acts_within_a_second(later: float | None) -> None:
    @virtual_time
    async def run() -> None:
        limit = Limit(0.2 * MBIT_S if later is None else 1000 * MBIT_S)
        stream = Stream(Pace(limit), "1", network_s=0.0001)
        async with running(stream) as wait:
            await wait(5)
            limit.bytes_s = later if later is None else later * MBIT_S
            await wait(1)
            changed = stream.bytes
            await wait(10)
        if later is None:
            assert stream.bytes - changed > 1000 * MBIT_S
        else:
            assert stream.bytes - changed == pytest.approx(10 * later * MBIT_S, rel=0.05)

    run()


@virtual_time
async def test_bays_share_the_rate_by_bytes_however_many_streams_they_have() -> None:
    """INV-8."""
    pace = Pace(Limit(20 * MBIT_S))
    many = [Stream(pace, "1") for _ in range(7)]
    one = Stream(pace, "2")
    async with running(*many, one) as wait:
        await wait(20)
    assert one.bytes == pytest.approx(sum(stream.bytes for stream in many), rel=0.05)


@virtual_time
async def test_a_bay_that_could_not_use_its_share_has_no_claim_to_it_later() -> None:
    """INV-8: a bay that was slow for an hour does not stop the others for an hour."""
    pace = Pace(Limit(20 * MBIT_S))
    busy, slow = Stream(pace, "1"), Stream(pace, "2", camera_s=600)
    async with running(busy, slow) as wait:
        await wait(599)
        begun = busy.bytes
        await wait(2)
    assert busy.bytes - begun > 0.45 * 2 * 20 * MBIT_S


@pytest.mark.parametrize("limit", [None, 20 * MBIT_S])
def test_what_is_urgent_takes_nearly_all_and_the_others_stay_alive(limit: float | None) -> None:
    @virtual_time
    async def run() -> None:
        pace = Pace(Limit(limit))
        urgent = Stream(pace, "1", urgent=True, network_s=0.002)
        others = [Stream(pace, str(number), network_s=0.002) for number in range(1, 9)]
        async with running(urgent, *others) as wait:
            await wait(60)
        for other in others:
            assert 0 < other.since(1.0) <= (60 / KEEP_ALIVE_S + 1) * KEEP_ALIVE_BYTES
            assert all(size <= KEEP_ALIVE_BYTES for at_s, size in other.pieces if at_s >= 1.0)
        if limit is not None:
            assert urgent.bytes > 0.95 * 60 * limit

    run()


@virtual_time
async def test_what_becomes_urgent_on_its_way_goes_first_within_a_second() -> None:
    pace = Pace(Limit(20 * MBIT_S))
    chosen, other = Stream(pace, "1"), Stream(pace, "2")
    async with running(chosen, other) as wait:
        await wait(10)
        chosen.urgent = True
        await wait(1)
        before = chosen.bytes, other.bytes
        await wait(10)
    assert chosen.bytes - before[0] > 0.95 * 10 * 20 * MBIT_S
    assert other.bytes - before[1] <= 3 * KEEP_ALIVE_BYTES


@pytest.mark.parametrize("limit", [None, 20 * MBIT_S])
def test_an_urgent_stream_that_waits_for_its_camera_leaves_the_rate_to_others(
    limit: float | None,
) -> None:
    """INV-8: a dying card with flagged footage does not stop the other bays."""

    @virtual_time
    async def run() -> None:
        pace = Pace(Limit(limit))
        urgent = Stream(pace, "1", urgent=True, camera_s=1000)
        other = Stream(pace, "2", network_s=0.01)
        async with running(urgent, other) as wait:
            await wait(10)
        assert other.bytes > 0.9 * 10 * min(limit or 1e9, PIECE_BYTES / 0.01)

    run()


@virtual_time
async def test_an_urgent_stream_whose_network_is_dead_stops_the_others_for_seconds_only() -> None:
    """INV-8."""
    pace = Pace()
    urgent = Stream(pace, "1", urgent=True, network_s=60)
    other = Stream(pace, "2", network_s=0.01)
    async with running(urgent, other) as wait:
        await wait(60)
    assert other.bytes > 0.9 * (60 - URGENT_STALL_S) / 0.01 * PIECE_BYTES


@virtual_time
async def test_when_nothing_is_to_be_sent_streams_stop_until_it_may_be_again() -> None:
    limit = Limit(20 * MBIT_S)
    pace = Pace(limit)
    stream = Stream(pace, "1")
    task = asyncio.create_task(stream.run())
    await asyncio.sleep(5)
    limit.bytes_s = 0
    with pytest.raises(SendingPausedError):
        await asyncio.wait_for(task, 1)
    turn = pace.turn("1")
    with pytest.raises(SendingPausedError):
        await turn.take(1)
    opened = asyncio.create_task(turn.until_open())
    await asyncio.sleep(7200)
    assert not opened.done()
    limit.bytes_s = 1
    await asyncio.wait_for(opened, CLOSED_CHECK_S)
    assert await turn.take(1) == 1


@virtual_time
async def test_an_idle_dock_saves_nothing_up() -> None:
    pace = Pace(Limit(20 * MBIT_S))
    first = Stream(pace, "1")
    async with running(first) as wait:
        await wait(1)
    first._turn.close()
    await asyncio.sleep(3600)
    later = Stream(pace, "1")
    async with running(later) as wait:
        await wait(1)
    assert later.bytes <= 1.1 * 20 * MBIT_S


@virtual_time
async def test_cancelled_streams_leave_nothing_behind() -> None:
    pace = Pace(Limit(1 * MBIT_S))
    turns: list[Turn] = [pace.turn(str(number)) for number in range(20)]
    tasks = [asyncio.create_task(turn.take(CHUNK)) for turn in turns for _ in range(3)]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert pace._waiting == []
    for turn in turns:
        turn.close()
    assert pace._turns == set()
    await asyncio.sleep(1)
    assert await pace.turn("1").take(CHUNK) > 0
