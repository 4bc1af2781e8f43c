"""dockd's side of the connection to the privileged helper. Blocking: called in the bay's own thread."""

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from dockd.cameras import helper_protocol as protocol
from dockd.core.errors import HelperError, HelperUnavailableError
from dockd.core.interfaces import ShouldStop
from dockd.core.model import Camera, ChargeStatus, EndedWipe, Power, WipeReport, WipeRequest
from dockd.core.wipe_gate import WipeRefused

OPEN_TIMEOUT_S = 24 * 3600.0
"""Opening may have to finish the overwriting of a large medium first."""
QUICK_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
"""How long the helper may take to a safe point after it was told to stop."""

_POLL_MS = 200

A = TypeVar("A", bound=protocol.Answer)
T = TypeVar("T")


class HelperClient:
    """Asks the helper. Each call is one connection, so calls from several threads do not meet.

    Every method raises HelperUnavailableError when the helper does not answer or is busy with the
    bay, DeviceRefusedError when it will not touch the device, CameraGoneError and
    CameraUnreadableError as the camera behaves, and HelperError for everything else.
    """

    def __init__(self, path: Path) -> None:
        """Build for the helper's socket; nothing is connected yet."""
        self._path = path

    def ping(self) -> protocol.Alive:
        """Return which helper answers and which bays it serves."""
        answer, _ = self._ask(protocol.Ping(), protocol.Alive)
        return answer

    def open_volume(self, bay: str, camera: str) -> int:
        """Return a descriptor of the camera's root directory, mounted read-only and nowhere visible.

        The mount lives as long as the descriptor, which is the caller's to close. When another
        camera than ``camera`` is in the bay by now, CameraGoneError is raised. An erasing that was
        cut short on this very medium is finished first, however long that takes.
        """
        request = protocol.Open(bay=bay, camera=camera)
        _, fd = self._ask(request, protocol.Opened, timeout_s=OPEN_TIMEOUT_S)
        if fd is None:
            raise HelperError(f"bay {bay}: the helper opened the camera and sent no descriptor")
        return fd

    def wipe(
        self, bay: str, request: WipeRequest, should_stop: ShouldStop
    ) -> WipeReport | WipeRefused:
        """Have the camera erased with proof. Every descriptor of the camera must be closed before.

        Stopped on the way, it returns a report that is not verified, or raises
        HelperUnavailableError when the helper does not come to a safe point in time. Also raises
        ManifestInvalidError.
        """
        message = protocol.Wipe(
            bay=bay,
            camera=request.presence.camera.camera_id,
            visit=request.visit_id,
            manifest_receipt=request.manifest_receipt,
            hold_until=request.hold_until,
            key_statements=request.key_statements,
        )
        payload = protocol.sealed(request.manifest.encode())
        with _closing(payload), self._connected() as connection:
            self._send(connection, message, payload)
            answer, fd = self._wait(connection, OPEN_TIMEOUT_S, should_stop)
        if isinstance(answer, protocol.Refused):
            return self._payload(fd, protocol.reasons_from_bytes)
        return _only(answer, fd, protocol.Wiped).report()

    def charge(self, bay: str) -> ChargeStatus:
        """Charge the camera, with its data off where its profile allows; return how it goes."""
        answer, _ = self._ask(protocol.Charge(bay=bay), protocol.Charging)
        return ChargeStatus(
            answer.power, answer.battery_percent, answer.minimum_s, answer.wanted_percent
        )

    def power(self, bay: str, action: Literal["on", "off", "cycle"]) -> Power:
        """Switch the port's power; return what is known of it then (``unknown`` if it has no switch)."""
        answer, _ = self._ask(protocol.SetPower(bay=bay, action=action), protocol.Powered)
        return answer.power

    def unfinished(self, bay: str) -> Camera | None:
        """Return whose medium is in the bay if its permitted erasing was cut short.

        Such a medium may have no file system to know it by. Opening it finishes the erasing.
        """
        answer, _ = self._ask(protocol.AskUnfinished(bay=bay), protocol.Unfinished)
        if answer.camera is None or answer.identified_by is None:
            return None
        return Camera(answer.camera, answer.identified_by)

    def ended_wipes(self) -> Sequence[EndedWipe]:
        """Return the wipes, of any camera, that are done and not acknowledged yet."""
        _, fd = self._ask(protocol.AskEnded(), protocol.Ended)
        return self._payload(fd, protocol.ended_from_bytes)

    def acknowledge(self, visit_id: str) -> None:
        """Say that the journal holds the end of a visit's wipe, so that it is not offered again."""
        self._ask(protocol.Acknowledge(visit=visit_id), protocol.Acknowledged)

    def _ask(
        self, request: protocol.Request, kind: type[A], *, timeout_s: float = QUICK_TIMEOUT_S
    ) -> tuple[A, int | None]:
        with self._connected() as connection:
            self._send(connection, request, None)
            answer, fd = self._wait(connection, timeout_s, lambda: False)
        return _only(answer, fd, kind), fd

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(QUICK_TIMEOUT_S)
            try:
                connection.connect(os.fspath(self._path))
            except OSError as error:
                raise HelperUnavailableError(f"{self._path}: {_words(error)}") from error
            yield connection

    def _send(self, connection: socket.socket, request: protocol.Request, fd: int | None) -> None:
        try:
            protocol.send(connection, request, fd)
        except OSError as error:
            raise HelperUnavailableError(f"{self._path}: {_words(error)}") from error

    def _wait(
        self, connection: socket.socket, timeout_s: float, should_stop: ShouldStop
    ) -> tuple[protocol.Answer, int | None]:
        """Wait for the answer. Told to stop, tell the helper, and wait a little for its last word."""
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        deadline_s = time.monotonic() + timeout_s
        stopping = False
        while True:
            if not stopping and should_stop():
                stopping = True
                deadline_s = time.monotonic() + STOP_TIMEOUT_S
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
            if poll.poll(_POLL_MS):
                return self._receive(connection)
            if time.monotonic() > deadline_s:
                raise HelperUnavailableError(f"{self._path}: the helper does not answer in time")

    def _receive(self, connection: socket.socket) -> tuple[protocol.Answer, int | None]:
        try:
            data, fd = protocol.receive(connection)
        except OSError as error:
            raise HelperUnavailableError(f"{self._path}: {_words(error)}") from error
        except protocol.MessageError as error:
            raise HelperError(f"{self._path}: {error}") from error
        if not data:
            raise HelperUnavailableError(f"{self._path}: the helper has ended unexpectedly")
        try:
            return protocol.read_answer(data), fd
        except protocol.MessageError as error:
            if fd is not None:
                os.close(fd)
            raise HelperError(f"{self._path}: {error}") from error

    def _payload(self, fd: int | None, read: Callable[[bytes], T]) -> T:
        if fd is None:
            raise HelperError(f"{self._path}: an answer without what belongs to it")
        with _closing(fd):
            try:
                return read(protocol.read_sealed(fd))
            except protocol.MessageError as error:
                raise HelperError(f"{self._path}: {error}") from error


def _only(answer: protocol.Answer, fd: int | None, kind: type[A]) -> A:
    """Return the answer if it is of this kind; raise what it says otherwise."""
    if isinstance(answer, kind):
        return answer
    if fd is not None:
        os.close(fd)
    if isinstance(answer, protocol.Failed):
        raise protocol.error_of(answer)
    raise HelperError(f"the helper gave an answer to another question: {answer.answer}")


@contextlib.contextmanager
def _closing(fd: int | None) -> Iterator[None]:
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _words(error: OSError) -> str:
    return error.strerror or "timed out"
