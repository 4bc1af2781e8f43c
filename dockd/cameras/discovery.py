"""What is plugged into USB now: devices, their disks, and the file systems udev has found on them.

Reads sysfs and the udev database only, never a device node, so it needs no privilege, cannot hang on
a dying card, and works without netlink. Devices come and go while they are read; one that is half
gone is left out, and one that is not wholly there yet says so (``complete``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyudev

DOCKD_TAG = "dockd"
"""The udev tag that the rules give to devices which a profile knows."""

MASS_STORAGE = 0x08
"""The interface class of mass storage (USB-IF class codes)."""

HIGH_SPEED_MBPS = 480.0
"""USB 2.0 high speed. A camera that connects slower has a poor cable, plug or hub before it."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system that udev recognised; ``partition`` is None for a disk without partition table.

    ``label`` and ``uuid`` are empty where the file system has none.
    """

    node: str
    type: str
    label: str
    uuid: str
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a device: one per logical unit, so a card reader may have several.

    ``size_bytes`` is 0 where there is no medium. ``volumes`` holds the disk itself when it carries a
    file system without a partition table. ``partitions`` counts all of them, recognised or not.
    """

    node: str
    size_bytes: int
    read_only: bool
    volumes: tuple[FileSystem, ...]
    partitions: int = 0


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """A USB device that is no hub.

    ``port`` is its place, as the kernel names it: ``1-1.4`` is port 4 of the hub at port 1 of bus 1.
    ``devnum`` changes each time it is plugged in. ``vendor`` and ``product`` are four hexadecimal
    digits each, ``serial`` is empty where there is none, ``model`` is its own words for itself.
    ``tagged`` says that our udev rules know it. ``authorized`` is false while its data is switched
    off; then it has neither interfaces nor disks. ``complete`` says that udev has finished with
    everything there is of it so far.
    """

    port: str
    devnum: int
    sys_path: str
    vendor: str
    product: str
    serial: str
    model: str
    interface_classes: frozenset[int]
    speed_mbps: float
    authorized: bool
    tagged: bool
    complete: bool
    disks: tuple[Disk, ...]

    @property
    def stores(self) -> bool:
        """Whether it is storage, or says that it is."""
        return MASS_STORAGE in self.interface_classes or bool(self.disks)


def find_devices(context: pyudev.Context) -> list[UsbDevice]:
    """Return every USB device but hubs, in the order of their ports. Never raises for a device."""
    raise NotImplementedError
