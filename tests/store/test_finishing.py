"""From the last byte to the receipt: what is kept, what is refused, and what a restart finds."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dockd.store import finishing
from dockd.store.objects import Content, read_back
from dockd.store.verify import Problem, held, recordings, verify
from tests.store.tus import (
    QUICK,
    Tus,
    as_arguments,
    objects_in,
    repr_digest,
    running,
    sha256_hex,
    until,
    upload_metadata,
)

CONTENT = b"footage " * 1000
DIGEST = sha256_hex(CONTENT)


def object_path(data_dir: Path, digest: str = DIGEST) -> Path:
    return data_dir / "objects" / digest[:2] / digest[2:4] / digest


def damage(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


async def test_an_object_is_read_only(tus: Tus, data_dir: Path) -> None:
    await tus.send(CONTENT)
    assert object_path(data_dir).stat().st_mode & 0o777 == 0o400


async def test_bytes_that_rot_before_they_are_checked_are_never_signed_for(
    tus: Tus, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-1: the receipt follows from what the medium gives back, not from what came in."""

    def rotten(path: Path, should_stop: object) -> Content:
        if path.stat().st_size:
            damage(path)
        return read_back(path)

    monkeypatch.setattr(finishing, "read_back", rotten)
    answer = await tus.send(CONTENT)
    assert (await tus.receipt(answer.headers["Location"])).status == 409
    assert objects_in(data_dir) == {}


async def test_a_damaged_object_does_not_stand_in_for_a_good_upload(
    tus: Tus, data_dir: Path
) -> None:
    """INV-1: the same bytes sent again mend it, and the damaged ones are kept aside."""
    await tus.send(CONTENT, upload_metadata(filename=b"a"))
    damage(object_path(data_dir))
    answer = await tus.send(CONTENT, upload_metadata(filename=b"b"))
    assert answer.receipt
    assert objects_in(data_dir) == {DIGEST: CONTENT}
    [note] = (data_dir / "quarantine").glob("damaged-*.json")
    assert json.loads(note.read_bytes())["error"]
    assert note.with_suffix("").stat().st_size == len(CONTENT)


async def test_complete_uploads_of_an_earlier_run_are_checked_at_start(data_dir: Path) -> None:
    """INV-3: a stop between the last byte and the receipt is an ordinary one."""
    async with running(data_dir) as tus:
        created = await tus.create(len(CONTENT), Idempotency_Key="k")
        url = created.headers["Location"]
    (data_dir / "unfinished" / url.rpartition("/")[2]).write_bytes(CONTENT)
    async with running(data_dir) as tus:
        receipt = await tus.receipt(url)
        assert tus.verifier.verify(receipt.text).sha256 == DIGEST
    assert objects_in(data_dir) == {DIGEST: CONTENT}


async def test_the_announced_digest_survives_a_restart(data_dir: Path) -> None:
    """INV-1: what was announced is compared, whenever the check is made."""
    async with running(data_dir) as tus:
        url = (await tus.create(len(CONTENT))).headers["Location"]
        wrong = as_arguments(repr_digest(b"other"))
        await tus.patch(url, 0, CONTENT[:100], **wrong)
    (data_dir / "unfinished" / url.rpartition("/")[2]).write_bytes(CONTENT)
    async with running(data_dir) as tus:
        assert (await tus.receipt(url)).status == 409


async def test_an_object_without_a_row_is_adopted_by_its_upload(data_dir: Path) -> None:
    """INV-3: killed between the object and its row; the upload's own file is there still."""
    async with running(data_dir) as tus:
        url = (await tus.create(len(CONTENT))).headers["Location"]
    upload = data_dir / "unfinished" / url.rpartition("/")[2]
    upload.write_bytes(CONTENT)
    object_path(data_dir).parent.mkdir(parents=True)
    object_path(data_dir).hardlink_to(upload)
    async with running(data_dir) as tus:
        assert (await tus.receipt(url)).status == 200
    assert objects_in(data_dir) == {DIGEST: CONTENT}
    assert not upload.exists()


async def test_leftovers_of_ended_uploads_are_removed_at_start(data_dir: Path) -> None:
    async with running(data_dir) as tus:
        answer = await tus.send(CONTENT)
        upload_id = answer.headers["Location"].rpartition("/")[2]
    leftover = data_dir / "unfinished" / upload_id
    leftover.write_bytes(CONTENT)
    (data_dir / "unfinished" / f"{upload_id}.tail").write_bytes(b"x")
    async with running(data_dir):
        assert list((data_dir / "unfinished").iterdir()) == []


async def test_the_last_copy_of_held_bytes_is_never_removed(data_dir: Path) -> None:
    """INV-1: an object that somebody took away leaves its leftover alone."""
    async with running(data_dir) as tus:
        answer = await tus.send(CONTENT)
        upload_id = answer.headers["Location"].rpartition("/")[2]
    leftover = data_dir / "unfinished" / upload_id
    object_path(data_dir).rename(leftover)
    async with running(data_dir):
        assert leftover.read_bytes() == CONTENT


async def test_bytes_that_no_row_explains_go_to_quarantine(data_dir: Path) -> None:
    """INV-2: a catalogue restored from an old backup drops nothing."""
    async with running(data_dir):
        pass
    stray = data_dir / "unfinished" / ("a" * 32)
    stray.write_bytes(CONTENT)
    async with running(data_dir):
        assert not stray.exists()
        assert (data_dir / "quarantine" / stray.name).read_bytes() == CONTENT


