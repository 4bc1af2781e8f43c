"""The streamed body on virtual time: what counts as a stall, and what does not."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from dockd.core.errors import TargetUnavailableError
from dockd.target.body import StreamedBody
from tests.simulated.clock import virtual_time

STALL_S = 60.0
PIECES = 200
PIECE = bytes(100_000)


class SlowNetwork:
    """What the body needs of aiohttp's writer, over a network that takes a while for each write."""

    def __init__(self, seconds_per_write: float) -> None:
        self.transport = None
        self.protocol = SimpleNamespace(writing_paused=True)
        self.taken_bytes = 0
        self._seconds_per_write = seconds_per_write

    async def write(self, piece: memoryview, *, drain: bool) -> None:
        assert not drain
        self.taken_bytes += len(piece)

    async def drain(self) -> None:
        await asyncio.sleep(self._seconds_per_write)


async def camera(seconds_per_read: float) -> AsyncIterator[bytes]:
    for _ in range(PIECES):
        await asyncio.sleep(seconds_per_read)
        yield PIECE


async def write(network: SlowNetwork, body: StreamedBody) -> None:
    await body.write_with_length(network, body.size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network_s", "camera_s"),
    [(0.9 * STALL_S, 0.0), (0.0, 10 * STALL_S)],
    ids=["network", "camera"],
)
def test_slow_is_not_stalled(network_s: float, camera_s: float) -> None:
    @virtual_time
    async def run() -> None:
        network = SlowNetwork(network_s)
        body = StreamedBody(camera(camera_s), PIECES * len(PIECE), STALL_S)
        await write(network, body)
        await body.stop()
        assert body.complete
        assert network.taken_bytes == PIECES * len(PIECE)
        assert asyncio.get_running_loop().time() > PIECES * 0.8 * STALL_S

    run()


@virtual_time
async def test_a_network_that_takes_nothing_is_stalled() -> None:
    body = StreamedBody(camera(0), PIECES * len(PIECE), STALL_S)
    with pytest.raises(TargetUnavailableError, match="60 seconds"):
        await write(SlowNetwork(1.1 * STALL_S), body)
    assert isinstance(body.failure, TargetUnavailableError)
    assert asyncio.get_running_loop().time() == pytest.approx(STALL_S)
