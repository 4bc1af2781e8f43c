"""Builds a dock from its configuration, runs it, and stops it in order."""

import asyncio
import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from dockd import __version__
from dockd.bay import Bay, Observation
from dockd.cameras.directory import ListingLimits
from dockd.cameras.folder import FolderSource
from dockd.cameras.wiping import WipeAuthority
from dockd.config import Config, TargetConfig, load_config
from dockd.core.errors import ConfigError
from dockd.core.interfaces import CameraSource
from dockd.core.lifecycle import BayState
from dockd.core.model import Presence
from dockd.core.schedule import Limits
from dockd.dispatch import Dispatcher
from dockd.evidence.custody import seal
from dockd.evidence.keys import load_or_create_key, load_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.ingest import Services
from dockd.journal.durable import DirectoryLock, remove_leftovers
from dockd.journal.journal import SqliteJournal
from dockd.ops import events, notify
from dockd.ops.logs import configure_logs
from dockd.ops.status import StatusServer
from dockd.status import dock_status
from dockd.target.tus import TusTarget
from dockd.target.uploader import SMALL_BYTES, Uploader
from dockd.worker import BayThread, Worker

STALL_S = 60.0
"""A call on a camera that lasts longer is reported."""

STOP_WITHIN_S = 8.0
"""What stopping in order may take, before the process ends all the same."""

BAY_RESTART_S = 5.0
"""Pause before a bay that failed as a whole begins anew."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Return seconds that never go back."""
        return monotonic()


@dataclass(frozen=True, slots=True)
class StatePaths:
    """The files of a dock's state directory."""

    state_dir: Path

    @property
    def journal(self) -> Path:
        """The SQLite journal, custody log included."""
        return self.state_dir / "journal.sqlite"

    @property
    def key(self) -> Path:
        """The dock's private key; its public half is kept beside it."""
        return self.state_dir / "dock-key.pem"

    @property
    def socket(self) -> Path:
        """The unix socket that answers ``dockd status``."""
        return self.state_dir / "status.sock"


class LiveConfig:
    """The configuration in force; replaced as a whole when it is loaded again."""

    def __init__(self, path: Path, config: Config) -> None:
        """Build with what was loaded from ``path``."""
        self.path = path
        self.current = config

    def __call__(self) -> Config:
        """Return the configuration in force."""
        return self.current

    def reload(self) -> None:
        """Load the file again. A faulty file, or one that needs a restart, changes nothing."""
        try:
            new = load_config(self.path)
        except ConfigError as error:
            events.CONFIG_REFUSED.log(file=error.file, problems=list(error.problems))
            return
        fixed = [
            name
            for name in ("dock", "target", "bays")
            if getattr(new, name) != getattr(self.current, name)
        ]
        if fixed:
            problems = [f"{name}: a change here needs a restart" for name in fixed]
            events.CONFIG_REFUSED.log(file=str(self.path), problems=problems)
            return
        self.current = new
        configure_logs(new.log.level)
        events.CONFIG_RELOADED.log(file=str(self.path))


