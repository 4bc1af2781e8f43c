"""What is plugged into USB now: devices, their disks, and the file systems udev has found on them.

Reads sysfs and the udev database only, never a device node, so it needs no privilege, cannot hang on
a dying card, and works without netlink. Devices come and go while they are read; one that is half
gone is left out, and one that is not wholly there yet says so (``complete``).
"""

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyudev
from pyudev import DeviceNotFoundError, Devices

from dockd.core.model import display_name

DOCKD_TAG = "dockd"
"""The udev tag that the rules give to devices which a profile knows."""

HUB = 0x09
MASS_STORAGE = 0x08
"""Device and interface classes, as the USB-IF numbers them."""

HIGH_SPEED_MBPS = 480.0
"""USB 2.0 high speed. A camera that connects slower has a poor cable, plug or hub before it."""

_PORT = r"[0-9]+-[0-9]+(\.[0-9]+)*"
"""Names of devices in sysfs; those of interfaces and of root hubs are different."""

_SECTOR_BYTES = 512
"""What sysfs counts a disk's size in, whatever its real sectors are."""


_GOING = (OSError, ValueError, KeyError, DeviceNotFoundError)
"""What reading a device raises that goes away meanwhile."""


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
    digits each; ``serial`` is empty where there is none that udev takes for one; ``model`` is its own
    words for itself. ``tagged`` says that our udev rules know it and all its disks. ``authorized`` is
    false while its data is switched off; then it has neither interfaces nor disks. ``complete`` says
    that it has interfaces, and a disk if it is storage, and that udev is done with all of it.
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
    usb_paths = [
        path for name, path in _links("bus/usb/devices") if re.fullmatch(_PORT, name) is not None
    ]
    blocks = _blocks_by_device(usb_paths)
    devices = []
    for path in usb_paths:
        try:
            if int(_required(path, "bDeviceClass"), 16) != HUB:
                devices.append(_usb_device(context, path, blocks[path]))
        except _GOING:
            continue
    return sorted(devices, key=lambda device: port_order(device.port))


class UsbBus:
    """What is plugged in, for any thread to ask; libudev itself bears only one at a time."""

    def __init__(self) -> None:
        """Load libudev. Raises ImportError where the system has none."""
        self._context = pyudev.Context()
        self._lock = threading.Lock()

    def devices(self) -> list[UsbDevice]:
        """Return what :func:`find_devices` finds now."""
        with self._lock:
            return find_devices(self._context)


def port_order(port: str) -> tuple[int, ...]:
    """Return what sorts ports as people count them: ``1-1.10`` comes after ``1-1.9``."""
    return tuple(int(number) for number in re.findall(r"\d+", port))


def _links(directory: str) -> Iterator[tuple[str, str]]:
    """Return what a directory of sysfs links to: name and path of each device, hubs included."""
    place = f"/sys/{directory}"
    try:
        names = os.listdir(place)  # noqa: PTH208 - a path object for each of hundreds costs too much
    except FileNotFoundError:
        return  # a kernel without USB, or nothing of the kind plugged in yet
    for name in names:
        with contextlib.suppress(OSError):
            yield name, os.path.normpath(f"{place}/{os.readlink(f'{place}/{name}')}")  # noqa: PTH115


def _blocks_by_device(usb_paths: Iterable[str]) -> Mapping[str, list[str]]:
    """Return the disks and partitions of each USB device; all are paths in sysfs."""
    blocks: dict[str, list[str]] = {path: [] for path in usb_paths}
    for _, block in _links("class/block"):
        above = block
        while above and above not in blocks:
            above = above.rpartition("/")[0]
        if above:
            blocks[above].append(block)
    return blocks


