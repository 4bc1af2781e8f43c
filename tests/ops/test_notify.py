"""What the service manager is told, by the module and by the daemon."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.model import Camera, IdentifiedBy, Presence
from dockd.daemon import run_daemon
from dockd.dock import Dock
from dockd.evidence.keys import SigningKey
from dockd.ops import notify
from tests.simulated.dock import SimulatedDock


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The other end: what a service manager listens on."""
    name = f"@dockd-test-{tmp_path}"[:100] if request.param == "abstract" else f"{tmp_path}/notify"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.setblocking(False)
        yield listening


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_the_manager_hears_that_we_live_and_how(manager: socket.socket) -> None:
    notify.alive("2 bays:\n1 ready")
    assert heard(manager) == ["READY=1", "WATCHDOG=1", "STATUS=2 bays: 1 ready"]
    notify.stopping()
    assert heard(manager) == ["STOPPING=1", "STATUS=stopping"]


def test_a_manager_that_takes_nothing_holds_nobody_up(manager: socket.socket) -> None:
    for _ in range(1_000):
        notify.alive("more than its queue holds")
    manager.close()
    notify.alive("nobody is there")


def test_without_a_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(socket, "socket", None)
    notify.alive("nobody asked")


def config_file(directory: Path, *, bays: bool) -> Path:
    (directory / "bay").mkdir()
    (directory / "key.pem").write_bytes(SigningKey(Ed25519PrivateKey.generate()).public.pem())
    file = directory / "dockd.toml"
    text = '[dock]\nname = "d"\nstate_dir = "state"\n[cameras]\nreconcile_s = 0.01\n'
    if bays:
        text += '[target]\nurl = "http://127.0.0.1:9/"\nstore_id = "s"\nreceipt_key = "key.pem"\n'
        text += '[[bay]]\nname = "1"\nfolder = "bay"\n'
    file.write_text(text)
    return file


@pytest.mark.parametrize("manager", ["path"], indirect=True)
@pytest.mark.parametrize(
    ("bays", "status"), [(True, "1 bays: 1 empty"), (False, "not set up yet, see dockd doctor")]
)
async def test_the_daemon_is_ready_then_alive_then_stopping(
    tmp_path: Path, manager: socket.socket, bays: bool, status: str
) -> None:
    daemon = asyncio.create_task(run_daemon(config_file(tmp_path, bays=bays)))
    loop = asyncio.get_running_loop()
    for _ in range(3):
        said = (await loop.sock_recv(manager, 4096)).decode().split("\n")
        assert said[:2] == ["READY=1", "WATCHDOG=1"]
        assert said[2].startswith(f"STATUS={status}")
    os.kill(os.getpid(), signal.SIGTERM)
    await daemon
    lines: list[str] = []
    while "STOPPING=1" not in lines:
        lines = heard(manager)


class HangingSource:
    """A source whose second enumeration, and whose every opening, hang until they are let go."""

    bays = ("1",)
    watches_when_ready = False

    def __init__(self, *, hang: str) -> None:
        self.hang = hang
        self.looks = 0
        self.hanging, self.let_go = threading.Event(), threading.Event()

    def enumerate_cameras(self) -> Mapping[str, Sequence[Presence]]:
        self.looks += 1
        if self.hang == "looking" and self.looks == 2:
            self.hanging.set()
            self.let_go.wait()
        return {"1": [Presence("1", Camera("c", IdentifiedBy.SERIAL), "here")]}

    async def hints(self) -> AsyncGenerator[None, None]:
        await asyncio.Event().wait()
        yield

    def is_half_erased(self, _: Presence) -> bool:
        return False

    def open_camera(self, _: Presence) -> Any:
        self.hanging.set()
        self.let_go.wait()
        raise OSError("let go")


async def looks_while_hanging(source: HangingSource, template: SimulatedDock) -> int:
    """Run a dock with real threads; return how often the manager was told, in the end."""
    told = 0

    def reconciled(_: Dock) -> None:
        nonlocal told
        told += 1

    cameras = template.config.cameras.model_copy(update={"reconcile_s": 0.001})
    template.config = template.config.model_copy(update={"cameras": cameras})
    dock = Dock(template.dock.services, [cast("Any", source)], reconciled=reconciled)
    running = asyncio.create_task(dock.run())
    try:
        await asyncio.to_thread(source.hanging.wait)
        before = told
        for _ in range(30):
            await asyncio.sleep(0.001)
        return told - before
    finally:
        source.let_go.set()
        running.cancel()
        await asyncio.wait({running})


async def test_a_look_that_hangs_lets_the_watchdog_bite() -> None:
    async with SimulatedDock(bays=()) as template:
        assert await looks_while_hanging(HangingSource(hang="looking"), template) == 0


async def test_a_bay_that_hangs_does_not() -> None:
    """INV-8."""
    async with SimulatedDock(bays=()) as template:
        assert await looks_while_hanging(HangingSource(hang="opening"), template) > 3
