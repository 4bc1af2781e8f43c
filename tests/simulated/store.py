"""A central store in memory: the reference model of docs/upload-target.md, with faults to order.

It implements :class:`~dockd.core.interfaces.UploadTarget` directly, so no wire lies between it and
the daemon. Receipts are real JWS, signed with a real key. Faults come in two kinds: ``fail_next``
fails a request before the store has seen it, ``alter_next`` changes or loses the answer after the
store has done its work.
"""

import asyncio
import hashlib
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.errors import (
    ChecksumMismatchError,
    ManifestInvalidError,
    OffsetConflictError,
    ReceiptInvalidError,
    ReceiptRejectedError,
    TargetUnavailableError,
    UploadGoneError,
    UploadLockedError,
)
from dockd.core.interfaces import Clock, UploadTurn
from dockd.core.model import (
    Appended,
    Created,
    HeldUpload,
    ManifestEntry,
    ReceiptClaims,
    ReceiptPending,
    TargetProperties,
    UploadKind,
    UploadSpec,
    display_name,
)
from dockd.evidence.keys import SigningKey
from dockd.evidence.manifests import read_manifest
from dockd.evidence.receipts import ReceiptVerifier, sign_receipt
from dockd.target.headers import decode_metadata, metadata_of

T = TypeVar("T")

DISCOVER, CREATE, OFFSET, APPEND, RECEIPT = "discover", "create", "offset", "append", "receipt"
DESCRIBE, CONTENT = "describe", "content"

EVERYTHING = TargetProperties(creation_with_upload=True, checksum_sha256=True, receipts=True)