def _usb_device(context: pyudev.Context, path: str, block_paths: Sequence[str]) -> UsbDevice:
    """Read one device. Raises an error when it vanishes; its interfaces and disks may."""
    device = Devices.from_sys_path(context, path)
    known = device.properties
    classes: frozenset[int] = frozenset()
    blocks: list[pyudev.Device] = []
    disks: tuple[Disk, ...] = ()
    disks_tagged, done = True, False
    try:
        classes = frozenset(_interface_classes(path))
        blocks = [Devices.from_sys_path(context, one) for one in block_paths]
        # Asked first: what udev writes between this question and the next reading is only for the
        # better, while the other way round a disk would be done and show nothing.
        done = all(_is_initialized(part) for part in (device, *blocks))
        disks = _disks(blocks)
        disks_tagged = all(_is_tagged(block) for block in blocks)
    except _GOING:
        done = False
    # Asked last: the kernel says that its data is off before it takes interfaces and disks away.
    if not (authorized := _optional(path, "authorized") != "0"):
        classes, disks, disks_tagged = frozenset(), (), True
    starts = authorized and (not classes or (MASS_STORAGE in classes and not disks))
    # Serial and model come from udev's database: reading them in sysfs waits for the device's lock,
    # which a device that fails to start holds for seconds.
    words = (known.get(key, "") for key in ("ID_VENDOR_ENC", "ID_MODEL_ENC"))
    return UsbDevice(
        port=path.rpartition("/")[2],
        devnum=int(_required(path, "devnum")),
        sys_path=path,
        vendor=_required(path, "idVendor").lower(),
        product=_required(path, "idProduct").lower(),
        serial=known.get("ID_SERIAL_SHORT", ""),
        model=" ".join(_decoded(word) for word in words if word),
        interface_classes=classes,
        speed_mbps=float(_required(path, "speed")),
        authorized=authorized,
        tagged=_is_tagged(device) and disks_tagged,
        complete=done and not starts,
        disks=disks,
    )


def _disks(blocks: Sequence[pyudev.Device]) -> tuple[Disk, ...]:
    disks = []
    for block in blocks:
        if block.properties["DEVTYPE"] != "disk":
            continue
        path = block.sys_path
        partitions = [one for one in blocks if one.sys_path.rpartition("/")[0] == path]
        volumes = [volume for one in partitions or [block] for volume in _file_systems(one)]
        disks.append(
            Disk(
                node=block.device_node,
                size_bytes=int(_required(path, "size")) * _SECTOR_BYTES,
                read_only=_optional(path, "ro") == "1",
                volumes=tuple(sorted(volumes, key=lambda volume: volume.partition or 0)),
                partitions=len(partitions),
            )
        )
    return tuple(sorted(disks, key=lambda disk: disk.node))


def _file_systems(block: pyudev.Device) -> Iterator[FileSystem]:
    known = block.properties
    if "ID_FS_TYPE" in known and known.get("ID_FS_USAGE", "filesystem") == "filesystem":
        number = _optional(block.sys_path, "partition")
        yield FileSystem(
            node=block.device_node,
            type=known["ID_FS_TYPE"],
            label=_decoded(known.get("ID_FS_LABEL_ENC", "")),
            uuid=known.get("ID_FS_UUID", ""),
            partition=int(number) if number else None,
        )


def _decoded(encoded: str) -> str:
    r"""Undo udev's ``\xNN`` for what it finds unsafe, and make the rest printable in our own way."""
    data = re.sub(
        rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), encoded.encode()
    )
    return display_name(data).strip()


def _interface_classes(path: str) -> Iterator[int]:
    name = path.rpartition("/")[2]
    for entry in os.listdir(path):  # noqa: PTH208 - as above
        if entry.startswith(f"{name}:"):
            yield int(_required(f"{path}/{entry}", "bInterfaceClass"), 16)


def _is_tagged(device: pyudev.Device) -> bool:
    return DOCKD_TAG in device.properties.get("CURRENT_TAGS", "").split(":")


def _is_initialized(device: pyudev.Device) -> bool:
    return "USEC_INITIALIZED" in device.properties


def _required(path: str, attribute: str) -> str:
    with open(f"{path}/{attribute}", "rb", buffering=0) as file:  # noqa: PTH123 - as above
        return file.read().decode("ascii").strip()


def _optional(path: str, attribute: str) -> str:
    """Return an attribute that a device need not have; empty if it has none."""
    try:
        return _required(path, attribute)
    except FileNotFoundError:
        return ""
