"""Visits to a target that signs nothing: the dock reads back what it holds, and signs itself."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from dockd.config import WipeConfig
from dockd.core.errors import TargetRefusedError, TargetUnavailableError
from dockd.core.lifecycle import BayState
from dockd.core.model import Confirm, HeldUpload, TargetProperties, UploadKind
from tests.simulated.cameras import SimulatedCamera
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera
from tests.simulated.store import APPEND, CONTENT, DESCRIBE, RECEIPT

SIGNS_NOTHING = TargetProperties(creation_with_upload=True, checksum_sha256=False, receipts=False)
SIZES = (0, 1, 3000, 40_000)


def readback_dock() -> SimulatedDock:
    return SimulatedDock(confirm=Confirm.READBACK, properties=SIGNS_NOTHING)


def contents(camera: SimulatedCamera) -> dict[bytes, bytes]:
    files = camera.files.items()
    return {path: file.content for path, file in files if isinstance(file.content, bytes)}


def require_all_held(dock: SimulatedDock, content: dict[bytes, bytes]) -> None:
    held = {hashlib.sha256(data).hexdigest() for data in content.values()}
    assert held <= set(dock.store.objects)


@virtual_time
async def test_a_visit_ends_ready_on_the_docks_own_word() -> None:
    """INV-1: each recording and the manifest are fetched before they count."""
    camera = body_camera("cam-1", *SIZES)
    content = contents(camera)
    async with readback_dock() as dock:
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        assert contents(camera) == {}
        require_all_held(dock, content)
        assert dock.store.requests.count(CONTENT) > len(SIZES)
        assert RECEIPT not in dock.store.requests
        receipts = [
            dock.verifier.verify(details["receipt"])
            for entry in await dock.entries()
            if "receipt" in (details := json.loads(entry.entry).get("details", {}))
        ]
    assert len(receipts) == len(SIZES) + 1
    assert {claims.confirm for claims in receipts} == {Confirm.READBACK}


@virtual_time
async def test_nothing_is_erased_of_a_target_that_signs_nothing_without_that_choice() -> None:
    """INV-1."""
    camera = body_camera("cam-1", *SIZES)
    content = contents(camera)
    async with SimulatedDock(properties=SIGNS_NOTHING) as dock:
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.ATTENTION)
        assert "never confirms" in (dock.bay().reason or "")
    assert contents(camera) == content


Change = Callable[[bytes], bytes]


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize(
    "change",
    [flip, lambda data: data[:-1], lambda data: data + b"x", lambda _: b""],
    ids=["other bytes", "fewer", "more", "none"],
)
def test_a_target_that_gives_back_something_else_erases_nothing(change: Change) -> None:
    """INV-1, INV-2: the recording is set aside and shown."""

    @virtual_time
    async def scenario() -> None:
        camera = body_camera("cam-1", 40_000)
        content = contents(camera)
        async with readback_dock() as dock:
            dock.store.alter_next(CONTENT, change, times=10_000)
            dock.source.plug("1", camera)
            await dock.until_state("1", BayState.ATTENTION)
            assert contents(camera) == content
            assert dock.store.requests.count(CONTENT) < 20
            dock.store.calm()
            await dock.until_state("1", BayState.READY)
            require_all_held(dock, content)

    scenario()


@virtual_time
async def test_bytes_that_went_wrong_once_are_sent_again() -> None:
    camera = body_camera("cam-1", 40_000)
    content = contents(camera)
    async with readback_dock() as dock:
        dock.store.alter_next(CONTENT, lambda data: data[:-1])
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        require_all_held(dock, content)


@virtual_time
async def test_a_connection_that_breaks_while_reading_back_is_no_harm() -> None:
    camera = body_camera("cam-1", 40_000)
    content = contents(camera)
    async with readback_dock() as dock:
        dock.store.fail_next(CONTENT, TargetUnavailableError("cut"), times=3)
        dock.store.fail_next(DESCRIBE, TargetUnavailableError("cut"), times=3)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        require_all_held(dock, content)
        assert dock.store.requests.count(APPEND) <= 4, "bytes that arrived are not sent again"


@virtual_time
async def test_a_target_that_gives_nothing_back_sets_all_aside() -> None:
    """INV-2."""
    camera = body_camera("cam-1", 40_000)
    content = contents(camera)
    async with readback_dock() as dock:
        dock.store.fail_next(CONTENT, TargetRefusedError("405", status=405), times=100)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.ATTENTION)
        assert "405" in (dock.bay().reason or "")
    assert contents(camera) == content


@pytest.mark.parametrize(
    "metadata", [{}, {"dock": b"dock-7"}, {"camera": b"\xff"}], ids=["none", "some", "not text"]
)
def test_a_target_that_forgets_whose_it_is_proves_nothing(metadata: dict[str, bytes]) -> None:
    """INV-1: the dock does not sign for what it is not told."""

    @virtual_time
    async def scenario() -> None:
        camera = body_camera("cam-1", 40_000)
        content = contents(camera)

        def change(held: HeldUpload) -> HeldUpload:
            return replace(held, metadata=metadata)

        async with readback_dock() as dock:
            dock.store.alter_next(DESCRIBE, change, times=1000)
            dock.source.plug("1", camera)
            await dock.until_state("1", BayState.ATTENTION)
            assert "does not give the metadata" in (dock.bay().reason or "")
        assert contents(camera) == content

    scenario()


@virtual_time
async def test_power_lost_while_reading_back() -> None:
    """INV-3."""
    camera = body_camera("cam-1", *SIZES)
    content = contents(camera)
    async with SimulatedDock(
        confirm=Confirm.READBACK, properties=SIGNS_NOTHING, latency_s=0.1
    ) as dock:
        dock.source.plug("1", camera)
        for count in (1, 2, 3):
            await dock.until(lambda count=count: dock.store.requests.count(CONTENT) >= count)  # type: ignore[misc]
            await dock.restart()
        await dock.until_state("1", BayState.READY)
        assert contents(camera) == {}
        require_all_held(dock, content)


@virtual_time
async def test_a_dock_that_changes_its_mind_proves_everything_again() -> None:
    """INV-1: receipts of the one kind are not used for the other; nothing is sent twice for it."""
    camera = body_camera("cam-1", *SIZES)
    async with SimulatedDock(confirm=Confirm.READBACK, wipe=WipeConfig(hold_s=3600)) as dock:
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.HOLDING)
        dock.confirm = Confirm.RECEIPT
        dock.source.authority = replace(dock.source.authority, verifier=dock.verifier)
        await dock.restart()
        await dock.until_state("1", BayState.READY, within_s=10_000)
        assert contents(camera) == {}
        kinds = [upload.spec.kind for upload in dock.store.uploads.values()]
        assert kinds.count(UploadKind.RECORDING) == len(SIZES)