class Dock:
    """All bays of a dock over their sources of cameras: reconciles, reports stalls, keeps them going."""

    def __init__(
        self,
        services: Services,
        sources: Sequence[CameraSource],
        new_worker: Callable[[str], Worker] = lambda bay: BayThread(f"bay-{bay}"),
        reconciled: Callable[["Dock"], None] = lambda _: None,
    ) -> None:
        """Build with empty bays; :meth:`run` brings them to life.

        ``reconciled`` is called after each look at all bays.
        """
        self.services = services
        self.bays: dict[str, Bay] = {}
        self._sources = sources
        self._new_worker = new_worker
        self._reconciled = reconciled
        self._look = asyncio.Event()
        self._stalled: set[str] = set()
        self._crowded: dict[str, Sequence[str]] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        # The watcher of hints is in place before the first look, so that nothing falls in between.
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(self._listen(source))
                for name in source.bays:
                    group.create_task(self._keep(name, source))
            await self._reconcile_for_ever()

    async def _keep(self, name: str, source: CameraSource) -> None:
        """Run a bay; one that fails as a whole begins anew and does not touch the others (INV-8)."""
        while True:
            bay = Bay(name, self.services, source, self._new_worker(name))
            self.bays[name] = bay
            self._look.set()
            try:
                await bay.run()
            except Exception as error:  # noqa: BLE001 - logged in full, and the bay begins anew
                events.BAY_FAULT.log(bay=name, work="run", error=error)
            await asyncio.sleep(BAY_RESTART_S)

    async def _listen(self, source: CameraSource) -> None:
        async with contextlib.aclosing(source.hints()) as hints:
            async for _ in hints:
                self._look.set()

    async def _reconcile_for_ever(self) -> None:
        """Compare what is there with what the bays believe: on every hint, and every few seconds."""
        looker = self._new_worker("enumeration")
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.services.config().cameras.reconcile_s):
                        await self._look.wait()
                self._look.clear()
                self._observe(await looker.start(self._enumerate))
                self._report_stalls()
                self._reconciled(self)
        finally:
            looker.close()

    def _enumerate(self) -> Mapping[str, Sequence[Presence]]:
        seen: dict[str, Sequence[Presence]] = {}
        for source in self._sources:
            seen.update(source.enumerate_cameras())
        return seen

    def _observe(self, seen: Mapping[str, Sequence[Presence]]) -> None:
        taken: dict[str, str] = {}
        chosen = {name: self._choose(bay, seen.get(name, ())) for name, bay in self.bays.items()}
        # Bays at work come first, so that a clash refuses the newcomer.
        for name, bay in sorted(self.bays.items(), key=lambda item: item[1].state in _IDLE):
            presence = chosen[name]
            refusal = presence.refusal if presence is not None else None
            if presence is not None and refusal is None:
                other = taken.setdefault(presence.camera.camera_id, name)
                if other != name:
                    camera = presence.camera.camera_id
                    refusal = f"camera {camera} is in bay {other} as well; their ids clash"
            bay.observe(Observation(presence, refusal))

    def _choose(self, bay: Bay, seen: Sequence[Presence]) -> Presence | None:
        """Stay with the camera at hand; others in the same bay wait and are shown."""
        current = bay.visit.camera.camera_id if bay.visit is not None else None
        ordered = sorted(seen, key=lambda one: (one.camera.camera_id != current, one.where))
        waiting = [presence.camera.camera_id for presence in ordered[1:]]
        if waiting != self._crowded.get(bay.name, []):
            self._crowded[bay.name] = waiting
            if waiting:
                events.BAY_CROWDED.log(bay=bay.name, waiting=waiting)
        return ordered[0] if ordered else None

    def status(self) -> dict[str, object]:
        """Return the truth about every bay; see :mod:`dockd.status`."""
        return dock_status(self.services.dock, self.bays.values(), self._crowded)

    def _report_stalls(self) -> None:
        for name, bay in self.bays.items():
            stalled = bay.busy_s > STALL_S and bay.state is not BayState.WIPING
            if stalled and name not in self._stalled:
                events.BAY_STALLED.log(bay=name, busy_s=round(bay.busy_s))
            (self._stalled.add if stalled else self._stalled.discard)(name)


_IDLE = frozenset({BayState.EMPTY, BayState.REFUSED})


@contextlib.asynccontextmanager
async def running_services(
    live: LiveConfig, target_config: TargetConfig, paths: StatePaths
) -> AsyncIterator[Services]:
    """Open journal, keys and target, and close them in order."""
    config = live.current
    key = load_or_create_key(paths.key)
    verifier = ReceiptVerifier(
        target_config.store_id, load_verifying_key(target_config.receipt_key)
    )
    clock = SystemClock()
    journal = await SqliteJournal.open(
        paths.journal,
        seal=lambda previous, seq, event: seal(
            key, config.dock.name, previous, seq, clock.now(), event
        ),
        key_id=key.key_id,
    )
    try:
        async with TusTarget(
            target_config.url, stall_timeout_s=target_config.stall_timeout_s
        ) as target:
            yield Services(
                config=live,
                journal=journal,
                uploader=Uploader(target, rng=random.SystemRandom()),
                dispatcher=Dispatcher(_limits(config)),
                verifier=verifier,
                key=key,
                clock=clock,
            )
    finally:
        await journal.close()


