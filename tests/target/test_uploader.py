"""One recording at a time through the uploader, with every fault that the retry table knows."""

import asyncio
import hashlib
import random
from collections import Counter

import pytest

from dockd.core.errors import (
    AdministrativeRefusalError,
    ChecksumMismatchError,
    OffsetConflictError,
    ProtocolViolationError,
    ReceiptRejectedError,
    TargetError,
    TargetFaultError,
    TargetFullError,
    TargetRefusedError,
    TargetUnavailableError,
    UploadGoneError,
    UploadLockedError,
)
from dockd.core.model import Appended, TargetProperties
from dockd.target.patience import Patience, RetryRules
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
    SMALL,
    DockSide,
    events_named,
    logged,
    new_store,
    now_s,
    only_object,
)

BARE = TargetProperties(creation_with_upload=False, checksum_sha256=False, receipts=True)


# Without faults


@virtual_time
async def test_a_small_recording_is_one_round_trip() -> None:
    store = new_store()
    dock = DockSide(store)
    sent = await dock.send(SMALL)
    assert store.requests == [DISCOVER, CREATE]
    assert only_object(store) == SMALL
    assert sent.sha256 == hashlib.sha256(SMALL).hexdigest()
    assert sent.receipt is not None
    assert store.verifier.verify(sent.receipt).sha256 == sent.sha256
    assert (sent.attempts, sent.resent_bytes) == (1, 0)
    assert dock.urls == []


@virtual_time
async def test_a_large_recording_is_streamed_and_its_last_bytes_carry_the_digests() -> None:
    store = new_store()
    dock = DockSide(store)
    sent = await dock.send(LARGE)
    assert store.requests == [DISCOVER, CREATE, APPEND, APPEND]
    assert only_object(store) == LARGE
    assert sent.sha256 == hashlib.sha256(LARGE).hexdigest()
    assert store.uploads[sent.url].announced == hashlib.sha256(LARGE).digest()
    assert dock.progress == sorted(dock.progress)
    assert dock.progress[-1] == len(LARGE)


@pytest.mark.parametrize("data", [b"", b"x", SMALL, LARGE], ids=len)
@pytest.mark.parametrize("properties", [BARE, None], ids=["bare", "everything"])
def test_every_size_arrives_whatever_the_target_offers(
    data: bytes, properties: TargetProperties | None
) -> None:
    """INV-2: empty recordings are footage too."""

    @virtual_time
    async def run() -> None:
        store = new_store(**({} if properties is None else {"properties": properties}))
        sent = await DockSide(store).send(data)
        assert only_object(store) == data
        assert sent.sha256 == hashlib.sha256(data).hexdigest()

    run()


@virtual_time
async def test_the_url_is_known_before_the_first_byte_flows() -> None:
    """INV-3: a crash after the first byte finds the upload again."""
    store = new_store()
    source = MemorySource(LARGE)
    seen: list[tuple[int, list[str]]] = []

    async def on_created(url: str) -> None:
        assert url in store.uploads
        await asyncio.sleep(1)
        seen.append((source.position, list(store.requests)))

    uploader = DockSide(store).uploader
    await uploader.send(
        spec_of(LARGE), source, url=None, on_created=on_created, on_progress=lambda _: None
    )
    assert seen == [(0, [DISCOVER, CREATE])]


# Carrying on


@virtual_time
async def test_an_upload_goes_on_where_the_store_is() -> None:
    store = new_store()
    dock = DockSide(store)
    created = await store.create(spec_of(LARGE), None, None)
    store.uploads[created.url].data += LARGE[:5000]
    sent = await dock.send(LARGE, url=created.url)
    assert only_object(store) == LARGE
    assert sent.resent_bytes == 0
    assert dock.progress[0] == 5000
    assert dock.urls == []


@virtual_time
async def test_a_complete_upload_is_only_read_for_its_digest() -> None:
    store = new_store()
    first = await DockSide(store).send(LARGE)
    store.requests.clear()
    again = await DockSide(store).send(LARGE, url=first.url)
    assert store.requests == [DISCOVER, OFFSET]
    assert again.sha256 == first.sha256
    assert len(store.uploads) == 1


@virtual_time
async def test_a_lost_journal_costs_reading_and_no_second_copy() -> None:
    store = new_store()
    first = await DockSide(store).send(LARGE)
    again = await DockSide(store).send(LARGE)
    assert again.url == first.url
    assert again.receipt == first.receipt
    assert len(store.uploads) == 1


