"""The same scenarios against the simulated store and the real one: the model and the thing agree."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockd.evidence.keys import load_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.store.serve import Store
from dockd.target.tus import TusTarget
from tests.simulated.store import SimulatedStore
from tests.target.conformance import RECEIPTS, TUS, Peer, Scenario


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture(params=["simulated", "dockd store"])
async def peer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Peer]:
    if request.param == "simulated":
        model = SimulatedStore(RealClock())
        yield Peer(model, model.verifier, "sim://sim-store/files/unknown")
        return
    async with Store.running(tmp_path / "store") as store, TusTarget(store.url) as target:
        verifier = ReceiptVerifier(store.store_id, load_verifying_key(store.receipt_key))
        await target.discover()
        yield Peer(target, verifier, store.url + "0" * 32)


@pytest.mark.parametrize("scenario", TUS + RECEIPTS, ids=lambda scenario: scenario.__name__)
async def test_conformance(peer: Peer, scenario: Scenario) -> None:
    await scenario(peer)
