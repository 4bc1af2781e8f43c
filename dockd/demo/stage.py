"""The stage: a store, the network before it, and a dock with four bays, all in one folder."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dockd.core.lifecycle import BayState
from dockd.daemon import StatePaths
from dockd.demo.footage import FLAGGED, Made, make_cameras
from dockd.demo.processes import DemoError, Process, read_events
from dockd.demo.proxy import Proxy
from dockd.ops import events
from dockd.ops.status import DaemonNotRunningError, ask_status
from dockd.store.layout import Layout, read_store_id

DOCK = "demo-dock"
STOP_WITHIN_S = 10.0
"""What a daemon that is told to stop may take."""

_BAYS = ("1", "2", "3", "4")
_START_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.05

_CONFIG = """\
[dock]
name = "{dock}"
state_dir = "state"

[target]
url = "http://127.0.0.1:{port}/files/"
store_id = "{store_id}"
receipt_key = "{receipt_key}"

[cameras]
settle_s = 0.2
reconcile_s = 1.0
flagged = ["{flagged}"]
"""

_BAY = """
[[bay]]
name = "{name}"
folder = "bays/{name}"
"""

Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scale:
    """How big the demo is. The rate is that of the network, the outage how long it is cut."""

    footage_bytes: int
    rate_bytes_s: float
    outage_s: float


@dataclass(frozen=True, slots=True)
class Paths:
    """What is where in the demo's folder."""

    root: Path

    @property
    def config(self) -> Path:
        """The dock's configuration."""
        return self.root / "dock.toml"

    @property
    def state(self) -> StatePaths:
        """The dock's state directory."""
        return StatePaths(self.root / "state")

    @property
    def store(self) -> Layout:
        """The store's directory."""
        return Layout(self.root / "store")

    @property
    def cameras(self) -> Path:
        """Where cameras are before they are docked."""
        return self.root / "cameras"

    @property
    def dock_log(self) -> Path:
        """What the dock's daemon logged, over all its runs."""
        return self.root / "dock.log"

    @property
    def store_log(self) -> Path:
        """What the store logged."""
        return self.root / "store.log"

    def bay(self, name: str) -> Path:
        """Return the folder of a bay."""
        return self.root / "bays" / name


class Stage:
    """Everything that runs, and what was put on the cameras."""

    def __init__(
        self, paths: Paths, scale: Scale, made: Sequence[Made], store: Process, proxy: Proxy
    ) -> None:
        """Build from what runs already; use :func:`open_stage`."""
        self.paths = paths
        self.scale = scale
        self.made = made
        self.proxy = proxy
        self.store = store
        self.dock: Process | None = None
        cameras = sorted({item.camera for item in made})
        self.bay_of = dict(zip(cameras, _BAYS, strict=False))

    async def start_dock(self) -> None:
        """Start the daemon."""
        self.dock = await Process.start(
            "dockd run", "run", "-c", str(self.paths.config), log=self.paths.dock_log
        )

    async def kill_dock(self) -> None:
        """End the daemon at once, with SIGKILL."""
        if self.dock is not None:
            await self.dock.kill()

    async def stop_dock(self) -> int | None:
        """Stop the daemon in order; return its exit code, None when it took too long."""
        dock, self.dock = self.dock, None
        return await dock.stop(STOP_WITHIN_S) if dock is not None else None

    def dock_cameras(self) -> None:
        """Put each camera into its bay."""
        for camera, bay in self.bay_of.items():
            (self.paths.cameras / camera).rename(self.paths.bay(bay) / camera)

    async def watch(
        self,
        what: str,
        wanted: Callable[[Status], bool],
        *,
        show: Callable[[Status], None],
        within_s: float = _START_WITHIN_S,
    ) -> Status:
        """Look at the dock's status until it is as wanted, and return it.

        Raises DemoError when that takes too long, a process has ended, or a bay needs a person.
        """
        status: Status = {}
        try:
            async with asyncio.timeout(within_s):
                while True:
                    self.check_running()
                    try:
                        status = await ask_status(self.paths.state.socket)
                    except DaemonNotRunningError:
                        pass  # it is starting
                    else:
                        show(status)
                        _check_bays(status)
                        if wanted(status):
                            return status
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError as error:
            raise DemoError(f"not within {within_s:.0f} s: {what}; {_in_short(status)}") from error

    def check_running(self) -> None:
        """Raise DemoError when store or dock have ended."""
        self.store.check_running()
        if self.dock is not None:
            self.dock.check_running()


@asynccontextmanager
async def open_stage(root: Path, scale: Scale) -> AsyncIterator[Stage]:
    """Fill the cameras, start store, network and dock, and stop them in order at the end."""
    paths = Paths(root)
    made = await _make_folders(paths, scale)
    store = await Process.start(
        "dockd store serve",
        *("store", "serve", "--data", str(paths.store.root)),
        *("--listen", "127.0.0.1:0", "--reserve-mib", "0"),
        log=paths.store_log,
    )
    try:
        async with Proxy(await _port_of(store), scale.rate_bytes_s) as proxy:
            stage = Stage(paths, scale, made, store, proxy)
            paths.config.write_text(_config(paths, proxy.port), encoding="utf-8")
            try:
                await stage.start_dock()
                yield stage
            finally:
                await stage.stop_dock()
    finally:
        await store.stop(STOP_WITHIN_S)


async def _make_folders(paths: Paths, scale: Scale) -> tuple[Made, ...]:
    def make() -> tuple[Made, ...]:
        paths.cameras.mkdir()
        for name in _BAYS:
            paths.bay(name).mkdir(parents=True)
        return make_cameras(paths.cameras, scale.footage_bytes)

    making = asyncio.create_task(asyncio.to_thread(make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        # A thread cannot be stopped, and the folder is about to be removed under it.
        await making
        raise


async def _port_of(store: Process) -> int:
    """Wait until the store says that it listens, and return the port that it was given."""
    try:
        async with asyncio.timeout(_START_WITHIN_S):
            while True:
                store.check_running()
                for line in read_events(store.log, events.STORE_STARTED):
                    return urlsplit(str(line["url"])).port or 0
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError as error:
        raise DemoError(
            f"{store.name} does not listen after {_START_WITHIN_S:.0f} s; its last lines:\n"
            + "\n".join(store.last_lines())
        ) from error


def _config(paths: Paths, port: int) -> str:
    text = _CONFIG.format(
        dock=DOCK,
        port=port,
        store_id=read_store_id(paths.store),
        receipt_key=paths.store.receipt_public_key.relative_to(paths.root),
        flagged=FLAGGED,
    )
    return text + "".join(_BAY.format(name=name) for name in _BAYS)


def _check_bays(status: Status) -> None:
    for bay in status["bays"]:
        if bay["state"] in (BayState.ATTENTION, BayState.REFUSED):
            raise DemoError(f"bay {bay['bay']} needs a person: {bay['reason']}")


def _in_short(status: Status) -> str:
    bays = (f"bay {bay['bay']} {bay['state']}" for bay in status.get("bays", ()))
    return ", ".join(bays) or "the dock did not answer"