@virtual_time
async def test_a_cut_connection_costs_only_what_was_not_acknowledged() -> None:
    store = new_store()
    store.cut_append(after_bytes=4321)
    sent = await DockSide(store).send(LARGE)
    assert only_object(store) == LARGE
    assert sent.attempts == 2
    assert 0 < sent.resent_bytes <= 1000


@virtual_time
async def test_an_upload_that_is_gone_is_asked_for_its_receipt_first() -> None:
    store = new_store()
    first = await DockSide(store).send(LARGE)
    store.requests.clear()
    store.fail_next(OFFSET, UploadGoneError("swept", status=404))
    again = await DockSide(store).send(LARGE, url=first.url)
    assert store.requests == [DISCOVER, OFFSET, RECEIPT]
    assert again.receipt == first.receipt
    assert again.sha256 == first.sha256


@virtual_time
async def test_an_upload_that_is_gone_while_it_is_checked_is_not_sent_again() -> None:
    store = new_store(checking_s=3600.0)
    first = await DockSide(store).send(LARGE)
    store.fail_next(OFFSET, UploadGoneError("moved", status=410))
    again = await DockSide(store).send(LARGE, url=first.url)
    assert again.receipt is None
    assert len(store.uploads) == 1


@pytest.mark.parametrize(
    "answer",
    [
        UploadGoneError("no", status=404),
        ReceiptRejectedError("no", status=409),
        TargetRefusedError("no", status=405),
    ],
)
def test_an_upload_that_is_gone_without_receipt_is_created_again(answer: TargetError) -> None:
    @virtual_time
    async def run() -> None:
        store = new_store()
        dock = DockSide(store)

        def lose() -> TargetError:
            store.forget(dock.urls[-1])
            return UploadGoneError("lost", status=404)

        store.cut_append(after_bytes=2000)
        store.fail_next(OFFSET, lose)
        store.fail_next(RECEIPT, answer)
        with logged() as lines:
            sent = await dock.send(LARGE)
        assert only_object(store) == LARGE
        assert sent.resent_bytes >= 2000
        assert len(events_named(lines, "upload.gone")) == 1
        assert dock.urls == [dock.urls[0], sent.url]

    run()


@virtual_time
async def test_bytes_that_the_store_lost_are_sent_again_and_reported() -> None:
    store = new_store()
    url = ""

    def lose(appended: Appended) -> Appended:
        store.lose_bytes(next(iter(store.uploads)), 3000)
        return appended

    store.alter_next(APPEND, lose)
    with logged() as lines:
        sent = await DockSide(store).send(LARGE)
    url = sent.url
    (incident,) = events_named(lines, "upload.offset_went_back")
    assert incident["acknowledged_bytes"] - incident["offset_bytes"] == 3000
    assert incident["url"] == url
    assert only_object(store) == LARGE
    assert sent.resent_bytes >= 3000


# Faults that pass


