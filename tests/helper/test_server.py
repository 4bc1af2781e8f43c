"""The helper's server: who may ask, how much at once, and that nothing said to it takes it down.

Guards INV-6 and INV-8. What would be done to cameras is done by a stand-in here.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dockd.cameras import helper_protocol as protocol
from dockd.cameras.helper_client import HelperClient
from dockd.core.errors import (
    CameraGoneError,
    HelperError,
    HelperUnavailableError,
)
from dockd.core.interfaces import ShouldStop
from dockd.core.model import (
    Camera,
    ChargeStatus,
    EndedWipe,
    IdentifiedBy,
    Power,
    Presence,
    WipeReport,
    WipeRequest,
)
from dockd.core.wipe_gate import Reason, WipeRefused
from dockd.helper import server
from dockd.helper.actions import Asked

Serve = Callable[..., HelperClient]

CAMERA = Camera("camera", IdentifiedBy.SERIAL)
NOW = datetime(2031, 3, 14, tzinfo=UTC)
REQUEST = WipeRequest(Presence("1", CAMERA, "x"), "v", "a.b.c", "r", NOW)
REPORT = WipeReport("delete", "erase", 1, 1, True, "listed", NOW)


@dataclass
class StandIn:
    """Does what a test says, in place of dockd.helper.actions.Actions."""

    bays: tuple[str, ...] = ("1", "2")
    fault: Exception | None = None
    outcome: WipeReport | WipeRefused = REPORT
    asked: list[Asked] = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    told_to_stop: threading.Event = field(default_factory=threading.Event)
    wait_in: str | None = None
    ended: list[EndedWipe] = field(default_factory=list)

    def _may_wait(self, bay: str) -> None:
        if bay == self.wait_in:
            self.held.set()
            assert self.holding.wait(20)
        if self.fault is not None:
            raise self.fault

    def open(self, bay: str, _camera: str, should_stop: ShouldStop) -> int:
        self._may_wait(bay)
        return os.open("/", os.O_PATH)

    def wipe(self, asked: Asked, should_stop: ShouldStop) -> WipeReport | WipeRefused:
        self.asked.append(asked)
        if asked.bay == "stop":
            self.held.set()
            while not should_stop():
                pass
            self.told_to_stop.set()
        self._may_wait(asked.bay)
        return self.outcome

    def charge(self, bay: str) -> ChargeStatus:
        self._may_wait(bay)
        return ChargeStatus(Power.ON, 50, 60.0, 80)

    def power(self, bay: str, action: str) -> Power:
        self._may_wait(bay)
        return Power.OFF if action == "off" else Power.ON

    def ended_wipes(self) -> list[EndedWipe]:
        return self.ended

    def acknowledge(self, visit: str) -> None:
        self.ended = [one for one in self.ended if one.visit_id != visit]

    def unfinished(self, bay: str) -> Camera | None:
        self._may_wait(bay)
        return CAMERA if bay == "1" else None


def never() -> bool:
    return False


def connected(tmp_path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(20)
    connection.connect(str(tmp_path / "helper.sock"))
    return connection


def open_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def closed_again(before: int, within_s: float = 10.0) -> bool:
    """Whether no more is open than before; a thread that has answered may be about to close its end."""
    deadline_s = time.monotonic() + within_s
    while open_fds() > before:
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.001)
    return True


def test_every_question_gets_its_answer(serve: Serve) -> None:
    actions = StandIn()
    client = serve(actions)
    assert client.ping().bays == ("1", "2")
    os.close(client.open_volume("1", "camera"))
    assert client.wipe("1", REQUEST, never) == REPORT
    assert actions.asked == [Asked("1", "camera", "v", "a.b.c", "r", NOW)]
    assert client.charge("1") == ChargeStatus(Power.ON, 50, 60.0, 80)
    assert client.power("1", "off") is Power.OFF
    assert client.unfinished("1") == CAMERA
    assert client.unfinished("2") is None


def test_wipes_that_are_done_are_offered_until_they_are_acknowledged(serve: Serve) -> None:
    """INV-4: whatever their number and the length of what was preserved."""
    report = replace(REPORT, preserved=(b"\xff" * 255,) * 200, resumed=True)
    first, second = (EndedWipe(visit, "camera", report) for visit in "vw")
    client = serve(StandIn(ended=[first, second]))
    assert client.ended_wipes() == [first, second]
    client.acknowledge("v")
    assert client.ended_wipes() == [second]


def test_a_refusal_of_a_hundred_thousand_reasons_arrives_whole(serve: Serve) -> None:
    refused = WipeRefused(tuple(Reason(5, "new", b"%d" % n) for n in range(100_000)))
    assert serve(StandIn(outcome=refused)).wipe("1", REQUEST, never) == refused


def test_a_large_manifest_arrives_whole(serve: Serve) -> None:
    actions = StandIn()
    manifest = "m" * (5 << 20)
    serve(actions).wipe("1", WipeRequest(REQUEST.presence, "v", manifest, "r", NOW), never)
    assert actions.asked[0].manifest == manifest


@pytest.mark.parametrize("fault", [CameraGoneError("pulled"), ValueError("a mistake")])
def test_a_fault_is_an_answer_and_the_next_request_is_served(
    serve: Serve, fault: Exception
) -> None:
    actions = StandIn(fault=fault)
    client = serve(actions)
    with pytest.raises(CameraGoneError if isinstance(fault, CameraGoneError) else HelperError):
        client.charge("1")
    actions.fault = None
    client.charge("1")


def test_a_wipe_without_a_manifest_is_refused(serve: Serve, tmp_path: Path) -> None:
    actions = StandIn()
    serve(actions)
    with connected(tmp_path) as connection:
        protocol.send(
            connection,
            protocol.Wipe(bay="1", camera="c", visit="v", manifest_receipt="r", hold_until=NOW),
        )
        answer = protocol.read_answer(protocol.receive(connection)[0])
    assert isinstance(answer, protocol.Failed)
    assert actions.asked == []


def test_a_manifest_that_can_still_be_changed_is_refused(serve: Serve, tmp_path: Path) -> None:
    actions = StandIn()
    serve(actions)
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    with connected(tmp_path) as connection:
        protocol.send(
            connection,
            protocol.Wipe(bay="1", camera="c", visit="v", manifest_receipt="r", hold_until=NOW),
            fd,
        )
        answer = protocol.read_answer(protocol.receive(connection)[0])
    os.close(fd)
    assert isinstance(answer, protocol.Failed)
    assert "not sealed" in answer.text
    assert actions.asked == []


@pytest.fixture
def fuzzed(serve: Serve, tmp_path: Path) -> tuple[HelperClient, StandIn, Path]:
    actions = StandIn()
    return serve(actions), actions, tmp_path


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.binary(min_size=1, max_size=2000), fds=st.integers(0, 3))
def test_no_message_takes_the_helper_down(
    fuzzed: tuple[HelperClient, StandIn, Path], data: bytes, fds: int
) -> None:
    client, actions, tmp_path = fuzzed
    with connected(tmp_path) as connection:
        socket.send_fds(connection, [data], [0] * fds)
        answer = protocol.read_answer(protocol.receive(connection)[0])
    assert isinstance(answer, protocol.Failed)
    assert client.ping().bays == actions.bays
    assert actions.asked == []


def test_nothing_stays_open_behind_bad_messages(serve: Serve, tmp_path: Path) -> None:
    client = serve(StandIn())
    client.ping()
    before = open_fds()
    for data, fds in ((b"{", 0), (b"{}", 1), (b"x" * 70_000, 2), (b"[]", 9)):
        with connected(tmp_path) as connection:
            socket.send_fds(connection, [data], [0] * fds)
            assert protocol.receive(connection)[0]
            assert protocol.receive(connection)[0] == b"", "the helper has closed its end"
    os.close(client.open_volume("1", "camera"))
    client.ping()
    with connected(tmp_path):
        pass
    client.ping()
    assert closed_again(before)


def test_a_process_of_another_user_is_turned_away(serve: Serve, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: only root can become another user")
    actions = StandIn()
    serve(actions, users=(0,))
    path = tmp_path / "helper.sock"
    path.chmod(0o777)
    for parent in path.parents:
        if parent.stat().st_uid == 0 and parent != Path("/") and parent != Path("/tmp"):
            parent.chmod(0o711)
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            HelperClient(path).charge("1")
        except HelperUnavailableError as error:
            os._exit(3 if isinstance(error.__cause__, PermissionError) else 0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_client_that_says_nothing_is_let_go(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ARRIVAL_TIMEOUT_S", 0.05)
    client = serve(StandIn())
    with connected(tmp_path) as silent:
        answer = protocol.read_answer(protocol.receive(silent)[0])
        assert isinstance(answer, protocol.Failed)
        assert "no request came in time" in answer.text
    client.ping()


def test_a_bay_that_hangs_keeps_no_other_waiting(serve: Serve) -> None:
    """INV-8."""
    actions = StandIn(wait_in="1")
    client = serve(actions)
    hung = threading.Thread(target=lambda: client.charge("1"))
    hung.start()
    try:
        assert actions.held.wait(20)
        assert client.power("2", "on") is Power.ON
    finally:
        actions.holding.set()
        hung.join()


def test_more_requests_than_there_is_room_for_are_told_to_wait(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "OTHER_REQUESTS", 0)
    monkeypatch.setattr(server, "REQUESTS_PER_BAY", 1)
    actions = StandIn(bays=("1",), wait_in="1")
    client = serve(actions)
    hung = threading.Thread(target=lambda: client.charge("1"))
    hung.start()
    try:
        assert actions.held.wait(20)
        with pytest.raises(HelperUnavailableError):
            client.ping()
    finally:
        actions.holding.set()
        hung.join()


def test_a_client_that_stops_is_noticed_and_still_gets_the_report(serve: Serve) -> None:
    actions = StandIn()
    client = serve(actions)
    assert client.wipe("stop", REQUEST, actions.held.is_set) == REPORT
    assert actions.told_to_stop.is_set()


def test_a_client_that_is_gone_is_noticed(serve: Serve, tmp_path: Path) -> None:
    actions = StandIn()
    serve(actions)
    payload = protocol.sealed(b"a.b.c")
    with connected(tmp_path) as connection:
        protocol.send(
            connection,
            protocol.Wipe(bay="stop", camera="c", visit="v", manifest_receipt="r", hold_until=NOW),
            payload,
        )
        assert actions.held.wait(20)
    os.close(payload)
    assert actions.told_to_stop.wait(20)


def test_a_helper_that_is_stopped_stops_what_is_under_way(tmp_path: Path) -> None:
    actions: Any = StandIn()
    with server.listening_socket(str(tmp_path / "helper.sock")) as listener:
        running = server.Server(listener, actions, {os.getuid()})
        thread = threading.Thread(target=running.run)
        thread.start()
        results: list[object] = []
        client = HelperClient(tmp_path / "helper.sock")
        asking = threading.Thread(
            target=lambda: results.append(client.wipe("stop", REQUEST, never))
        )
        asking.start()
        assert actions.held.wait(20)
        running.stop()
        thread.join(20)
        asking.join(20)
    assert results == [REPORT]
    assert not thread.is_alive()


def test_without_a_helper_its_absence_is_named(tmp_path: Path) -> None:
    with pytest.raises(HelperUnavailableError, match="No such file"):
        HelperClient(tmp_path / "none.sock").ping()


def test_an_answer_to_another_question_is_an_error(tmp_path: Path) -> None:
    def lie(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            protocol.receive(connection)
            protocol.send(connection, protocol.Powered(power=Power.ON))

    with server.listening_socket(str(tmp_path / "helper.sock")) as listener:
        thread = threading.Thread(target=lie, args=(listener,))
        thread.start()
        with pytest.raises(HelperError, match="another question"):
            HelperClient(tmp_path / "helper.sock").charge("1")
        thread.join()


def test_a_helper_started_without_a_socket_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    with pytest.raises(HelperError, match=r"dockd-helper\.socket"):
        server.listening_socket(None)
