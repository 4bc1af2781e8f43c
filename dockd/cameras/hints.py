"""Listens to udev and says when something may have changed. Nothing of what udev says is believed.

The monitor hears what udev has finished with (group "udev"), never the kernel's own words. When more
happens than its queue can hold, the kernel says so once (ENOBUFS); that is a hint like any other.
"""

import asyncio
import contextlib
import errno
from collections.abc import AsyncGenerator, Callable, Iterator

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

NewMonitor = Callable[[], pyudev.Monitor]


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
    """A monitor whose queue is emptied whenever there is something in it."""

    def __init__(self, monitor: pyudev.Monitor) -> None:
        self.changed = asyncio.Event()
        self.changed.set()
        self.error: OSError | None = None
        self._monitor = monitor

    def drain(self) -> None:
        """Empty the queue, up to a bound; what is left in it wakes us again."""
        self.changed.set()
        try:
            for _ in range(_AT_ONCE):
                if self._monitor.poll(timeout=0) is None:
                    return
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                events.UDEV_OVERRUN.log()
            else:
                self.error = error


@contextlib.contextmanager
def _listening(monitor: pyudev.Monitor) -> Iterator[_Ears]:
    loop, fd = asyncio.get_running_loop(), monitor.fileno()
    ears = _Ears(monitor)
    loop.add_reader(fd, ears.drain)
    try:
        yield ears
    finally:
        loop.remove_reader(fd)
