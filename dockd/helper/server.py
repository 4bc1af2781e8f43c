"""The helper's socket: who may ask, how much at once, and one thread for each request.

Requests come from a less trusted process, so everything about them is bounded: their size, the time
they may take to arrive, and how many are worked on. A thread that a dying card holds keeps nobody
else waiting, because each bay is a matter of its own (INV-8).
"""

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from dockd import __version__
from dockd.cameras import helper_protocol as protocol
from dockd.core.errors import DockdError, HelperError
from dockd.core.model import WipeReport
from dockd.helper.actions import Actions, Asked
from dockd.ops import events

LISTEN_FDS_START = 3
"""The first descriptor that a service manager passes (sd_listen_fds(3))."""

ARRIVAL_TIMEOUT_S = 5.0
"""How long a connection may take to bring its request, and to take its answer."""

REQUESTS_PER_BAY = 2
OTHER_REQUESTS = 8

_BACKLOG = 64
_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class _Peer:
    """Who is at the other end of a connection, as the kernel says (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int


Reply = tuple[protocol.Answer, int | None]


def listening_socket(path: str | None) -> socket.socket:
    """Return the socket that systemd has passed, or one at ``path``. Raises HelperError, OSError."""
    if path is not None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(path)
        listener.listen(_BACKLOG)
        return listener
    passed = os.environ.get("LISTEN_FDS") == "1"
    if not passed or os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise HelperError("no socket was passed: start the helper through dockd-helper.socket")
    listener = socket.socket(fileno=LISTEN_FDS_START)
    listener.set_inheritable(False)
    if (listener.family, listener.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise HelperError("the socket that was passed is not a Unix socket for messages")
    return listener


class Server:
    """Answers requests until it is stopped."""

    def __init__(self, listener: socket.socket, actions: Actions, users: Collection[int]) -> None:
        """Build over a listening socket; ``users`` are the user ids that may ask."""
        self._listener = listener
        self._actions = actions
        self._users = frozenset(users)
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._places = threading.BoundedSemaphore(
            REQUESTS_PER_BAY * len(actions.bays) + OTHER_REQUESTS
        )
        self._threads: set[threading.Thread] = set()

    def run(self) -> None:
        """Answer until :meth:`stop`; then let what is under way come to a safe point."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        self._listener.setblocking(False)
        while not self._stopping.is_set():
            poll.poll()
            self._accept()
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        for thread in list(self._threads):
            thread.join(max(0.0, deadline_s - time.monotonic()))
        left = sum(thread.is_alive() for thread in list(self._threads))
        events.HELPER_STOPPED.log(unfinished_requests=left)

    def stop(self) -> None:
        """Stop soon; may be called from a signal handler or another thread."""
        self._stopping.set()
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it went away again, or only the stop woke us
            return
        connection.settimeout(ARRIVAL_TIMEOUT_S)
        peer = _peer(connection)
        if peer.uid not in self._users:
            events.HELPER_STRANGER.log(pid=peer.pid, uid=peer.uid)
            connection.close()
            return
        if not self._places.acquire(blocking=False):
            connection.close()  # which a client takes for "later"
            return
        thread = threading.Thread(target=self._serve, args=(connection, peer), daemon=True)
        self._threads.add(thread)
        thread.start()

    def _serve(self, connection: socket.socket, peer: _Peer) -> None:
        try:
            with connection:
                self._answer_request(connection, peer)
        finally:
            self._threads.discard(threading.current_thread())
            self._places.release()

    def _answer_request(self, connection: socket.socket, peer: _Peer) -> None:
        payload: int | None = None
        try:
            data, payload = protocol.receive(connection)
            if not data:
                return
            request = protocol.read_request(data)
            answer, fd = self._reply(request, payload, _Watched(connection, self._stopping))
        except (protocol.MessageError, OSError) as error:
            words = "no request came in time" if isinstance(error, TimeoutError) else str(error)
            events.HELPER_NOT_UNDERSTOOD.log(pid=peer.pid, uid=peer.uid, reason=words)
            answer, fd = protocol.failure(HelperError(words)), None
        finally:
            if payload is not None:
                os.close(payload)
        try:
            _answer(connection, answer, fd)
        finally:
            if fd is not None:
                os.close(fd)

    def _reply(self, request: protocol.Request, payload: int | None, watched: "_Watched") -> Reply:
        """Do what is asked; every failure becomes an answer and a line in the log."""
        bay = getattr(request, "bay", None)
        try:
            return self._do(request, payload, watched)
        except DockdError as error:
            events.HELPER_REFUSED.log(bay=bay, request=request.do, reason=str(error))
            return protocol.failure(error), None
        except protocol.MessageError:
            raise
        except Exception as error:  # noqa: BLE001 - logged in full; the other bays go on
            events.HELPER_FAULT.log(bay=bay, request=request.do, error=error)
            return protocol.failure(HelperError(f"a fault in the helper: {error!r}")), None

    def _do(self, request: protocol.Request, payload: int | None, watched: "_Watched") -> Reply:
        actions = self._actions
        match request:
            case protocol.Ping():
                return protocol.Alive(version=__version__, bays=actions.bays), None
            case protocol.Open():
                fd = actions.open(request.bay, request.camera, watched.should_stop)
                return protocol.Opened(), fd
            case protocol.Wipe():
                return self._wipe(request, payload, watched)
            case protocol.Charge():
                status = actions.charge(request.bay)
                return protocol.Charging(
                    power=status.power,
                    battery_percent=status.battery_percent,
                    minimum_s=status.minimum_s,
                    wanted_percent=status.wanted_percent,
                ), None
            case protocol.SetPower():
                return protocol.Powered(power=actions.power(request.bay, request.action)), None
            case protocol.AskUnfinished():
                camera = actions.unfinished(request.bay)
                return protocol.Unfinished(
                    camera=camera.camera_id if camera else None,
                    identified_by=camera.identified_by if camera else None,
                ), None
            case protocol.AskEnded():
                ended = protocol.ended_to_bytes(actions.ended_wipes())
                return protocol.Ended(), protocol.sealed(ended)
            case protocol.Acknowledge():
                actions.acknowledge(request.visit)
                return protocol.Acknowledged(), None

    def _wipe(self, request: protocol.Wipe, payload: int | None, watched: "_Watched") -> Reply:
        if payload is None:
            raise protocol.MessageError("a wipe needs a manifest")
        asked = Asked(
            request.bay,
            request.camera,
            request.visit,
            protocol.read_sealed(payload).decode("ascii", "replace"),
            request.manifest_receipt,
            request.hold_until,
            request.key_statements,
        )
        outcome = self._actions.wipe(asked, watched.should_stop)
        if isinstance(outcome, WipeReport):
            return protocol.Wiped.of(outcome), None
        return protocol.Refused(), protocol.sealed(protocol.reasons_to_bytes(outcome))


class _Watched:
    """Tells long work whether anybody still waits for it."""

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._poll = select.poll()
        # Whatever comes after the request, a shutdown or more bytes, means: no more of it.
        self._poll.register(connection, select.POLLIN | select.POLLRDHUP)

    def should_stop(self) -> bool:
        return self._stopping.is_set() or bool(self._poll.poll(0))


def _answer(connection: socket.socket, answer: protocol.Answer, fd: int | None = None) -> None:
    # The other side may be gone; then an opened camera is let go of, and nobody is left to tell.
    with contextlib.suppress(OSError):
        protocol.send(connection, answer, fd)


def _peer(connection: socket.socket) -> _Peer:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", raw)
    return _Peer(pid, uid)
