"""A helper that serves a loop camera, in this process or in one of its own."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dockd.cameras.helper_client import HelperClient
from dockd.cameras.wiping import WipeAuthority
from dockd.core.model import Camera, IdentifiedBy, Presence, WipeRequest
from dockd.helper import image
from dockd.helper.actions import Actions
from dockd.helper.bays import Bays
from dockd.helper.ledger import Ledger
from dockd.helper.power import Port
from dockd.helper.server import Server, listening_socket
from tests.helper import loops
from tests.simulated.clock import START
from tests.simulated.proofs import Proofs

BAY = "3"
PRESENCE = Presence(BAY, Camera(loops.CAMERA, IdentifiedBy.SERIAL), "usb:1-1.4/7")


@dataclass
class Rig:
    """A camera in a bay, the helper's parts over it, and a store and a dock that prove."""

    tmp: Path
    camera: loops.LoopCamera
    proofs: Proofs = field(default_factory=Proofs)
    method: str = "delete"
    tables: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.tmp / "state"

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.state / "wipes")

    def actions(self, now: Callable[[], datetime] = lambda: START) -> Actions:
        verifier = self.proofs.authority.verifier
        bays = Bays(
            {BAY: loops.PORT},
            [loops.profile(self.method, **self.tables)],
            self.camera.find,
            lambda port: Port(port, sysfs=self.tmp / "sys"),
        )
        authority = WipeAuthority(self.proofs.dock, None, verifier)
        return Actions(bays, authority, self.ledger, (0, 0), now)

    def request(
        self, contents: Mapping[bytes, bytes] | None = None, presence: Presence = PRESENCE
    ) -> WipeRequest:
        return self.proofs.request_for(presence, contents or loops.CONTENTS)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A rig whose camera is plugged in, write-blocked by nobody yet."""
    if (why := loops.why_not_here()) is not None:
        pytest.skip(why)
    monkeypatch.setitem(image.MAKERS, "ext4", loops.EXT4)
    camera = loops.LoopCamera(tmp_path / "camera.img")
    camera.make(loops.CONTENTS)
    with camera.plugged():
        yield Rig(tmp_path, camera)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Any], HelperClient]]:
    """Run a server over actions in a thread, and return a client of it."""
    with ExitStack() as stack:

        def start(actions: Any, users: tuple[int, ...] = (os.getuid(),)) -> HelperClient:
            path = tmp_path / "helper.sock"
            listener = stack.enter_context(listening_socket(str(path)))
            server = Server(listener, actions, users)
            thread = threading.Thread(target=server.run)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.stop)
            return HelperClient(path)

        yield start


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        one.settimeout(5)
        two.settimeout(5)
        yield one, two