async def test_large_uploads_do_not_hold_up_small_ones(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-8: while a large one is being read back, a small one gets its receipt."""
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(path: Path, should_stop: object) -> Content:
        if path.stat().st_size == len(CONTENT):
            asyncio.run_coroutine_threadsafe(released.wait(), loop).result(30)
        return read_back(path)

    monkeypatch.setattr(finishing, "read_back", slow)
    async with running(data_dir, replace(QUICK, small_bytes=100)) as tus:
        url = (await tus.create(len(CONTENT))).headers["Location"]
        large = asyncio.create_task(tus.patch(url, 0, CONTENT))
        assert (await tus.send(b"small")).receipt
        assert not large.done()
        checking = await tus.ask("GET", f"{url}/receipt", {})

        async def is_checking() -> bool:
            return (await tus.ask("GET", f"{url}/receipt", {})).status == 202

        await until(is_checking)
        assert (await tus.head(url)).offset == len(CONTENT)
        assert checking.status in (202, 404)
        released.set()
        assert (await large).receipt


async def test_a_receipt_that_takes_longer_is_asked_for(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(data_dir, replace(QUICK, receipt_wait_s=0)) as tus:
        answer = await tus.send(CONTENT)
        assert (answer.status, answer.offset) == (201, len(CONTENT))
        assert (await tus.receipt(answer.headers["Location"])).status == 200


async def test_who_asks_for_a_receipt_gets_it_the_moment_it_is_there(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for = threading.Event()
    receipt_in = finishing.Finishing.receipt

    def read_when_asked(path: Path, should_stop: Callable[[], bool]) -> Content:
        asked_for.wait(10)
        return read_back(path, should_stop)

    async def receipt(self: finishing.Finishing, upload_id: str, within_s: float) -> str | None:
        if within_s > 0:
            asked_for.set()
        return await receipt_in(self, upload_id, within_s)

    monkeypatch.setattr(finishing, "read_back", read_when_asked)
    monkeypatch.setattr(finishing.Finishing, "receipt", receipt)
    settings = replace(QUICK, receipt_wait_s=0, receipt_poll_s=10)
    async with running(data_dir, settings) as tus:
        answer = await tus.send(CONTENT)
        assert "Dockd-Receipt" not in answer.headers
        url = answer.headers["Location"]
        assert (await tus.ask("GET", f"{url}/receipt", {})).status == 200


async def test_an_upload_whose_bytes_vanish_can_be_sent_again(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-3: nothing is signed for, and the client finds offset 0."""

    def vanish(path: Path, should_stop: object) -> Content:
        path.unlink()
        return read_back(path)

    async with running(data_dir) as tus:
        with monkeypatch.context() as patch:
            patch.setattr(finishing, "read_back", vanish)
            url = (await tus.send(CONTENT)).headers["Location"]
        assert (await tus.head(url)).offset == 0
        assert (await tus.patch(url, 0, CONTENT)).receipt


async def test_lost_bytes_are_owned_up_to_and_taken_again(tus: Tus, data_dir: Path) -> None:
    """INV-1: a receipt is not shown for an object that is gone; the same upload mends it."""
    first = await tus.send(CONTENT, Idempotency_Key="k")
    url = first.headers["Location"]
    object_path(data_dir).unlink()
    assert (await tus.head(url)).status == 404
    assert (await tus.receipt(url)).status == 404
    again = await tus.send(CONTENT, Idempotency_Key="k")
    assert tus.verifier.verify(again.receipt).sha256 == DIGEST
    assert objects_in(data_dir) == {DIGEST: CONTENT}
    assert (await tus.receipt(url)).text == first.receipt
    assert (await tus.send(CONTENT, Idempotency_Key="k")).receipt == first.receipt


async def test_verify_counts_exactly(data_dir: Path) -> None:
    """INV-2: how many, exactly, is one question."""
    contents = [f"recording {n}".encode() for n in range(6)]
    async with running(data_dir) as tus:
        for content in contents:
            await tus.send(content)
        await tus.send(contents[0], upload_metadata(filename=b"again"))
        await tus.create(10, b"half")
        await tus.create(4, b"clip", **as_arguments(repr_digest(b"other")))
        assert verify(data_dir, _unexpected).sound
    digests = [sha256_hex(content) for content in contents]
    damage(object_path(data_dir, digests[0]))
    object_path(data_dir, digests[1]).unlink()
    orphan = object_path(data_dir, sha256_hex(b"orphan"))
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"orphan")
    problems: list[Problem] = []
    count = verify(data_dir, problems.append)
    assert (count.uploads, count.objects, count.bytes) == (7, 6, sum(map(len, contents)))
    assert (count.ok, count.damaged, count.missing, count.orphan) == (4, 1, 1, 1)
    assert (count.unfinished, count.quarantined) == (1, 1)
    assert not count.sound
    found = {problem.sha256: (problem.kind, len(problem.uploads)) for problem in problems}
    assert found == {
        digests[0]: ("damaged", 2),
        digests[1]: ("missing", 1),
        orphan.name: ("orphan", 0),
    }
    assert [upload.size_bytes for upload in held(data_dir)] == [len(c) for c in contents] + [11]
    assert len(list(recordings(data_dir))) == 9


async def test_a_lost_catalogue_does_not_make_a_new_identity(data_dir: Path) -> None:
    async with running(data_dir) as tus:
        await tus.send(CONTENT)
        first = tus.store.store_id
    (data_dir / "catalogue.db").unlink()
    async with running(data_dir) as tus:
        assert tus.store.store_id == first


def _unexpected(problem: Problem) -> None:
    raise AssertionError(problem)
