"""Builds a dock from its configuration, runs it, and stops it in order."""

import asyncio
import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from time import monotonic
from typing import Any

from dockd import __version__
from dockd.cameras.directory import ListingLimits
from dockd.cameras.discovery import UsbBus
from dockd.cameras.folder import FolderSource
from dockd.cameras.helper_client import HelperClient
from dockd.cameras.profiles import load_profiles
from dockd.cameras.usb import UsbSource
from dockd.cameras.wiping import WipeAuthority
from dockd.config import Config, TargetConfig, load_config
from dockd.core.errors import ConfigError
from dockd.core.interfaces import CameraSource, UploadTarget
from dockd.core.model import Camera, Confirm
from dockd.core.schedule import Limits
from dockd.dispatch import Dispatcher
from dockd.dock import Dock
from dockd.evidence.custody import seal
from dockd.evidence.keys import VerifyingKey, load_or_create_key, load_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.journal.durable import DirectoryLock, remove_leftovers
from dockd.journal.journal import SqliteJournal
from dockd.ops import events, notify
from dockd.ops.logs import configure_logs
from dockd.ops.status import Handler, StatusServer
from dockd.renewal import Renewal
from dockd.send_now import send_now
from dockd.services import Services
from dockd.status import dock_status
from dockd.target.connection import Connection
from dockd.target.pace import Pace, limit_by
from dockd.target.readback import ReadbackTarget
from dockd.target.tus import TusTarget
from dockd.target.uploader import SMALL_BYTES, Uploader

STOP_WITHIN_S = 8.0
"""What stopping in order may take, before the process ends all the same."""


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


_FIXED: Mapping[str, Callable[[Config], object]] = {
    name: attrgetter(name)
    for name in (
        "dock",
        "target",
        "helper",
        "bays",
        "cameras.settle_s",
        "cameras.max_files",
        "cameras.max_depth",
        "cameras.flagged",
        "cameras.profiles_dir",
    )
}
"""What is built once, at start."""


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
        fixed = [name for name, value in _FIXED.items() if value(new) != value(self.current)]
        if fixed:
            problems = [f"{name}: a change here needs a restart" for name in fixed]
            events.CONFIG_REFUSED.log(file=str(self.path), problems=problems)
            return
        self.current = new
        configure_logs(new.log.level)
        events.CONFIG_RELOADED.log(file=str(self.path))


@contextlib.asynccontextmanager
async def running_services(
    live: LiveConfig, target_config: TargetConfig, paths: StatePaths
) -> AsyncIterator[Services]:
    """Open journal, keys and target, and close them in order."""
    config = live.current
    key = load_or_create_key(paths.key)
    verifier = receipt_verifier(target_config, key.public)
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
            target_config.url,
            connection=Connection.of(target_config),
            stall_timeout_s=target_config.stall_timeout_s,
        ) as tus:
            target: UploadTarget = tus
            if target_config.confirm is Confirm.READBACK:
                target = ReadbackTarget(tus, store_id=target_config.store_id, key=key, clock=clock)
            yield Services(
                config=live,
                journal=journal,
                uploader=Uploader(
                    target,
                    rng=random.SystemRandom(),
                    pace=Pace(limit_by(lambda: live.current.upload.rates, clock.now)),
                ),
                dispatcher=Dispatcher(_limits(config)),
                verifier=verifier,
                key=key,
                clock=clock,
            )
    finally:
        await journal.close()


def receipt_verifier(target: TargetConfig, dock_key: VerifyingKey) -> ReceiptVerifier:
    """Return what accepts exactly the proof that the configuration chose. Raises KeyFileError."""
    key = dock_key if target.receipt_key is None else load_verifying_key(target.receipt_key)
    return ReceiptVerifier(target.store_id, key, target.confirm)


def _limits(config: Config) -> Limits:
    return Limits(config.upload.streams, config.upload.streams_per_bay, SMALL_BYTES)


