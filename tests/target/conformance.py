"""What every target must do, as scenarios that run against any of them: simulated, ours, others'.

Each scenario takes a :class:`Peer` and fails by an assertion. The names are the clauses of
docs/upload-target.md.
"""

import base64
import hashlib
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from dockd.core.errors import (
    ChecksumMismatchError,
    OffsetConflictError,
    ReceiptRejectedError,
    SourceChangedError,
    UploadGoneError,
)
from dockd.core.interfaces import UploadTarget
from dockd.core.model import UploadSpec
from dockd.evidence.receipts import ReceiptVerifier
from dockd.target.uploader import SMALL_BYTES, Sent, Uploader
from tests.simulated.source import MemorySource, spec_of

BLOCK = random.Random(1).randbytes(3 << 20)


@dataclass(frozen=True, slots=True)
class Peer:
    """A running target. ``verifier`` is None where it signs nothing; ``unknown_url`` names no upload."""

    target: UploadTarget
    verifier: ReceiptVerifier | None
    unknown_url: str


Scenario = Callable[[Peer], Awaitable[None]]


def fresh_spec(data: bytes) -> UploadSpec:
    return spec_of(data, key=secrets.token_hex(8))


async def send(
    peer: Peer, spec: UploadSpec, source: MemorySource, url: str | None = None
) -> tuple[Sent, list[str]]:
    urls: list[str] = []

    async def on_created(created: str) -> None:
        urls.append(created)

    uploader = Uploader(peer.target, rng=random.Random(1))
    sent = await uploader.send(
        spec, source, url=url, on_created=on_created, on_progress=lambda _: None
    )
    return sent, urls


async def require_receipt(peer: Peer, spec: UploadSpec, sent: Sent, data: bytes) -> None:
    assert sent.sha256 == hashlib.sha256(data).hexdigest()
    assert await peer.target.offset(sent.url) == len(data)
    if peer.verifier is None:
        return
    receipt = await Uploader(peer.target, rng=random.Random(1)).receipt(sent.url)
    claims = peer.verifier.verify(receipt)
    assert (claims.sha256, claims.size_bytes) == (sent.sha256, len(data))
    assert (claims.dock, claims.camera, claims.visit) == (spec.dock, spec.camera, spec.visit)
    assert claims.custody_head == spec.custody_head


