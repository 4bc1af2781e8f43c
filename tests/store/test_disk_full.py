"""The store's disk is full, or the kernel loses pages: what is told is held, and it recovers by itself."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dockd.core.errors import JournalUnwritableError
from dockd.store import receiving
from dockd.store.uploads import ChunkChecksumError, UnfinishedUploads, UploadWriter
from tests.store.steps import NthStep, interposed
from tests.store.tus import QUICK, Tus, as_arguments, running, sha256_hex, upload_checksum

PIECE = 1000
CONTENT = os.urandom(20 * PIECE)


@contextmanager
def no_room() -> Iterator[None]:
    real = os.statvfs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: _full(real(path)))
        yield


def _full(disk: os.statvfs_result) -> os.statvfs_result:
    fields = list(disk)
    fields[4] = 0  # f_bavail
    return os.statvfs_result(fields)


async def test_507_before_the_reserve_is_touched(data_dir: Path) -> None:
    async with running(data_dir, replace(QUICK, reserve_bytes=1)) as tus:
        url = (await tus.create(len(CONTENT), CONTENT[:PIECE])).headers["Location"]
        with no_room():
            for answer in (
                await tus.patch(url, PIECE, CONTENT[PIECE:]),
                await tus.create(4, b"clip"),
                await tus.create(10**9),
            ):
                assert answer.status == 507
                assert int(answer.headers["Retry-After"]) > 0
                assert answer.text == "the store's disk is full\n"
            assert (await tus.head(url)).offset == PIECE
        assert (await tus.patch(url, PIECE, CONTENT[PIECE:])).receipt


@pytest.mark.parametrize("checksum", [False, True])
async def test_full_at_the_nth_write(
    tus: Tus, monkeypatch: pytest.MonkeyPatch, checksum: bool
) -> None:
    """INV-3: what was told stays, nothing is told that is not there, and the rest is taken later."""
    monkeypatch.setattr(receiving, "PIECE_BYTES", PIECE)

    def fail(name: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    step = NthStep(fail)
    fields = as_arguments(upload_checksum(CONTENT)) if checksum else {}
    for number in range(1, 200):
        content = CONTENT
        url = (await tus.create(len(content))).headers["Location"]
        step.arm(number)
        with interposed(lambda name: step(name) if name == "pwritev" else None):
            answer = await tus.patch(url, 0, _pieces(content), **fields)
            if step.taken is None:
                assert answer.receipt
                break
            assert answer.status == 507
        offset = (await tus.head(url)).offset
        assert 0 <= offset < len(content)
        if checksum:
            assert offset == 0
        answer = await tus.patch(url, offset, content[offset:])
        assert tus.verifier.verify(answer.receipt).sha256 == sha256_hex(content)
    assert number > 2


async def test_a_full_catalogue_is_507_and_passes(tus: Tus) -> None:
    def fail(name: str) -> None:
        raise JournalUnwritableError("database or disk is full")

    step = NthStep(fail)
    with interposed(lambda name: step(name) if name == "transaction" else None):
        step.arm(1)
        assert (await tus.send(CONTENT)).status == 507
        assert (await tus.send(CONTENT)).receipt


@pytest.fixture
def uploads(tmp_path: Path) -> UnfinishedUploads:
    found = UnfinishedUploads(tmp_path / "unfinished", reserve_bytes=0)
    assert found.recover() == []
    return found


def test_after_a_failed_sync_the_file_is_cut_back_to_what_was_promised(
    uploads: UnfinishedUploads,
) -> None:
    """INV-3: the kernel may have dropped the pages; asking it again would be answered with a lie."""
    writer = UploadWriter(uploads, "a", offset=0, sha256=None)
    writer.write([b"first"])
    assert writer.sync() == 5
    writer.write([b"lost"])

    def fail(name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    step = NthStep(fail)
    step.arm(1)
    with interposed(step), pytest.raises(OSError, match="Input/output"):
        writer.finish([], whole=True)
    assert writer.offset == 5
    assert uploads.path("a").read_bytes() == b"first"


def test_many_small_buffers_are_written_in_order(uploads: UnfinishedUploads) -> None:
    pieces = [bytes([n % 256]) * (n % 7) for n in range(3000)]
    writer = UploadWriter(uploads, "a", offset=0, sha256=None)
    writer.write(pieces[:1500])
    assert writer.finish(pieces[1500:], whole=True) == sum(map(len, pieces))
    assert uploads.path("a").read_bytes() == b"".join(pieces)


def test_short_writes_are_carried_on(
    uploads: UnfinishedUploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev

    def short(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return real(descriptor, [buffers[0][:3]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    writer = UploadWriter(uploads, "a", offset=0, sha256=None)
    assert writer.finish([b"abcdefgh", b"", b"ij"], whole=True) == 10
    assert uploads.path("a").read_bytes() == b"abcdefghij"


def test_bytes_under_a_checksum_are_kept_whole_or_not_at_all(uploads: UnfinishedUploads) -> None:
    UploadWriter(uploads, "a", offset=0, sha256=None).finish([b"first "], whole=True)
    right = bytes.fromhex(sha256_hex(b"second"))
    with pytest.raises(ChunkChecksumError):
        UploadWriter(uploads, "a", offset=6, sha256=right).finish([b"secund"], whole=True)
    assert UploadWriter(uploads, "a", offset=6, sha256=right).finish([b"sec"], whole=False) == 6
    assert uploads.path("a").read_bytes() == b"first "
    assert (
        UploadWriter(uploads, "a", offset=6, sha256=right).finish([b"sec", b"ond"], whole=True)
        == 12
    )
    assert uploads.path("a").read_bytes() == b"first second"
    assert [path.name for path in uploads.directory.iterdir()] == ["a"]


def test_a_leftover_of_an_earlier_request_is_not_part_of_the_next(
    uploads: UnfinishedUploads,
) -> None:
    """INV-1: a tail that could not be removed adds no bytes."""
    uploads.tail("a").write_bytes(b"a longer leftover")
    right = bytes.fromhex(sha256_hex(b"short"))
    assert UploadWriter(uploads, "a", offset=0, sha256=right).finish([b"short"], whole=True) == 5
    assert uploads.path("a").read_bytes() == b"short"


def test_a_hole_never_stands_in_for_bytes_that_are_gone(uploads: UnfinishedUploads) -> None:
    """INV-1."""
    with pytest.raises(FileNotFoundError):
        UploadWriter(uploads, "a", offset=5, sha256=None).finish([b"rest"], whole=True)
    assert uploads.recover() == []


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for first in range(0, len(content), PIECE):
        yield content[first : first + PIECE]
        await asyncio.sleep(0)