@dataclass(slots=True)
class SimulatedUpload:
    """One upload: what was announced, what has come, and, once complete, what the store says of it."""

    spec: UploadSpec
    url: str
    data: bytearray = field(default_factory=bytearray)
    announced: bytes | None = None
    locked: bool = False
    checked_at_s: float | None = None
    receipt: str | None = None
    rejected: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every byte has come."""
        return len(self.data) == self.spec.size_bytes


class SimulatedStore:
    """A store that keeps bytes by their digest, signs for them, and breaks when told to."""

    def __init__(
        self,
        clock: Clock,
        *,
        store_id: str = "sim-store",
        properties: TargetProperties = EVERYTHING,
        latency_s: float = 0.0,
        checking_s: float = 0.0,
    ) -> None:
        """Build empty. A request takes ``latency_s``; a receipt is there ``checking_s`` after the bytes."""
        self.store_id = store_id
        self.key = SigningKey(Ed25519PrivateKey.generate())
        self.verifier = ReceiptVerifier(store_id, self.key.public)
        self.properties = properties
        self.latency_s = latency_s
        self.checking_s = checking_s
        self.down = False
        self.uploads: dict[str, SimulatedUpload] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self._clock = clock
        self._url_of_key: dict[tuple[str, str], str] = {}
        self._numbers = iter(range(1, 1_000_000))
        self._failures: dict[str, deque[Callable[[], None]]] = defaultdict(deque)
        self._changes: dict[str, deque[Callable[[Any], Any]]] = defaultdict(deque)
        self._cuts: deque[int] = deque()

    # What a test orders

    def fail_next(
        self, verb: str, error: Exception | Callable[[], Exception], times: int = 1
    ) -> None:
        """Let the next requests of this kind fail before the store has seen them."""

        def fail() -> None:
            raise error() if callable(error) else error

        self._failures[verb].extend([fail] * times)

    def alter_next(self, verb: str, change: Callable[[T], T], times: int = 1) -> None:
        """Let the store do its work and the dock hear ``change(answer)``; a change may raise."""
        self._changes[verb].extend([change] * times)

    def lose_answer(self, verb: str, times: int = 1) -> None:
        """Let the store do its work and its answers be lost on the way."""

        def lose(_: object) -> object:
            raise TargetUnavailableError(f"the answer to {verb} was lost")

        self.alter_next(verb, lose, times)

    def cut_append(self, after_bytes: int) -> None:
        """Cut the connection of the next append when the store has taken this many of its bytes."""
        self._cuts.append(after_bytes)

    def lose_bytes(self, url: str, count: int) -> None:
        """Forget the last bytes of an upload, although they were acknowledged."""
        upload = self.uploads[url]
        del upload.data[max(0, len(upload.data) - count) :]
        upload.checked_at_s = upload.receipt = None

    def forget(self, url: str) -> None:
        """Lose an upload altogether, as a store restored from an old backup does."""
        upload = self.uploads.pop(url)
        self._url_of_key.pop((upload.spec.dock, upload.spec.key), None)

    def renew_key(self) -> None:
        """Sign with a new key from now on, and again what was signed with the old one."""
        self.key = SigningKey(Ed25519PrivateKey.generate())
        self.verifier = ReceiptVerifier(self.store_id, self.key.public)
        for upload in self.uploads.values():
            upload.receipt = None

    def calm(self) -> None:
        """Call off every fault that has not happened yet."""
        self.down = False
        self._failures.clear()
        self._changes.clear()
        self._cuts.clear()

    # What a test looks at

    def held(self, kind: UploadKind = UploadKind.RECORDING) -> list[tuple[UploadSpec, bytes]]:
        """Return what has a receipt, in the order in which it was created."""
        return [
            (upload.spec, bytes(upload.data))
            for upload in self.uploads.values()
            if upload.receipt is not None and upload.spec.kind is kind
        ]

    # The door of the target

    async def discover(self) -> TargetProperties:
        """See :class:`~dockd.core.interfaces.UploadTarget`."""
        await self._arrive(DISCOVER)
        return await self._answer(DISCOVER, self.properties)

    async def create(
        self,
        spec: UploadSpec,
        body: bytes | None,
        sha256: bytes | None,
        *,
        turn: UploadTurn | None = None,
    ) -> Created:
        """See :class:`~dockd.core.interfaces.UploadTarget`."""
        await self._arrive(CREATE)
        known = self._known(spec)
        if known is not None:
            return await self._answer(CREATE, Created(known.url, len(known.data), known.receipt))
        upload = SimulatedUpload(spec, f"sim://{self.store_id}/files/{next(self._numbers)}")
        if body is not None and self.properties.creation_with_upload:
            if sha256 is not None and hashlib.sha256(body).digest() != sha256:
                raise ChecksumMismatchError("the body is not what its checksum says", status=460)
            upload.announced = sha256
            async for piece in _in_turn(_once(body), turn):
                upload.data += piece
        self.uploads[upload.url] = upload
        self._url_of_key[spec.dock, spec.key] = upload.url
        self._check_if_complete(upload)
        receipt = self._receipt_if_ready(upload)
        return await self._answer(CREATE, Created(upload.url, len(upload.data), receipt))

    async def offset(self, url: str) -> int:
        """See :class:`~dockd.core.interfaces.UploadTarget`."""
        await self._arrive(OFFSET)
        upload = self._upload(url)
        if upload.rejected is not None:
            raise UploadGoneError(f"{url}: its bytes were put aside", status=410)
        return await self._answer(OFFSET, len(upload.data))

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
        """See :class:`~dockd.core.interfaces.UploadTarget`."""
        await self._arrive(APPEND)
        upload = self._upload(url)
        with self._locked(upload):
            if offset != len(upload.data):
                raise OffsetConflictError(f"{url} is at {len(upload.data)}", status=409)
            try:
                await self._take(upload, _in_turn(body, turn), length)
            finally:
                # What has come counts, even if the dock does not wait for the answer.
                intact = self._settle(upload, offset, length, chunk_sha256, whole_sha256)
            if not intact:
                raise ChecksumMismatchError("the body is not what its checksum says", status=460)
            receipt = self._receipt_if_ready(upload)
            return await self._answer(APPEND, Appended(len(upload.data), receipt))

    async def receipt(self, url: str) -> str | ReceiptPending:
        """See :class:`~dockd.core.interfaces.UploadTarget`."""
        await self._arrive(RECEIPT)
        upload = self._upload(url)
        if not (upload.complete and self.properties.receipts):
            raise UploadGoneError(f"{url} has no receipt", status=404)
        receipt = self._receipt_if_ready(upload)
        if upload.rejected is not None:
            raise ReceiptRejectedError(upload.rejected, status=409)
        pending = ReceiptPending(max(0.1, self.checking_s / 4))
        return await self._answer(RECEIPT, receipt or pending)

    async def describe(self, url: str) -> HeldUpload:
        """See :class:`~dockd.target.readback.ReadableTarget`."""
        await self._arrive(DESCRIBE)
        upload = self._upload(url)
        metadata = decode_metadata(metadata_of(upload.spec))
        held = HeldUpload(len(upload.data), upload.spec.size_bytes, metadata)
        return await self._answer(DESCRIBE, held)

    async def content(self, url: str) -> AsyncGenerator[bytes, None]:
        """See :class:`~dockd.target.readback.ReadableTarget`. What a change returns is given back."""
        await self._arrive(CONTENT)
        data = await self._answer(CONTENT, bytes(self._upload(url).data))
        for begin in range(0, len(data), 1000):
            await asyncio.sleep(0)
            if self.down:
                raise TargetUnavailableError("the store went down")
            yield data[begin : begin + 1000]

    # How it works inside

    async def _arrive(self, verb: str) -> None:
        self.requests.append(verb)
        await asyncio.sleep(self.latency_s / 2)
        if self.down:
            raise TargetUnavailableError("the store is down")
        if self._failures[verb]:
            self._failures[verb].popleft()()

    async def _answer(self, verb: str, answer: T) -> T:
        await asyncio.sleep(self.latency_s / 2)
        if self._changes[verb]:
            return cast("T", self._changes[verb].popleft()(answer))
        return answer

    def _known(self, spec: UploadSpec) -> SimulatedUpload | None:
        url = self._url_of_key.get((spec.dock, spec.key))
        known = self.uploads.get(url) if url is not None else None
        if known is None:
            return None
        self._receipt_if_ready(known)
        return known if known.rejected is None else None

    def _upload(self, url: str) -> SimulatedUpload:
        try:
            return self.uploads[url]
        except KeyError:
            raise UploadGoneError(f"{url} is not known", status=404) from None

    @contextmanager
    def _locked(self, upload: SimulatedUpload) -> Iterator[None]:
        if upload.locked:
            raise UploadLockedError(f"{upload.url} is in use", status=423)
        upload.locked = True
        try:
            yield
        finally:
            upload.locked = False

    async def _take(self, upload: SimulatedUpload, body: AsyncIterator[bytes], length: int) -> None:
        cut = self._cuts.popleft() if self._cuts else None
        taken = 0
        async for chunk in body:
            if cut is not None and taken + len(chunk) > cut:
                upload.data += chunk[: cut - taken]
                raise TargetUnavailableError("the connection was cut")
            upload.data += chunk
            taken += len(chunk)
            await asyncio.sleep(0)
            if self.down:
                raise TargetUnavailableError("the store went down")
        if taken != length:
            raise AssertionError(f"{length} bytes were announced and {taken} came")

    def _settle(
        self,
        upload: SimulatedUpload,
        offset: int,
        length: int,
        chunk_sha256: bytes | None,
        whole_sha256: bytes | None,
    ) -> bool:
        """Keep what an append brought; false when it came whole and is not what its checksum says."""
        body = upload.data[offset:]
        if len(body) == length:
            if chunk_sha256 not in (None, hashlib.sha256(body).digest()):
                del upload.data[offset:]
                return False
            upload.announced = whole_sha256 or upload.announced
        self._check_if_complete(upload)
        return True

    def _check_if_complete(self, upload: SimulatedUpload) -> None:
        if upload.complete and upload.checked_at_s is None:
            upload.checked_at_s = self._clock.monotonic_s() + self.checking_s

    def _receipt_if_ready(self, upload: SimulatedUpload) -> str | None:
        """Check a complete upload when its time has come: its digest, and what a manifest lists."""
        ready = upload.checked_at_s is not None and upload.checked_at_s <= self._clock.monotonic_s()
        if upload.receipt is None and upload.rejected is None and ready:
            data = bytes(upload.data)
            digest = hashlib.sha256(data)
            upload.rejected = self._fault(upload, data, digest.digest())
            if upload.rejected is None:
                self.objects[digest.hexdigest()] = data
            if upload.rejected is None and self.properties.receipts:
                upload.receipt = sign_receipt(self.key, self.claims(upload, digest.hexdigest()))
        return upload.receipt

    def _fault(self, upload: SimulatedUpload, data: bytes, sha256: bytes) -> str | None:
        if upload.announced not in (None, sha256):
            return "the digest of the bytes is not the one announced"
        if upload.spec.kind is not UploadKind.MANIFEST or not self.properties.receipts:
            return None
        try:
            manifest = read_manifest(data.decode("ascii"), None)
        except (ManifestInvalidError, UnicodeDecodeError) as error:
            return f"the manifest cannot be read: {error}"
        missing = [entry.path for entry in manifest.recordings if not self._holds(entry)]
        return f"not held: {[display_name(path) for path in missing]}" if missing else None

    def _holds(self, entry: ManifestEntry) -> bool:
        try:
            claims = self.verifier.verify(entry.receipt)
        except ReceiptInvalidError:
            return False
        listed = (entry.sha256, entry.size_bytes)
        return (claims.sha256, claims.size_bytes) == listed and entry.sha256 in self.objects

    def claims(self, upload: SimulatedUpload, sha256: str) -> ReceiptClaims:
        """Return what this store states of an upload; tests change it to make wrong receipts."""
        number = upload.url.rpartition("/")[2]
        return ReceiptClaims(
            issuer=self.store_id,
            issued_at=self._clock.now(),
            receipt_id=f"receipt-{number}",
            upload_id=number,
            sha256=sha256,
            size_bytes=upload.spec.size_bytes,
            dock=upload.spec.dock,
            camera=upload.spec.camera,
            visit=upload.spec.visit,
            custody_head=upload.spec.custody_head,
        )


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _in_turn(body: AsyncIterator[bytes], turn: UploadTurn | None) -> AsyncIterator[bytes]:
    """Pass bytes on as the dock's pace lets them go, as the body of a real request does."""
    async for chunk in body:
        rest = chunk
        while rest:
            size = await turn.take(len(rest)) if turn is not None else len(rest)
            yield rest[:size]
            rest = rest[size:]
        if turn is not None:
            turn.rest()
