"""A small tus client for the store's tests, which can also misbehave, and stores to try it on."""

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
from yarl import URL

from dockd.evidence.keys import load_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings

BYTES = "application/offset+octet-stream"
QUICK = StoreSettings(
    reserve_bytes=0, receipt_wait_s=10.0, receipt_poll_s=0.0, retry_s=0.01, stall_timeout_s=20.0
)
"""Waits for every receipt, so that a test need not ask again."""

DOCK, CAMERA, VISIT = "dock-1", "camera-1", "visit-1"


def as_arguments(headers: Mapping[str, str]) -> dict[str, str | None]:
    """Turn header names into names of arguments, for the methods of :class:`Tus`."""
    return {name.replace("-", "_"): value for name, value in headers.items()}


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def upload_checksum(body: bytes) -> dict[str, str]:
    return {"Upload-Checksum": f"sha256 {base64_of(hashlib.sha256(body).digest())}"}


def repr_digest(whole: bytes) -> dict[str, str]:
    return {"Repr-Digest": f"sha-256=:{base64_of(hashlib.sha256(whole).digest())}:"}


def upload_metadata(
    *,
    filename: bytes = b"DCIM/MOV_0001.MP4",
    kind: str = "recording",
    dock: str = DOCK,
    camera: str = CAMERA,
    visit: str = VISIT,
    flagged: bool = False,
) -> dict[str, str]:
    values = {
        "filename": filename,
        "kind": kind.encode(),
        "mtime_ns": b"1700000000123456789",
        "dock": dock.encode(),
        "camera": camera.encode(),
        "visit": visit.encode(),
        "custody_head": b"0" * 64,
    }
    pairs = [f"{key} {base64_of(value)}" for key, value in values.items()]
    return {"Upload-Metadata": ",".join(pairs + ["flagged"] * flagged)}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def offset(self) -> int:
        return int(self.headers["Upload-Offset"])

    @property
    def receipt(self) -> str:
        return self.headers["Dockd-Receipt"]


@dataclass(frozen=True)
class Tus:
    """Talks to one store."""

    store: Store
    session: aiohttp.ClientSession

    @property
    def verifier(self) -> ReceiptVerifier:
        return ReceiptVerifier(self.store.store_id, load_verifying_key(self.store.receipt_key))

    async def ask(
        self,
        method: str,
        url: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
    ) -> Answer:
        """Send any request; ``url`` may be a Location. Without ``headers`` it speaks tus."""
        base = URL(self.store.url)
        fields = {"Tus-Resumable": "1.0.0"} if headers is None else headers
        target = base.join(URL(url)) if url else base
        async with self.session.request(method, target, headers=fields, data=body) as response:
            return Answer(response.status, response.headers, await response.text())

    async def create(
        self, size_bytes: int, body: bytes | None = None, **headers: str | None
    ) -> Answer:
        """POST; header names have ``_`` for ``-``, and None takes a header away."""
        fields = {"Upload-Length": str(size_bytes), **upload_metadata()}
        if body is not None:
            fields["Content-Type"] = BYTES
        return await self.ask("POST", "", _with(fields, headers), body)

    async def patch(
        self, url: str, offset: int, body: bytes | AsyncIterator[bytes], **headers: str | None
    ) -> Answer:
        fields = {"Upload-Offset": str(offset), "Content-Type": BYTES}
        return await self.ask("PATCH", url, _with(fields, headers), body)

    async def head(self, url: str) -> Answer:
        return await self.ask("HEAD", url)

    async def delete(self, url: str) -> Answer:
        return await self.ask("DELETE", url)

    async def receipt(self, url: str) -> Answer:
        """GET the receipt, asking again while the store is still checking."""
        async with asyncio.timeout(30):
            while True:
                answer = await self.ask("GET", f"{url}/receipt", {})
                if answer.status != 202:
                    return answer
                await asyncio.sleep(0.01)

    async def is_locked(self, url: str) -> bool:
        """Whether another request sends to the upload at this moment."""
        return (await self.patch(url, 2**62, b"")).status == 423

    async def send(
        self,
        content: bytes,
        metadata: Mapping[str, str] | None = None,
        **headers: str | None,
    ) -> Answer:
        """Upload a whole recording in one request."""
        fields = {
            **(metadata or upload_metadata()),
            **upload_checksum(content),
            **repr_digest(content),
        }
        return await self.create(len(content), content, **{**as_arguments(fields), **headers})


def _with(fields: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    merged: dict[str, str | None] = {"Tus-Resumable": "1.0.0", **fields}
    merged.update({name.replace("_", "-"): value for name, value in changes.items()})
    return {name: value for name, value in merged.items() if value is not None}


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@contextlib.asynccontextmanager
async def running(
    data_dir: Path,
    settings: StoreSettings = QUICK,
    now: Callable[[], datetime] | None = None,
) -> AsyncIterator[Tus]:
    """Run a store and a client for it."""
    async with (
        Store.running(data_dir, settings=settings, now=now or Time().now) as store,
        aiohttp.ClientSession() as session,
    ):
        yield Tus(store, session)


def objects_in(data_dir: Path) -> dict[str, bytes]:
    """Return the objects on the disk, by name."""
    return {path.name: path.read_bytes() for path in (data_dir / "objects").glob("*/*/*")}


async def until(question: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until the answer is yes."""
    async with asyncio.timeout(30):
        while True:
            if await question():
                return
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def sending(
    tus: Tus, url: str, offset: int, beginning: bytes, **headers: str | None
) -> AsyncIterator[None]:
    """Hold an upload with a request that begins and does not go on; break its connection at the end."""

    async def send() -> None:
        # Whoever asks whether the upload is locked locks it for a moment, too.
        while (await tus.patch(url, offset, never_ending(beginning), **headers)).status == 423:
            pass

    task = asyncio.create_task(send())
    try:
        await until(lambda: tus.is_locked(url))
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def never_ending(beginning: bytes) -> AsyncIterator[bytes]:
    """A body that begins and does not go on."""
    yield beginning
    await asyncio.Event().wait()