async def run_daemon(
    config_file: Path, told_to_stop: Callable[[str], None] = lambda _: None
) -> None:
    """Run the dock of a configuration file until SIGTERM or SIGINT, which ``told_to_stop`` hears of.

    SIGHUP loads the file again. Raises ConfigError, AlreadyRunningError, JournalDamagedError and
    KeyFileError before anything of a camera is touched.
    """
    signals = _Signals(told_to_stop)
    live = LiveConfig(config_file, load_config(config_file))
    config = live.current
    configure_logs(config.log.level)
    config.dock.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths = StatePaths(config.dock.state_dir)
    with DirectoryLock(paths.state_dir):
        remove_leftovers(paths.state_dir)
        if config.target is None or not config.bays:
            await _run_until(signals, live.reload, _wait_to_be_set_up(live, paths))
            return
        async with running_services(live, config.target, paths) as opened:
            renewal = Renewal(config.target, paths.state_dir, opened.key, opened.verifier)
            services = replace(opened, learn_receipt_keys=renewal.learn_receipt_keys)
            dock = Dock(
                services,
                await _sources(services),
                reconciled=lambda dock: notify.alive(_summary(dock)),
            )

            def reload() -> None:
                live.reload()
                services.dispatcher.limits = _limits(live.current)

            requests: dict[str, Handler] = {
                "send-now": lambda values: send_now(dock.bays.values(), values["what"])
            }
            async with StatusServer(paths.socket, dock.status, requests):
                events.DAEMON_STARTED.log(
                    version=__version__,
                    dock=config.dock.name,
                    bays=[bay.name for bay in config.bays],
                    target=config.target.url,
                )
                await _run_until(signals, reload, dock.run(), renewal.run())


async def _sources(services: Services) -> list[CameraSource]:
    """Return what the bays need: folders, USB ports, or both."""
    config = services.config()
    limits = ListingLimits(config.cameras.max_files, config.cameras.max_depth)
    flagged = config.cameras.flagged
    sources: list[CameraSource] = []
    folders = {bay.name: bay.folder for bay in config.bays if bay.folder is not None}
    if folders:
        authority = WipeAuthority(config.dock.name, services.key.public, services.verifier)
        sources.append(
            FolderSource(
                folders,
                authority,
                services.clock,
                settle_s=config.cameras.settle_s,
                limits=limits,
                flagged=flagged,
            )
        )
    ports = {bay.name: bay.port for bay in config.bays if bay.port is not None}
    if ports:
        sources.append(
            UsbSource(
                ports,
                HelperClient(config.helper.socket),
                load_profiles([config.cameras.profiles_dir]),
                services.clock,
                look=UsbBus().devices,
                limits=limits,
                flagged=flagged,
                remembered=await _present_cameras(services, ports),
            )
        )
    return sources


async def _present_cameras(services: Services, bays: Iterable[str]) -> dict[str, Camera]:
    """Return the cameras of visits that have not ended, by the stay that they belong to."""
    visits = [await services.journal.present_visit(bay) for bay in bays]
    return {visit.where: visit.camera for visit in visits if visit is not None}


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


def end_in_time(reason: str) -> None:
    """End this process after a while, whatever hangs in it; for a process that is only a daemon.

    Some calls on a dying card or a lost file system never come back, and threads of libraries wait
    for theirs. Every state that the process can leave is one to go on from.
    """

    def end_now() -> None:
        events.DAEMON_STOPPED.log(reason=f"{reason}; a call that hangs was not waited for")
        os._exit(0)

    last_resort = threading.Timer(STOP_WITHIN_S, end_now)
    last_resort.daemon = True
    last_resort.start()


class _Signals:
    """What signals tell this process, from the moment on at which this is made."""

    def __init__(self, told_to_stop: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        self.stop: asyncio.Future[str] = loop.create_future()
        self.reload = asyncio.Event()
        self._told_to_stop = told_to_stop
        loop.add_signal_handler(signal.SIGTERM, self._stop, "SIGTERM")
        loop.add_signal_handler(signal.SIGINT, self._stop, "SIGINT")
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def _stop(self, name: str) -> None:
        if not self.stop.done():
            self.stop.set_result(name)
            self._told_to_stop(name)


async def _run_until(
    signals: _Signals, reload: Callable[[], None], *works: Coroutine[None, None, None]
) -> None:
    async def reload_when_told() -> None:
        while True:
            await signals.reload.wait()
            signals.reload.clear()
            reload()

    tasks = {asyncio.create_task(work) for work in (*works, reload_when_told())}
    try:
        waits: set[asyncio.Future[Any]] = {*tasks, signals.stop}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        notify.stopping()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
    events.DAEMON_STOPPED.log(reason=signals.stop.result() if signals.stop.done() else "cancelled")
