"""Hints from udev: simulated devices, a flooded queue, and nothing left behind."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import pyudev
from structlog.testing import capture_logs

from dockd.cameras import hints
from dockd.cameras.hints import udev_hints
from tests.simulated.udev import HOST, Mocked, missing, mocked_system

SOON_S = 5.0


def open_files() -> set[str]:
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{fd.name} {os.readlink(fd)}")  # noqa: PTH115 - what it says, whole
    return {name for name in found if "socket:" in name}


def test_a_plug_is_a_hint_and_nothing_stays_open(mocked: Mocked) -> None:
    """INV-3: cancellation and closing leave no descriptor behind."""
    assert mocked.run(_hear_a_plug) == ["listening", "told", "nothing new", set()]


def _hear_a_plug() -> list[object]:
    async def listen() -> list[object]:
        heard: list[object] = []
        with mocked_system("ordinary-camera") as bed:
            bed.tell(f"/sys{HOST}/1-1", "change")  # umockdev opens a socket for its first word
            before = open_files()
            async with contextlib.aclosing(udev_hints()) as hear, asyncio.timeout(SOON_S):
                await anext(hear)
                heard.append("listening")
                for action in ("add", "bind", "change"):
                    bed.tell(f"/sys{HOST}/1-1", action)
                await anext(hear)
                heard.append("told")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(3 * hints.QUIET_S):
                        await anext(hear)
                        heard.append("told of one burst twice")
                heard.append("nothing new")
            heard.append(open_files() - before)
        return heard

    return asyncio.run(listen())


class PairMonitor:
    """A monitor over a pair of sockets; each message that arrives is an event."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def fileno(self) -> int:
        return self.ours.fileno()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def monitors() -> Iterator[list[PairMonitor]]:
    made: list[PairMonitor] = []
    yield made
    for monitor in made:
        monitor.close()


async def test_a_monitor_that_breaks_is_made_anew(
    monitors: list[PairMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "RETRY_S", 0.0)
    attempts = iter([OSError("no udev here"), OSError("still none"), None, None])

    def make() -> PairMonitor:
        if (error := next(attempts)) is not None:
            raise error
        monitors.append(PairMonitor())
        return monitors[-1]

    with capture_logs() as lines:
        async with contextlib.aclosing(udev_hints(make)) as hear, asyncio.timeout(SOON_S):
            await anext(hear)
            _break(monitors[0])
            await anext(hear)
            monitors[1].theirs.send(b"x")
            await anext(hear)
    assert [line["event"] for line in lines] == ["udev.unheard", "udev.unheard"]
    assert [line["reason"] for line in lines] == [
        "no udev here",
        "[Errno 104] Connection reset by peer",
    ]


def _break(monitor: PairMonitor) -> None:
    """Make the next read fail: a peer that goes with messages unread resets the connection."""
    monitor.ours.send(b"x")
    monitor.theirs.close()


async def test_cancelled_while_waiting_it_leaves_nothing_open(
    monitors: list[PairMonitor],
) -> None:
    monitor = PairMonitor()
    monitors.append(monitor)
    before = open_files()
    listening = asyncio.Event()

    async def listen() -> None:
        async with contextlib.aclosing(udev_hints(lambda: monitor)) as hear:
            async for _ in hear:
                listening.set()

    task = asyncio.create_task(listen())
    async with asyncio.timeout(SOON_S):
        await listening.wait()
        assert open_files() != before
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert open_files() == before


async def test_a_storm_over_a_real_netlink_socket() -> None:
    """More events than the queue holds: the kernel's own ENOBUFS is survived, and events go on."""
    before = open_files()
    with capture_logs() as lines, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as udev:
        async with contextlib.aclosing(udev_hints(_small_monitor)) as hear:
            async with asyncio.timeout(SOON_S):
                await anext(hear)
                try:
                    _storm(udev, 500)
                except PermissionError:
                    missing("only root may speak in udev's place")
                await anext(hear)
                _storm(udev, 1)
                await anext(hear)
    assert "udev.overrun" in {line["event"] for line in lines}
    assert open_files() == before


def _small_monitor() -> pyudev.Monitor:
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev")
    monitor.start()
    monitor.set_receive_buffer_size(4096)
    return monitor


def _storm(udev: socket.socket, count: int) -> None:
    message = b"libudev\0" + struct.pack(">I", 0xFEEDCAFE) + bytes(1000)
    for _ in range(count):
        udev.sendto(message, (0, 2))
