"""Our client against @tus/server, which knows nothing of dockd: tus works, and it never confirms.

Where the dock reads back what it holds, that is the proof.
"""

import json
import random
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.errors import TargetFaultError, TargetRefusedError, UploadGoneError
from dockd.core.model import Confirm, TargetProperties
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import ReceiptVerifier
from dockd.target.conformance.probe import Subject
from dockd.target.conformance.suite import Outcome, check_target
from dockd.target.readback import ReadbackTarget
from dockd.target.tus import TusTarget
from dockd.target.uploader import Uploader
from tests.simulated.proofs import ManualClock
from tests.simulated.source import MemorySource
from tests.target.conformance import BLOCK, TUS, Peer, Scenario, fresh_spec, send

HERE = Path(__file__).parent
KNOWN = tomllib.loads((HERE.parents[1] / "docs/known-targets.toml").read_text())["server"][0]
KEY = SigningKey(Ed25519PrivateKey.generate())


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


async def test_its_gaps_are_just_those_that_are_known(tus_node_url: str) -> None:
    """Listed and not hidden: docs/known-targets.toml."""
    report = await check_target(Subject(tus_node_url, KEY, patience_s=20))
    failed = {
        each.check.name: each.words for each in report.results if each.outcome is Outcome.FAILED
    }
    assert set(failed) == set(KNOWN["fails"]), failed
    assert list(report.confirms_by) == KNOWN["confirms_by"]
    assert not report.conforms


def test_the_known_gaps_are_those_of_the_version_that_is_tested() -> None:
    packages = json.loads((HERE / "package-lock.json").read_text())["packages"]
    for name in ("@tus/server", "@tus/file-store"):
        version = packages[f"node_modules/{name}"]["version"].rpartition(".")[0]
        assert f"{name} {version}" in KNOWN["name"]


@pytest.fixture
async def readback(tus_node_url: str) -> AsyncIterator[Peer]:
    async with TusTarget(tus_node_url) as tus:
        target = ReadbackTarget(tus, store_id="node", key=KEY, clock=ManualClock())
        verifier = ReceiptVerifier("node", KEY.public, Confirm.READBACK)
        yield Peer(target, verifier, f"{tus_node_url}/{'0' * 32}")


@pytest.mark.parametrize("size", [0, 1, 4096, len(BLOCK)])
async def test_what_it_holds_can_be_read_back(readback: Peer, size: int) -> None:
    """INV-1: the receipt covers what was fetched, and says by whom it was given."""
    assert readback.verifier is not None
    data = BLOCK[:size]
    spec = fresh_spec(data)
    sent, _ = await send(readback, spec, MemorySource(data, chunk_bytes=1 << 18))
    assert sent.receipt is None
    receipt = await Uploader(readback.target, rng=random.Random(1)).receipt(sent.url)
    claims = readback.verifier.verify(receipt)
    assert (claims.sha256, claims.size_bytes) == (sent.sha256, size)
    assert (claims.dock, claims.camera, claims.visit) == (spec.dock, spec.camera, spec.visit)
    assert (claims.upload_id, claims.confirm) == (sent.url, Confirm.READBACK)


async def test_what_it_holds_in_part_is_not_signed_for(readback: Peer) -> None:
    """INV-1."""
    created = await readback.target.create(fresh_spec(b"data"), None, None)
    with pytest.raises(UploadGoneError):
        await readback.target.receipt(created.url)
    with pytest.raises(UploadGoneError):
        await readback.target.receipt(readback.unknown_url)


async def test_a_name_with_a_line_break_is_not_given_back(readback: Peer) -> None:
    """A known gap; INV-2: an error, and no receipt."""
    spec = replace(fresh_spec(b"data"), path=b"a\nb")
    sent, _ = await send(readback, spec, MemorySource(b"data"))
    with pytest.raises(TargetFaultError):
        await readback.target.receipt(sent.url)
