"""Listens to udev and says when something may have changed. Nothing of what udev says is believed.

The monitor hears what udev has finished with (group "udev"), never the kernel's own words. When more
happens than its queue can hold, the kernel says so once (ENOBUFS); that is a hint like any other.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Protocol

import pyudev

from dockd.ops import events

RECEIVE_BUFFER_BYTES = 16 << 20
"""Room for a storm of events. Without the privilege for so much, the kernel's own limit stays."""

QUIET_S = 0.1
"""How long to let a burst go on before telling of it again: one plug is a dozen events."""

RETRY_S = 30.0
"""How long to wait before listening anew, when udev could not be listened to."""

_AT_ONCE = 1000
"""The most events taken from the queue before the event loop has its turn."""


class Monitor(Protocol):
    """A pyudev.Monitor; it stops to listen when nobody holds it any more."""

    def fileno(self) -> int:
        """Return the descriptor of its socket."""


NewMonitor = Callable[[], Monitor]


def new_monitor() -> pyudev.Monitor:
    """Return a monitor of USB devices and disks that has begun to listen. Raises OSError."""
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev")
    monitor.filter_by("usb", "usb_device")
    monitor.filter_by("block")
    with contextlib.suppress(OSError):
        monitor.set_receive_buffer_size(RECEIVE_BUFFER_BYTES)
    monitor.start()
    return monitor


async def udev_hints(make_monitor: NewMonitor = new_monitor) -> AsyncGenerator[None, None]:
    """Yield once when listening has begun, then after each burst of events.

    Where udev cannot be listened to, that is logged once and tried again; whoever looks every few
    seconds anyway misses nothing.
    """
    told = False
    while True:
        try:
            with _listening(await asyncio.to_thread(make_monitor)) as ears:
                told = False
                while ears.error is None:
                    await ears.changed.wait()
                    ears.changed.clear()
                    yield
                    await asyncio.sleep(QUIET_S)
                raise ears.error
        except OSError as error:
            if not told:
                told = True
                events.UDEV_UNHEARD.log(reason=str(error))
        await asyncio.sleep(RETRY_S)


class _Ears:
    """A monitor's socket, which is emptied whenever there is something in it.

    The messages are thrown away unread. pyudev's own ``poll`` would not do: it reports an overrun
    as an error without number, again and again, because it does not take it from the socket.
    """

    def __init__(self, queue: socket.socket) -> None:
        self.changed = asyncio.Event()
        self.changed.set()
        self.error: OSError | None = None
        self._queue = queue

    def drain(self) -> None:
        """Empty the queue, up to a bound; what is left in it wakes us again."""
        self.changed.set()
        try:
            for _ in range(_AT_ONCE):
                self._queue.recv(1)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                events.UDEV_OVERRUN.log()
            else:
                self.error = error


@contextlib.contextmanager
def _listening(monitor: Monitor) -> Iterator[_Ears]:
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=os.dup(monitor.fileno())) as queue:
        queue.setblocking(False)
        ears = _Ears(queue)
        loop.add_reader(queue, ears.drain)
        try:
            yield ears
        finally:
            loop.remove_reader(queue)