def _limits(config: Config) -> Limits:
    return Limits(config.upload.streams, config.upload.streams_per_bay, SMALL_BYTES)


async def run_daemon(config_file: Path) -> None:
    """Run the dock of a configuration file until SIGTERM or SIGINT.

    SIGHUP loads the file again. Raises ConfigError, AlreadyRunningError, JournalDamagedError and
    KeyFileError before anything of a camera is touched.
    """
    stopping = _told_to_stop()
    live = LiveConfig(config_file, load_config(config_file))
    config = live.current
    configure_logs(config.log.level)
    config.dock.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths = StatePaths(config.dock.state_dir)
    with DirectoryLock(paths.state_dir):
        remove_leftovers(paths.state_dir)
        if config.target is None or not config.bays:
            await _run_until(stopping, _wait_to_be_set_up(live, paths), live.reload)
            return
        async with running_services(live, config.target, paths) as services:
            source = FolderSource(
                {bay.name: bay.folder for bay in config.bays if bay.folder is not None},
                WipeAuthority(config.dock.name, services.key.public, services.verifier),
                services.clock,
                settle_s=config.cameras.settle_s,
                limits=ListingLimits(config.cameras.max_files, config.cameras.max_depth),
                flagged=config.cameras.flagged,
            )
            dock = Dock(services, [source], reconciled=lambda dock: notify.alive(_summary(dock)))

            def reload() -> None:
                live.reload()
                services.dispatcher.limits = _limits(live.current)

            events.DAEMON_STARTED.log(
                version=__version__,
                dock=config.dock.name,
                bays=[bay.name for bay in config.bays],
                target=config.target.url,
            )
            async with StatusServer(paths.socket, dock.status):
                await _run_until(stopping, dock.run(), reload)


def _summary(dock: Dock) -> str:
    states = Counter(bay.state.value for bay in dock.bays.values())
    return f"{len(dock.bays)} bays: " + ", ".join(
        f"{count} {state}" for state, count in states.items()
    )


async def _wait_to_be_set_up(live: LiveConfig, paths: StatePaths) -> None:
    """Be there for ``dockd status`` and ``dockd doctor`` while there is nothing to do yet."""
    config = live.current
    missing = [
        table for table, there in (("target", config.target), ("bay", config.bays)) if not there
    ]
    events.DAEMON_NOT_SET_UP.log(file=str(live.path), missing=missing)
    async with StatusServer(paths.socket, lambda: dock_status(config.dock.name, (), {})):
        while True:
            notify.alive(f"not set up yet, see dockd doctor; missing: {', '.join(missing)}")
            await asyncio.sleep(live.current.cameras.reconcile_s)


def _told_to_stop() -> asyncio.Future[str]:
    """Return a future that tells which signal wants the process to stop, from now on.

    Some calls on a dying card or a lost file system never come back, and threads of libraries wait
    for theirs. The process ends in time all the same: every state that it can leave is one to go on
    from.
    """
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[str] = loop.create_future()

    def end_now(name: str) -> None:
        events.DAEMON_STOPPED.log(reason=f"{name}; a call that hangs was not waited for")
        os._exit(0)

    def stop(name: str) -> None:
        if not stopping.done():
            stopping.set_result(name)
            last_resort = threading.Timer(STOP_WITHIN_S, end_now, (name,))
            last_resort.daemon = True
            last_resort.start()

    loop.add_signal_handler(signal.SIGTERM, stop, "SIGTERM")
    loop.add_signal_handler(signal.SIGINT, stop, "SIGINT")
    return stopping


async def _run_until(
    stopping: asyncio.Future[str], work: Coroutine[None, None, None], reload: Callable[[], None]
) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    running = asyncio.create_task(work)
    try:
        waits: set[asyncio.Future[Any]] = {running, stopping}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        notify.stopping()
        running.cancel()
        await asyncio.wait({running})
    if not running.cancelled():
        running.result()
    events.DAEMON_STOPPED.log(reason=stopping.result() if stopping.done() else "cancelled")
