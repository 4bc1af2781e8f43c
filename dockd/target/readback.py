"""Confirming footage at a target that signs nothing: fetch it again, hash it, and sign for it here.

The receipt of such a target is the dock's own, by the dock's key, and says so (claim ``confirm``). What
it proves is less than a store's receipt: the target has given exactly these bytes back once. Whether
they would survive a power cut there, nobody has said. docs/upload-target.md, §9.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from dockd.core.errors import ReceiptRejectedError, TargetRefusedError, UploadGoneError
from dockd.core.interfaces import Clock, UploadTarget, UploadTurn
from dockd.core.model import (
    Appended,
    Confirm,
    Created,
    HeldUpload,
    ReceiptClaims,
    TargetProperties,
    UploadSpec,
)
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import sign_receipt

DOWNLOADS = 4
"""Recordings read back at the same time."""

_HASHED_BYTES = 1 << 20


class ReadableTarget(UploadTarget, Protocol):
    """A target that also gives back what it holds."""

    async def describe(self, url: str) -> HeldUpload:
        """Return what the target says of an upload."""

    def content(self, url: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a complete upload."""


class ReadbackTarget:
    """An :class:`~dockd.core.interfaces.UploadTarget` whose receipts the dock gives itself."""

    def __init__(
        self, target: ReadableTarget, *, store_id: str, key: SigningKey, clock: Clock
    ) -> None:
        """Build over a target that is called ``store_id`` in the configuration; ``key`` is the dock's."""
        self._target = target
        self._store_id = store_id
        self._key = key
        self._clock = clock
        self._downloads = asyncio.Semaphore(DOWNLOADS)

    async def discover(self) -> TargetProperties:
        """Ask what the target can do. Receipts there are always: they are made here."""
        return replace(await self._target.discover(), receipts=True)

    async def create(
        self,
        spec: UploadSpec,
        body: bytes | None,
        sha256: bytes | None,
        *,
        turn: UploadTurn | None = None,
    ) -> Created:
        """Create the upload; a receipt of the target's own is no proof here."""
        created = await self._target.create(spec, body, sha256, turn=turn)
        return replace(created, receipt=None)

    async def offset(self, url: str) -> int:
        """Return how many bytes the upload holds."""
        return await self._target.offset(url)

    async def append(
        self,
        url: str,
        offset: int,
        length: int,
        body: AsyncIterator[bytes],
        *,
        chunk_sha256: bytes | None = None,
        whole_sha256: bytes | None = None,
        turn: UploadTurn | None = None,
    ) -> Appended:
        """Send bytes; a receipt of the target's own is no proof here."""
        appended = await self._target.append(
            url,
            offset,
            length,
            body,
            chunk_sha256=chunk_sha256,
            whole_sha256=whole_sha256,
            turn=turn,
        )
        return replace(appended, receipt=None)

    async def receipt(self, url: str) -> str:
        """Read the upload back, and sign for exactly what came.

        Raises UploadGoneError when the target does not have all of it, ReceiptRejectedError when it
        gives back another number of bytes than it says it holds, TargetRefusedError when it gives
        nothing back at all. Whether the digest is the right one is the caller's to compare, as with
        every receipt.
        """
        async with self._downloads:
            held = await self._target.describe(url)
            if held.offset != held.size_bytes:
                raise UploadGoneError(f"{url} holds {held.offset} of {held.size_bytes} bytes")
            async with aclosing(self._target.content(url)) as pieces:
                sha256, size_bytes = await _digest(pieces, held.size_bytes)
        if size_bytes != held.size_bytes:
            raise ReceiptRejectedError(
                f"{url} gives back {size_bytes} bytes or more, and should hold {held.size_bytes}"
            )
        return sign_receipt(self._key, self._claims(url, held, sha256))

    def _claims(self, url: str, held: HeldUpload, sha256: str) -> ReceiptClaims:
        return ReceiptClaims(
            issuer=self._store_id,
            issued_at=self._clock.now(),
            receipt_id=secrets.token_hex(16),
            upload_id=url,
            sha256=sha256,
            size_bytes=held.size_bytes,
            dock=_text(url, held, "dock"),
            camera=_text(url, held, "camera"),
            visit=_text(url, held, "visit"),
            custody_head=_text(url, held, "custody_head"),
            confirm=Confirm.READBACK,
        )


def _text(url: str, held: HeldUpload, name: str) -> str:
    try:
        return held.metadata[name].decode()
    except (KeyError, UnicodeDecodeError) as error:
        raise TargetRefusedError(
            f"{url}: HEAD does not give the metadata {name!r} back, which readback needs"
        ) from error


async def _digest(pieces: AsyncIterator[bytes], limit_bytes: int) -> tuple[str, int]:
    """Return digest and size of what comes, taking little more than the limit and keeping none of it."""
    digest, size_bytes, waiting = hashlib.sha256(), 0, bytearray()
    async for piece in pieces:
        waiting += piece
        size_bytes += len(piece)
        if size_bytes > limit_bytes:
            break
        if len(waiting) >= _HASHED_BYTES:
            await asyncio.to_thread(digest.update, bytes(waiting))
            waiting.clear()
    await asyncio.to_thread(digest.update, waiting)
    return digest.hexdigest(), size_bytes