async def one_chunk(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def every_size_arrives(peer: Peer) -> None:
    for size in (0, 1, 4096, 1 << 20, (1 << 20) + 1, len(BLOCK)):
        data = BLOCK[:size]
        spec = fresh_spec(data)
        sent, urls = await send(peer, spec, MemorySource(data, chunk_bytes=1 << 20))
        assert urls == [sent.url] or size <= SMALL_BYTES
        await require_receipt(peer, spec, sent, data)


async def any_name_arrives(peer: Peer) -> None:
    for path in (b"\xff\xfe\x00", b"a\nb", b"../../etc/passwd", b"x" * 255, "\u00dc.mp4".encode()):
        data = secrets.token_bytes(10)
        spec = replace(fresh_spec(data), path=path, flagged=True)
        sent, _ = await send(peer, spec, MemorySource(data))
        await require_receipt(peer, spec, sent, data)


async def goes_on_after_a_break(peer: Peer) -> None:
    spec = fresh_spec(BLOCK)
    broken = MemorySource(
        BLOCK, chunk_bytes=1 << 18, fail_at=2 << 20, error=SourceChangedError("pulled")
    )
    created = await peer.target.create(spec, None, None)
    with pytest.raises(SourceChangedError):
        await peer.target.append(created.url, 0, len(BLOCK), broken.chunks(len(BLOCK)))
    sent, urls = await send(peer, spec, MemorySource(BLOCK, chunk_bytes=1 << 18), created.url)
    assert (sent.url, urls) == (created.url, [])
    await require_receipt(peer, spec, sent, BLOCK)


async def a_wrong_offset_is_a_conflict(peer: Peer) -> None:
    created = await peer.target.create(fresh_spec(b"data"), None, None)
    with pytest.raises(OffsetConflictError):
        await peer.target.append(created.url, 2, 2, one_chunk(b"ta"))
    assert await peer.target.offset(created.url) == 0


async def what_is_unknown_is_gone(peer: Peer) -> None:
    with pytest.raises(UploadGoneError):
        await peer.target.offset(peer.unknown_url)
    with pytest.raises(UploadGoneError):
        await peer.target.append(peer.unknown_url, 0, 4, one_chunk(b"data"))
    with pytest.raises(UploadGoneError):
        await peer.target.receipt(peer.unknown_url)


async def creation_is_idempotent(peer: Peer) -> None:
    data = BLOCK[:100]
    spec = fresh_spec(data)
    first = await peer.target.create(spec, None, None)
    await peer.target.append(first.url, 0, 40, one_chunk(data[:40]))
    digest = hashlib.sha256(data).digest()
    again = await peer.target.create(spec, data, digest)
    assert (again.url, again.offset) == (first.url, 40)
    sent, _ = await send(peer, spec, MemorySource(data))
    assert sent.url == first.url
    await require_receipt(peer, spec, sent, data)
    finished = await peer.target.create(spec, data, digest)
    assert (finished.url, finished.offset) == (first.url, 100)
    assert finished.receipt is not None
    other_dock = await peer.target.create(replace(spec, dock="dock-2"), None, None)
    assert other_dock.url != first.url


async def a_chunk_that_changed_is_not_kept(peer: Peer) -> None:
    spec = fresh_spec(b"data")
    wrong = hashlib.sha256(b"atad").digest()
    with pytest.raises(ChecksumMismatchError):
        await peer.target.create(spec, b"data", wrong)
    created = await peer.target.create(spec, None, None)
    assert created.offset == 0
    with pytest.raises(ChecksumMismatchError):
        await peer.target.append(created.url, 0, 4, one_chunk(b"data"), chunk_sha256=wrong)
    assert await peer.target.offset(created.url) == 0


async def a_wrong_whole_is_refused_and_its_key_is_free(peer: Peer) -> None:
    spec = fresh_spec(b"data")
    created = await peer.target.create(spec, None, None)
    wrong = hashlib.sha256(b"atad").digest()
    await peer.target.append(created.url, 0, 4, one_chunk(b"data"), whole_sha256=wrong)
    uploader = Uploader(peer.target, rng=random.Random(1))
    with pytest.raises(ReceiptRejectedError):
        await uploader.receipt(created.url)
    sent, _ = await send(peer, spec, MemorySource(b"data"))
    assert sent.url != created.url
    await require_receipt(peer, spec, sent, b"data")


async def an_incomplete_upload_has_no_receipt(peer: Peer) -> None:
    created = await peer.target.create(fresh_spec(b"data"), None, None)
    with pytest.raises(UploadGoneError):
        await peer.target.receipt(created.url)


async def a_receipt_stays(peer: Peer) -> None:
    data = b"data"
    spec = fresh_spec(data)
    sent, _ = await send(peer, spec, MemorySource(data))
    uploader = Uploader(peer.target, rng=random.Random(1))
    assert await uploader.receipt(sent.url) == await uploader.receipt(sent.url)


async def a_receipt_is_a_compact_jws(peer: Peer) -> None:
    data = b"data"
    sent, _ = await send(peer, fresh_spec(data), MemorySource(data))
    receipt = await Uploader(peer.target, rng=random.Random(1)).receipt(sent.url)
    header = receipt.partition(".")[0]
    assert b'"EdDSA"' in base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))


TUS: tuple[Scenario, ...] = (
    every_size_arrives,
    any_name_arrives,
    goes_on_after_a_break,
    a_wrong_offset_is_a_conflict,
    what_is_unknown_is_gone,
)
RECEIPTS: tuple[Scenario, ...] = (
    creation_is_idempotent,
    a_chunk_that_changed_is_not_kept,
    a_wrong_whole_is_refused_and_its_key_is_free,
    an_incomplete_upload_has_no_receipt,
    a_receipt_stays,
    a_receipt_is_a_compact_jws,
)
