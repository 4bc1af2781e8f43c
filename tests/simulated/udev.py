"""USB devices that are not there: umockdev's testbed, for unmodified pyudev.

umockdev replaces /sys and udev's sockets for one process, and has to be loaded before it starts. So the
testbed lives in a process of its own, and tests have functions run there (``Mocked.run``). Recordings
are in tests/cameras/devices; docs/profiles.md says how to make one.
"""

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from ctypes.util import find_library
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import pytest
import pyudev

from dockd.cameras.discovery import UsbDevice, find_devices

P = ParamSpec("P")
T = TypeVar("T")

RECORDINGS = Path(__file__).parent.parent / "cameras" / "devices"
HOST = "/devices/pci0000:00/0000:00:14.0/usb1"
"""The host controller that all recordings share."""

_PRELOAD = "libumockdev-preload.so.0"


def why_not() -> str | None:
    """Return why devices cannot be simulated here, or None."""
    if find_library("umockdev") is None:
        return "umockdev is not installed (Debian: apt install umockdev)"
    return None


def missing(reason: str) -> NoReturn:
    """Skip a test that cannot run here, or fail it where every test has to run."""
    if os.environ.get("DOCKD_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Testbed:
    """A system in which only the devices exist that were added. One at a time in a process."""

    __test__ = False

    def __init__(self, *recordings: str) -> None:
        """Begin with these recordings, by their names."""
        self._library = ctypes.CDLL("libumockdev.so.0")
        self._library.umockdev_testbed_new.restype = ctypes.c_void_p
        self._library.umockdev_testbed_get_root_dir.restype = ctypes.c_char_p
        self._bed = ctypes.c_void_p(self._library.umockdev_testbed_new())
        self.root = Path(os.fsdecode(self._library.umockdev_testbed_get_root_dir(self._bed)))
        for name in recordings:
            self.add(name)

    def add(self, name: str) -> None:
        """Add the devices of a recording, without a word to anybody."""
        self.add_text((RECORDINGS / f"{name}.umockdev").read_text(encoding="utf-8"))

    def add_text(self, text: str) -> None:
        """Add devices in the form of a recording.

        umockdev-record leaves out that udev was done with a device. Where a recording never says so,
        udev was done with all of them.
        """
        if "USEC_INITIALIZED" not in text:
            text = re.sub(r"^(P: .*)$", r"\1\nE: USEC_INITIALIZED=1", text, flags=re.MULTILINE)
        failed = ctypes.c_void_p()
        added = self._library.umockdev_testbed_add_from_string(
            self._bed, text.encode(), ctypes.byref(failed)
        )
        if not added:
            raise ValueError("umockdev does not take this description")

    def tell(self, path: str, action: str) -> None:
        """Let udev announce something about a device."""
        self._library.umockdev_testbed_uevent(self._bed, path.encode(), action.encode())

    def close(self) -> None:
        """Take everything away."""
        self._library.g_object_unref(self._bed)


@contextmanager
def mocked_system(*recordings: str) -> Iterator[Testbed]:
    """Hold a testbed for the time of a block; only in a mocked process."""
    bed = Testbed(*recordings)
    try:
        yield bed
    finally:
        bed.close()


class Mocked:
    """The process in which only simulated devices exist."""

    def __init__(self) -> None:
        """Start it. The process is spawned, so functions to run must be importable."""
        self._pool = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
        before = os.environ.get("LD_PRELOAD")
        os.environ["LD_PRELOAD"] = _PRELOAD
        try:
            self._pool.submit(os.getpid).result()
        finally:
            if before is None:
                del os.environ["LD_PRELOAD"]
            else:
                os.environ["LD_PRELOAD"] = before

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an importable function there and return what it returns."""
        return self._pool.submit(work, *args, **kwargs).result(timeout=60)

    def devices(self, *recordings: str) -> list[UsbDevice]:
        """Return what discovery finds among the devices of these recordings."""
        return self.run(devices_of, *recordings)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def devices_of(*recordings: str) -> list[UsbDevice]:
    """Return what discovery finds, in a mocked process."""
    with mocked_system(*recordings):
        return find_devices(pyudev.Context())
