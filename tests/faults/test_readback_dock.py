"""The real daemon at a target that signs nothing: it reads back, or nothing is erased. Guards INV-1."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockd.core.lifecycle import BayState
from dockd.core.model import Confirm, TargetProperties
from dockd.evidence.keys import load_verifying_key, public_key_path
from dockd.evidence.receipts import ReceiptVerifier
from dockd.ops import events
from dockd.store.layout import Layout, load_or_create_identity
from tests.faults.site import Site, footage
from tests.faults.triggers import ShortPauses
from tests.simulated.store import CONTENT, SimulatedStore
from tests.simulated.wire import Wire

SIZES_BYTES = (0, 9_000, 1_500_000)
SIGNS_NOTHING = TargetProperties(creation_with_upload=True, checksum_sha256=False, receipts=False)


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return datetime.now(UTC).timestamp()


@pytest.fixture
def site(fast_path: Path) -> Site:
    store = Layout(fast_path / "store")
    store.root.mkdir()
    load_or_create_identity(store)
    return Site(fast_path / "dock-1", store)


def choose_readback(site: Site, url: str) -> None:
    site.prepare(url)
    text = re.sub(r"(?m)^receipt_key = .*$", 'confirm = "readback"', site.config.read_text())
    site.config.write_text(text)


async def test_a_visit_from_plug_to_ready(site: Site) -> None:
    """Each receipt in the custody log is the dock's own, over what the target gave back."""
    wire = Wire(SimulatedStore(RealClock(), properties=SIGNS_NOTHING))
    async with wire.served() as url:
        choose_readback(site, url)
        site.plug(footage(site.dock, SIZES_BYTES))
        async with site.run(ShortPauses()) as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY), dock.errors()
            assert await dock.stop() == 0
    assert site.on_camera() == {}
    held = {upload.spec.path: bytes(upload.data) for upload in wire.store.uploads.values()}
    assert {path: held[path] for path in site.docked} == site.docked
    key = load_verifying_key(public_key_path(site.state.key))
    store_id = load_or_create_identity(site.store).store_id
    verifier = ReceiptVerifier(store_id, key, Confirm.READBACK)
    receipts = [
        verifier.verify(entry["details"]["receipt"])
        for entry in site.custody()
        if "receipt" in entry.get("details", {})
    ]
    assert len(receipts) == len(SIZES_BYTES) + 1


async def test_a_target_that_gives_back_other_bytes(site: Site) -> None:
    wire = Wire(SimulatedStore(RealClock(), properties=SIGNS_NOTHING))
    wire.store.alter_next(CONTENT, lambda data: data[:-1] + b"x" if data else b"x", times=1000)
    async with wire.served() as url:
        choose_readback(site, url)
        site.plug(footage(site.dock, SIZES_BYTES))
        async with site.run(ShortPauses()) as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.ATTENTION), dock.errors()
            assert site.on_camera() == site.docked
            wire.store.calm()
            assert await dock.said(events.BAY_STATE, state=BayState.READY), dock.errors()
    assert site.on_camera() == {}
