"""How long the uploader tries, what ends it at once, and how long it waits for a receipt."""

from collections.abc import Callable

import pytest

from dockd.core.errors import (
    AdministrativeRefusalError,
    CameraGoneError,
    CameraUnreadableError,
    ChecksumMismatchError,
    JournalUnwritableError,
    OffsetConflictError,
    ProtocolViolationError,
    ReceiptRejectedError,
    SourceChangedError,
    TargetError,
    TargetFaultError,
    TargetFullError,
    TargetRefusedError,
    TargetUnavailableError,
    UploadGoneError,
    UploadLockedError,
)
from dockd.core.model import Appended, ReceiptPending, TargetProperties
from tests.simulated.clock import virtual_time
from tests.simulated.source import MemorySource, spec_of
from tests.simulated.store import (
    APPEND,
    CREATE,
    DISCOVER,
    OFFSET,
    RECEIPT,
)
from tests.target.dock_side import (
    LARGE,
    DockSide,
    new_store,
    now_s,
    only_object,
)

# The end of patience


@pytest.mark.parametrize(
    "make",
    [
        lambda: TargetFaultError("oops", status=500),
        lambda: TargetUnavailableError("bad gateway", status=502),
        lambda: TargetUnavailableError("gateway timeout", status=504),
        lambda: TargetUnavailableError("the connection broke"),
        lambda: OffsetConflictError("elsewhere", status=409),
        lambda: ChecksumMismatchError("changed", status=460),
        lambda: UploadGoneError("gone", status=404),
    ],
)
def test_a_transfer_that_never_moves_ends(make: Callable[[], TargetError]) -> None:
    """A bare HEAD is no progress: POST-ok, PATCH-502, HEAD-ok does not go on for ever."""

    @virtual_time
    async def run() -> None:
        store = new_store()
        store.fail_next(APPEND, make, times=100)
        with pytest.raises(type(make())):
            await DockSide(store).send(LARGE)
        assert store.requests.count(APPEND) == 8
        assert len(store.uploads) == 1

    run()


@pytest.mark.parametrize(
    "error",
    [
        TargetFullError("full", status=507),
        TargetUnavailableError("busy", status=503),
        TargetUnavailableError("slow down", status=429),
        AdministrativeRefusalError("unknown dock", status=403),
        UploadLockedError("locked", status=423),
    ],
)
def test_waiting_for_a_person_or_for_room_has_no_end(error: TargetError) -> None:
    """INV-7: nothing administrative stops evidence."""

    @virtual_time
    async def run() -> None:
        store = new_store()
        store.fail_next(APPEND, error, times=100)
        await DockSide(store).send(LARGE)
        assert only_object(store) == LARGE

    run()


@virtual_time
async def test_progress_renews_patience() -> None:
    store = new_store()
    for _ in range(30):
        store.cut_append(after_bytes=200)
    sent = await DockSide(store).send(LARGE)
    assert sent.attempts == 31
    assert only_object(store) == LARGE


@virtual_time
async def test_ground_covered_twice_is_no_progress() -> None:
    store = new_store()

    def lose_all(appended: Appended) -> Appended:
        store.lose_bytes(next(iter(store.uploads)), len(LARGE))
        raise TargetFaultError("and then it broke", status=500)

    store.alter_next(APPEND, lose_all, times=100)
    with pytest.raises(TargetFaultError):
        await DockSide(store).send(LARGE)
    assert store.requests.count(APPEND) <= 9


@pytest.mark.parametrize("offset", [len(LARGE) + 1, -1])
def test_an_impossible_offset_is_refused(offset: int) -> None:
    @virtual_time
    async def run() -> None:
        store = new_store()
        created = await store.create(spec_of(LARGE), None, None)
        store.alter_next(OFFSET, lambda _: offset, times=100)
        with pytest.raises(ProtocolViolationError):
            await DockSide(store).send(LARGE, url=created.url)
        assert store.requests.count(OFFSET) == 8
        assert store.objects == {}

    run()


