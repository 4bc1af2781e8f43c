"""A whole dock on virtual time: real bays, dispatcher, uploader, journal and custody log, with
simulated cameras and store around them.

    async with SimulatedDock(bays=("1",)) as dock:
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)

``restart`` begins anew from what is durable, as after a power cut.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.bay import Bay
from dockd.cameras.wiping import WipeAuthority
from dockd.config import (
    AttentionConfig,
    BayConfig,
    CamerasConfig,
    ChargeConfig,
    Config,
    DockConfig,
    TargetConfig,
    UploadConfig,
    WipeConfig,
)
from dockd.core.interfaces import UploadTarget
from dockd.core.lifecycle import BayState
from dockd.core.model import Confirm, CustodyEvent, SealedEntry
from dockd.core.schedule import Limits
from dockd.dispatch import Dispatcher
from dockd.dock import Dock
from dockd.evidence.custody import seal
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import ReceiptVerifier
from dockd.journal.journal import SqliteJournal
from dockd.services import Services
from dockd.target.pace import Pace, limit_by
from dockd.target.readback import ReadbackTarget
from dockd.target.uploader import Uploader
from tests.simulated.cameras import SimulatedCamera, SimulatedSource
from tests.simulated.clock import SimulatedClock
from tests.simulated.journal import MemoryDatabase
from tests.simulated.store import SimulatedStore
from tests.simulated.worker import InlineWorker

DOCK = "dock-7"
SMALL_BYTES = 4096
"""What counts as a small recording here, so that tests need no megabytes to make a large one."""


class SimulatedDock:
    """A dock whose every part but cameras, store, disk and time is the real one."""

    def __init__(
        self,
        bays: Sequence[str] = ("1",),
        *,
        seed: int = 1,
        wipe: WipeConfig = WipeConfig(),  # noqa: B008 - frozen
        watches_when_ready: bool = False,
        confirm: Confirm = Confirm.RECEIPT,
        **store: Any,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.clock = SimulatedClock(loop)
        self.store = SimulatedStore(self.clock, **store)
        self.key = SigningKey(Ed25519PrivateKey.generate())
        self.database = MemoryDatabase()
        self.config = _config(bays, wipe)
        self.confirm = confirm
        self.source = SimulatedSource(
            bays,
            WipeAuthority(DOCK, self.key.public, self.verifier),
            self.clock,
            watches_when_ready=watches_when_ready,
        )
        self._seed = seed
        self._running: asyncio.Task[None] | None = None
        self.dock: Dock

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Build everything that does not survive a restart, and run it."""
        self.database.dead, self.database.cut_at = False, None
        self.journal = SqliteJournal(Path("journal"), self.database, self._seal)  # type: ignore[arg-type]
        if not await self.entries():
            await self.journal.add_custody(CustodyEvent("log.started"))
        services = Services(
            config=lambda: self.config,
            journal=self.journal,
            uploader=Uploader(
                self.target(),
                rng=random.Random(self._seed),
                pace=Pace(limit_by(lambda: self.config.upload.rates, self.clock.now)),
                small_bytes=SMALL_BYTES,
                last_chunk_bytes=1024,
            ),
            dispatcher=Dispatcher(
                Limits(self.config.upload.streams, self.config.upload.streams_per_bay, SMALL_BYTES)
            ),
            verifier=self.verifier,
            key=self.key,
            clock=self.clock,
        )
        self.dock = Dock(services, [self.source], new_worker=lambda _: InlineWorker())
        self._running = asyncio.create_task(self.dock.run())

    @property
    def verifier(self) -> ReceiptVerifier:
        """What accepts the receipts that count here."""
        if self.confirm is Confirm.RECEIPT:
            return self.store.verifier
        return ReceiptVerifier(self.store.store_id, self.key.public, self.confirm)

    def target(self) -> UploadTarget:
        """Return where the dock sends to."""
        if self.confirm is Confirm.RECEIPT:
            return self.store
        store_id = self.store.store_id
        return ReadbackTarget(self.store, store_id=store_id, key=self.key, clock=self.clock)

    def cancel(self) -> None:
        """Cancel it at just this moment; :meth:`stop` waits for the end."""
        if self._running is not None:
            self._running.cancel()

    async def stop(self) -> None:
        """Stop in order, as on SIGTERM; raises whatever the dock died of."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def lose_power(self) -> None:
        """Stop at once: nothing of this dock writes, sends or erases any more."""
        self.database.dead = True
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()

    async def restart(self) -> None:
        """Lose power, and start from what is durable."""
        await self.lose_power()
        await self.start()

    def bay(self, name: str = "1") -> Bay:
        """Return the bay as it lives now."""
        return self.dock.bays[name]

    async def until(
        self, true: Callable[[], bool], within_s: float = 3600.0, every_s: float = 0.25
    ) -> None:
        """Wait, in virtual time, until something holds; raise TimeoutError when it never does."""
        async with asyncio.timeout(within_s):
            while not true():
                if self._running is not None and self._running.done():
                    self._running.result()
                await asyncio.sleep(every_s)

    async def until_state(
        self, bay: str, state: BayState, within_s: float = 3600.0, every_s: float = 0.25
    ) -> None:
        """Wait until a bay is in a state."""
        await self.until(
            lambda: bay in self.dock.bays and self.dock.bays[bay].state is state, within_s, every_s
        )

    async def entries(self) -> list[SealedEntry]:
        """Return the custody log."""
        return [entry async for entry in self.journal.custody_entries()]

    def _seal(self, previous: str, seq: int, event: CustodyEvent) -> SealedEntry:
        return seal(self.key, DOCK, previous, seq, self.clock.now(), event)


def _config(bays: Sequence[str], wipe: WipeConfig) -> Config:
    """Return a configuration that needs no file: nothing in the core of a dock reads its paths."""
    nowhere = Path("/nonexistent")
    return Config.model_construct(
        dock=DockConfig.model_construct(name=DOCK, state_dir=nowhere),
        target=TargetConfig.model_construct(
            url="sim://", store_id="sim-store", receipt_key=nowhere
        ),
        upload=UploadConfig(),
        cameras=CamerasConfig(flagged=("*/flagged/*",)),
        wipe=wipe,
        charge=ChargeConfig(minimum_s=30),
        attention=AttentionConfig(),
        bays=tuple(BayConfig.model_construct(name=bay, folder=nowhere) for bay in bays),
    )


def body_camera(camera_id: str, *sizes_bytes: int, seed: int = 0) -> SimulatedCamera:
    """Return a camera with one recording of each size, named as cameras do."""
    camera = SimulatedCamera(camera_id)
    for number, size_bytes in enumerate(sizes_bytes, start=1):
        content = random.Random(f"{camera_id} {seed} {number}").randbytes(size_bytes)
        camera.record(f"DCIM/MOV_{number:04}.MP4".encode(), content)
    return camera
