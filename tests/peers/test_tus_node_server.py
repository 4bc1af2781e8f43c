"""Our client against @tus/server, which knows nothing of dockd: tus works, and nothing is confirmed."""

import random
from collections.abc import AsyncIterator

import pytest

from dockd.core.errors import TargetRefusedError
from dockd.core.model import TargetProperties
from dockd.target.tus import TusTarget
from dockd.target.uploader import Uploader
from tests.simulated.source import MemorySource
from tests.target.conformance import TUS, Peer, Scenario, fresh_spec, send


@pytest.fixture
async def peer(tus_node_url: str) -> AsyncIterator[Peer]:
    async with TusTarget(tus_node_url) as target:
        yield Peer(target, None, f"{tus_node_url}/{'0' * 32}")


async def test_it_offers_what_it_is_known_to_offer(peer: Peer) -> None:
    """A known gap: it checks no checksum and signs no receipt."""
    assert await peer.target.discover() == TargetProperties(
        creation_with_upload=True, checksum_sha256=False, receipts=False
    )


@pytest.mark.parametrize("scenario", TUS, ids=lambda scenario: scenario.__name__)
async def test_conformance(peer: Peer, scenario: Scenario) -> None:
    await scenario(peer)


async def test_it_never_confirms(peer: Peer) -> None:
    """INV-1: that its offset equals the length is no proof."""
    data = b"footage"
    sent, _ = await send(peer, fresh_spec(data), MemorySource(data))
    assert sent.receipt is None
    assert await peer.target.offset(sent.url) == len(data)
    with pytest.raises(TargetRefusedError, match="never confirms"):
        await Uploader(peer.target, rng=random.Random(1)).receipt(sent.url)
