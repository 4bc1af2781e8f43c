"""The dock's side of an upload, for tests: sends recordings and remembers what it was told."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog

from dockd.core.interfaces import UploadSource, UploadTarget
from dockd.core.model import TargetProperties, UploadSpec
from dockd.target.uploader import Sent, Uploader
from tests.simulated.clock import SimulatedClock
from tests.simulated.source import MemorySource, spec_of
from tests.simulated.store import SimulatedStore

LARGE = bytes(range(256)) * 40
SMALL = b"a short clip"


class DockSide:
    """An uploader with small limits, and what its callbacks have heard."""

    def __init__(self, target: UploadTarget) -> None:
        self.uploader = Uploader(target, rng=random.Random(7), small_bytes=100, last_chunk_bytes=64)
        self.urls: list[str] = []
        self.progress: list[int] = []

    async def send(
        self,
        data: bytes,
        *,
        url: str | None = None,
        source: UploadSource | None = None,
        spec: UploadSpec | None = None,
    ) -> Sent:
        return await self.uploader.send(
            spec or spec_of(data),
            source or MemorySource(data),
            url=url,
            on_created=self._created,
            on_progress=self.progress.append,
        )

    async def _created(self, url: str) -> None:
        self.urls.append(url)


@contextmanager
def logged() -> Iterator[list[Any]]:
    """Collect the log events of a block."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def events_named(lines: Sequence[Any], name: str) -> list[Any]:
    return [line for line in lines if line["event"] == name]


def new_store(**options: float | TargetProperties) -> SimulatedStore:
    return SimulatedStore(SimulatedClock(asyncio.get_running_loop()), **options)  # type: ignore[arg-type]


def only_object(store: SimulatedStore) -> bytes:
    (content,) = store.objects.values()
    return content


def now_s() -> float:
    return asyncio.get_running_loop().time()