@pytest.mark.parametrize("verb", [DISCOVER, CREATE, OFFSET, APPEND])
def test_what_will_never_be_taken_comes_out_at_once(verb: str) -> None:
    @virtual_time
    async def run() -> None:
        store = new_store()
        created = await store.create(spec_of(LARGE), None, None)
        store.requests.clear()
        store.fail_next(verb, TargetRefusedError("too large", status=413))
        with pytest.raises(TargetRefusedError):
            await DockSide(store).send(LARGE, url=None if verb == CREATE else created.url)
        assert store.requests.count(verb) == 1
        assert now_s() == 0

    run()


@pytest.mark.parametrize(
    "error",
    [CameraGoneError("pulled"), SourceChangedError("changed"), CameraUnreadableError("EIO")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("fail_at", [0, 5000, len(LARGE) - 1])
def test_a_cameras_trouble_comes_out_as_it_is(
    error: CameraGoneError | SourceChangedError, fail_at: int
) -> None:
    @virtual_time
    async def run() -> None:
        store = new_store()
        source = MemorySource(LARGE, fail_at=fail_at, error=error)
        with pytest.raises(type(error)) as caught:
            await DockSide(store).send(LARGE, source=source)
        assert caught.value is error
        assert source.readers == 0
        assert store.objects == {}

    run()


@virtual_time
async def test_a_journal_that_cannot_be_written_stops_the_upload_before_its_bytes() -> None:
    """INV-3: no byte flows to an upload that nobody would find again."""
    store = new_store()

    async def on_created(_: str) -> None:
        raise JournalUnwritableError("no room")

    with pytest.raises(JournalUnwritableError):
        await DockSide(store).uploader.send(
            spec_of(LARGE),
            MemorySource(LARGE),
            url=None,
            on_created=on_created,
            on_progress=lambda _: None,
        )
    assert APPEND not in store.requests


# Receipts


@virtual_time
async def test_a_receipt_is_waited_for_as_long_as_it_takes() -> None:
    store = new_store(checking_s=7200.0)
    dock = DockSide(store)
    sent = await dock.send(LARGE)
    assert sent.receipt is None
    store.fail_next(RECEIPT, TargetFaultError("oops", status=500), times=5)
    receipt = await dock.uploader.receipt(sent.url)
    assert store.verifier.verify(receipt).size_bytes == len(LARGE)
    assert 7200 <= now_s() < 7200 + 1800 + 120
    assert store.requests.count(RECEIPT) < 15


@virtual_time
async def test_patience_is_renewed_by_each_answer_that_says_wait() -> None:
    store = new_store(checking_s=1000.0)
    dock = DockSide(store)
    sent = await dock.send(LARGE)

    def then_fail(pending: ReceiptPending) -> ReceiptPending:
        store.fail_next(RECEIPT, TargetFaultError("oops", status=500), times=7)
        return pending

    store.alter_next(RECEIPT, then_fail, times=2)
    assert await dock.uploader.receipt(sent.url)
    assert store.requests.count(RECEIPT) > 14


@virtual_time
async def test_a_rejected_upload_comes_out_and_its_key_is_free_again() -> None:
    store = new_store()
    dock = DockSide(store)

    def flip(created: Appended) -> Appended:
        upload = next(iter(store.uploads.values()))
        upload.data[0] ^= 1
        return created

    store.alter_next(APPEND, flip)
    sent = await dock.send(LARGE)
    with pytest.raises(ReceiptRejectedError):
        await dock.uploader.receipt(sent.url)
    again = await dock.send(LARGE)
    assert again.url != sent.url
    assert again.receipt is not None
    assert only_object(store) == LARGE


@virtual_time
async def test_an_upload_that_the_store_lost_is_gone() -> None:
    store = new_store()
    dock = DockSide(store)
    sent = await dock.send(LARGE)
    store.forget(sent.url)
    with pytest.raises(UploadGoneError):
        await dock.uploader.receipt(sent.url)


@virtual_time
async def test_a_target_without_receipts_never_confirms() -> None:
    """INV-1: an offset that equals the length is no proof."""
    store = new_store(
        properties=TargetProperties(creation_with_upload=True, checksum_sha256=True, receipts=False)
    )
    dock = DockSide(store)
    sent = await dock.send(LARGE)
    store.fail_next(RECEIPT, UploadGoneError("no such page", status=404))
    with pytest.raises(TargetRefusedError, match="never confirms"):
        await dock.uploader.receipt(sent.url)
