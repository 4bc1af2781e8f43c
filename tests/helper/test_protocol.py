"""The words on the helper's socket: whatever comes in, only what is a request is taken for one."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.cameras import helper_protocol as protocol
from dockd.core.errors import (
    CameraGoneError,
    CameraUnreadableError,
    DeviceRefusedError,
    DockdError,
    HelperError,
    HelperUnavailableError,
    ManifestInvalidError,
)
from dockd.core.model import EndedWipe, IdentifiedBy, Power, WipeReport
from dockd.core.wipe_gate import Reason, WipeRefused

Pair = tuple[socket.socket, socket.socket]

REPORT = WipeReport(
    "delete",
    "erase",
    3,
    9,
    True,
    "listed again",
    datetime(2031, 3, 14, tzinfo=UTC),
    (b"\xff",),
    "x 1",
    resumed=True,
)
REQUESTS: Sequence[protocol.Request] = (
    protocol.Ping(),
    protocol.Open(bay="1", camera="c"),
    protocol.Wipe(
        bay="1", camera="c", visit="v", manifest_receipt="r", hold_until=datetime(2031, 1, 1, tzinfo=UTC)
    ),
    protocol.Charge(bay="1"),
    protocol.SetPower(bay="1", action="cycle"),
    protocol.AskUnfinished(bay="1"),
    protocol.AskEnded(),
    protocol.Acknowledge(visit="v"),
)  # fmt: skip
ANSWERS: Sequence[protocol.Answer] = (
    protocol.Alive(version="1", bays=("1", "2")),
    protocol.Opened(),
    protocol.Wiped.of(REPORT),
    protocol.Refused(),
    protocol.Charging(power=Power.UNKNOWN, battery_percent=None, minimum_s=0.5, wanted_percent=80),
    protocol.Powered(power=Power.ON),
    protocol.Unfinished(camera="c", identified_by=IdentifiedBy.SERIAL),
    protocol.Ended(),
    protocol.Acknowledged(),
    protocol.Failed(kind="busy", text="later"),
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.do)
def test_requests_arrive_as_they_were_sent(pair: Pair, request_: protocol.Request) -> None:
    protocol.send(pair[0], request_)
    data, fd = protocol.receive(pair[1])
    assert (protocol.read_request(data), fd) == (request_, None)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda one: one.answer)
def test_answers_arrive_as_they_were_sent(pair: Pair, answer: protocol.Answer) -> None:
    protocol.send(pair[0], answer)
    data, fd = protocol.receive(pair[1])
    assert (protocol.read_answer(data), fd) == (answer, None)


def test_a_report_keeps_its_exact_names() -> None:
    assert protocol.Wiped.of(REPORT).report() == REPORT


@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: st.dictionaries(st.sampled_from(["do", "answer", "bay", "camera", "x"]), inner),
).map(lambda value: repr(value).replace("'", '"').encode()))  # fmt: skip
def test_anything_else_is_no_message(data: bytes) -> None:
    for read in (protocol.read_request, protocol.read_answer):
        with pytest.raises(protocol.MessageError):
            read(data)


@pytest.mark.parametrize(
    "text",
    [
        '{"do":"open","bay":"1","camera":"c","path":"/dev/sda"}',
        '{"do":"open","bay":1,"camera":"c"}',
        '{"do":"power","bay":"1","action":"explode"}',
        '{"do":"wipe","bay":"1","camera":"c","visit":"v","manifest_receipt":"r","hold_until":"2031-01-01T00:00:00"}',
        '{"do":"charge","bay":"' + "1" * 1001 + '"}',
        '{"do":"mount","bay":"1"}',
    ],
)
def test_nearly_a_request_is_none(text: str) -> None:
    with pytest.raises(protocol.MessageError):
        protocol.read_request(text.encode())


@given(st.lists(st.tuples(st.integers(1, 15), st.text(), st.none() | st.binary()), min_size=1))
def test_the_reasons_of_a_refusal_keep_every_byte(
    reasons: list[tuple[int, str, bytes | None]],
) -> None:
    refused = WipeRefused(tuple(Reason(*reason) for reason in reasons))
    assert protocol.reasons_from_bytes(protocol.reasons_to_bytes(refused)) == refused


@given(st.binary(max_size=100) | st.just(b"[]"))
def test_other_bytes_are_no_reasons(data: bytes) -> None:
    with pytest.raises(protocol.MessageError):
        protocol.reasons_from_bytes(data)


def test_wipes_that_are_done_keep_every_byte() -> None:
    ended = [EndedWipe("v", "c", REPORT)]
    assert protocol.ended_from_bytes(protocol.ended_to_bytes(ended)) == ended
    with pytest.raises(protocol.MessageError):
        protocol.ended_from_bytes(b'[{"visit": "v"}]')


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (CameraGoneError("x"), CameraGoneError),
        (CameraUnreadableError("x"), CameraUnreadableError),
        (DeviceRefusedError("x"), DeviceRefusedError),
        (HelperUnavailableError("x"), HelperUnavailableError),
        (ManifestInvalidError("x"), ManifestInvalidError),
        (HelperError("x"), HelperError),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_errors_cross_the_socket(error: DockdError, type_: type[DockdError]) -> None:
    arrived = protocol.error_of(protocol.failure(error))
    assert type(arrived) is type_
    assert str(arrived) == "x"


def test_a_sealed_memfd_arrives_whole_and_cannot_be_changed(pair: Pair) -> None:
    content = os.urandom(3 << 20)
    fd = protocol.sealed(content)
    protocol.send(pair[0], protocol.Ping(), fd)
    data, received = protocol.receive(pair[1])
    assert protocol.read_request(data) == protocol.Ping()
    assert received is not None
    assert not os.get_inheritable(received)
    assert protocol.read_sealed(received) == content
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(received, 0)
    os.close(fd)
    os.close(received)


def test_what_its_sender_could_still_change_is_not_read() -> None:
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(fd, b"manifest")
    with pytest.raises(protocol.MessageError, match="not sealed"):
        protocol.read_sealed(fd)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
    with pytest.raises(protocol.MessageError, match="not sealed"):
        protocol.read_sealed(fd)
    os.close(fd)


def test_a_descriptor_of_something_else_is_not_read() -> None:
    read, write = os.pipe()
    with tempfile.TemporaryFile() as file:
        for fd in (read, file.fileno()):
            with pytest.raises(protocol.MessageError):
                protocol.read_sealed(fd)
    os.close(read)
    os.close(write)


def test_a_payload_beyond_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LARGEST_PAYLOAD_BYTES", 10)
    fd = protocol.sealed(b"x" * 11)
    with pytest.raises(protocol.MessageError, match="far too many"):
        protocol.read_sealed(fd)
    os.close(fd)


def test_a_message_beyond_the_limit_is_refused(pair: Pair) -> None:
    pair[0].send(b" " * (protocol.LARGEST_MESSAGE_BYTES + 1))
    with pytest.raises(protocol.MessageError, match="too large"):
        protocol.receive(pair[1])


@pytest.mark.parametrize("count", [2, 10])
def test_more_than_one_descriptor_is_refused_and_closed(pair: Pair, count: int) -> None:
    fds = [os.dup(0) for _ in range(count)]
    socket.send_fds(pair[0], [b"{}"], fds)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names is all
    with pytest.raises(protocol.MessageError):
        protocol.receive(pair[1])
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above
    for fd in fds:
        os.close(fd)


def test_a_closed_connection_is_no_message(pair: Pair) -> None:
    pair[0].close()
    assert protocol.receive(pair[1]) == (b"", None)