@pytest.mark.parametrize(
    "error",
    [
        TargetUnavailableError("away"),
        TargetUnavailableError("busy", status=503, retry_after_s=7),
        TargetFullError("full", status=507),
        AdministrativeRefusalError("no licence", status=402),
        UploadLockedError("locked", status=423),
        TargetFaultError("oops", status=500),
        ProtocolViolationError("nonsense"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("verb", [DISCOVER, CREATE, OFFSET, APPEND, RECEIPT])
def test_a_fault_that_passes_costs_only_time(error: TargetError, verb: str) -> None:
    @virtual_time
    async def run() -> None:
        store = new_store(checking_s=1.0)
        dock = DockSide(store)
        store.cut_append(after_bytes=100)
        store.fail_next(verb, error, times=3)
        sent = await dock.send(LARGE)
        receipt = await dock.uploader.receipt(sent.url)
        assert store.verifier.verify(receipt).sha256 == sent.sha256
        assert only_object(store) == LARGE
        assert len(store.uploads) == 1
        assert now_s() >= 3 * (error.retry_after_s or 0)

    run()


@virtual_time
async def test_a_lock_is_outlived_and_never_gets_a_second_upload() -> None:
    store = new_store()
    dock = DockSide(store)
    created = await store.create(spec_of(LARGE), None, None)
    upload = store.uploads[created.url]
    upload.locked = True
    asyncio.get_running_loop().call_later(90, setattr, upload, "locked", False)
    await dock.send(LARGE, url=created.url)
    assert 90 <= now_s() < 90 + 60
    assert len(store.uploads) == 1
    assert CREATE not in store.requests[1:]


@virtual_time
async def test_a_store_that_is_down_for_six_hours_is_waited_for_without_a_storm() -> None:
    store = new_store()
    dock = DockSide(store)
    store.down = True
    asyncio.get_running_loop().call_later(6 * 3600, setattr, store, "down", False)
    with logged() as lines:
        sent = await dock.send(LARGE)
    assert 6 * 3600 <= now_s() < 6 * 3600 + 60
    assert only_object(store) == LARGE
    assert len(store.requests) < 2 * 6 * 3600 / 30
    assert len(events_named(lines, "target.unavailable")) == 1
    (back,) = events_named(lines, "target.back")
    assert back["away_s"] == pytest.approx(6 * 3600, abs=60)
    assert len(events_named(lines, "upload.retry")) == sent.attempts - 1


@virtual_time
async def test_a_full_store_is_not_called_back_by_an_offset() -> None:
    store = new_store()
    store.fail_next(APPEND, TargetFullError("full", status=507), times=30)
    with logged() as lines:
        await DockSide(store).send(LARGE)
    assert len(events_named(lines, "target.unavailable")) == 1
    assert len(events_named(lines, "target.back")) == 1


@virtual_time
async def test_retry_after_is_the_least_that_is_waited() -> None:
    store = new_store()
    store.fail_next(CREATE, TargetUnavailableError("busy", status=503, retry_after_s=600), times=2)
    with logged() as lines:
        await DockSide(store).send(SMALL)
    waits_s = [line["wait_s"] for line in events_named(lines, "upload.retry")]
    assert len(waits_s) == 2
    assert all(600 <= wait_s <= 660 for wait_s in waits_s)


@pytest.mark.parametrize("error", [TargetUnavailableError, OffsetConflictError])
@pytest.mark.parametrize("asked_s", [2.0, 30.0, 3600.0])
def test_docks_that_were_told_the_same_second_do_not_come_back_together(
    error: type[TargetError], asked_s: float
) -> None:
    """700 docks: the busiest second gets few of them."""
    pauses_s = []
    for dock in range(700):
        patience = Patience(RetryRules(), random.Random(dock))
        failure = error("busy", retry_after_s=asked_s)
        patience.failed(failure)
        pauses_s.append(patience.pause_s(failure))
    assert min(pauses_s) >= asked_s
    spread_s = min(60.0, max(1.0, asked_s / 2))
    assert max(pauses_s) <= asked_s + spread_s
    busiest = max(
        Counter(int((pause_s - asked_s) / spread_s * 10) for pause_s in pauses_s).values()
    )
    assert busiest < 2 * 700 / 10


@virtual_time
async def test_pauses_grow_and_are_spread() -> None:
    store = new_store()
    store.fail_next(CREATE, TargetUnavailableError("away"), times=200)
    with logged() as lines:
        await DockSide(store).send(SMALL)
    waits = [line["wait_s"] for line in events_named(lines, "upload.retry")]
    assert waits[0] <= 1
    assert max(waits) <= 60
    assert 25 < sum(waits[10:]) / len(waits[10:]) < 35
    assert len(set(waits)) > 190


@virtual_time
async def test_an_offset_conflict_is_settled_at_once() -> None:
    store = new_store()
    store.fail_next(APPEND, OffsetConflictError("elsewhere", status=409))
    await DockSide(store).send(LARGE)
    assert now_s() == 0
    assert only_object(store) == LARGE


@virtual_time
async def test_a_store_that_takes_less_than_it_was_sent_is_sent_the_rest() -> None:
    store = new_store()

    def take_less(appended: Appended) -> Appended:
        store.lose_bytes(next(iter(store.uploads)), 500)
        return Appended(appended.offset - 500)

    store.alter_next(APPEND, take_less)
    await DockSide(store).send(LARGE)
    assert only_object(store) == LARGE


@pytest.mark.parametrize("verb", [CREATE, APPEND])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=len)
def test_a_lost_answer_makes_no_second_copy(verb: str, data: bytes) -> None:
    @virtual_time
    async def run() -> None:
        store = new_store()
        store.lose_answer(verb, times=2)
        await DockSide(store).send(data)
        assert only_object(store) == data
        assert len(store.uploads) == 1

    run()


@virtual_time
async def test_bytes_changed_on_the_way_are_sent_again() -> None:
    store = new_store()
    store.fail_next(APPEND, ChecksumMismatchError("changed", status=460), times=2)
    store.fail_next(CREATE, ChecksumMismatchError("changed", status=460), times=2)
    await DockSide(store).send(LARGE)
    assert only_object(store) == LARGE
