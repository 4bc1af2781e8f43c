"""What is plugged into USB now: devices, their disks, and the file systems udev has found on them.

Reads sysfs and the udev database only, never a device node, so it needs no privilege, cannot hang on
a dying card, and works without netlink. Devices come and go while they are read; one that is half
gone is left out, and one that is not wholly there yet says so (``complete``).
"""

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyudev

from dockd.core.model import display_name

DOCKD_TAG = "dockd"
"""The udev tag that the rules give to devices which a profile knows."""

HUB = 0x09
MASS_STORAGE = 0x08
"""Device and interface classes, as the USB-IF numbers them."""

HIGH_SPEED_MBPS = 480.0
"""USB 2.0 high speed. A camera that connects slower has a poor cable, plug or hub before it."""

_SECTOR_BYTES = 512
"""What sysfs counts a disk's size in, whatever its real sectors are."""


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
    that it has a disk if it is storage, and that udev is done with all there is of it so far.
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
    found = {
        device.sys_path: device
        for device in context.list_devices(subsystem="usb", DEVTYPE="usb_device")
    }
    blocks = _blocks_by_device(context, found)
    devices = []
    for sys_path, device in found.items():
        try:
            usb = _usb_device(device, blocks.get(sys_path, ()))
        except (OSError, ValueError, KeyError):
            continue  # it went away while it was being read
        if usb is not None:
            devices.append(usb)
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


def _blocks_by_device(
    context: pyudev.Context, usb_paths: Iterable[str]
) -> Mapping[str, list[pyudev.Device]]:
    """Return the disks and partitions of each USB device, by the device's path in sysfs."""
    wanted = set(usb_paths)
    blocks: dict[str, list[pyudev.Device]] = {}
    for block in context.list_devices(subsystem="block"):
        for above in Path(block.sys_path).parents:
            if str(above) in wanted:
                blocks.setdefault(str(above), []).append(block)
                break
    return blocks


def _usb_device(device: pyudev.Device, blocks: Iterable[pyudev.Device]) -> UsbDevice | None:
    """Read one device; None for a hub. Raises OSError, ValueError or KeyError when it vanishes."""
    path = Path(device.sys_path)
    if int(_required(path, "bDeviceClass"), 16) == HUB:
        return None
    authorized = _text(path, "authorized") != "0"
    classes = frozenset(_interface_classes(path)) if authorized else frozenset()
    parts = [device, *blocks]
    disks = _disks(parts[1:]) if authorized else ()
    lacks_disk = MASS_STORAGE in classes and not disks
    # Serial and model come from udev's database: reading them in sysfs waits for the device's lock,
    # which a device that fails to start holds for seconds.
    words = (device.properties.get(key, "") for key in ("ID_VENDOR_ENC", "ID_MODEL_ENC"))
    return UsbDevice(
        port=path.name,
        devnum=int(_required(path, "devnum")),
        sys_path=device.sys_path,
        vendor=_required(path, "idVendor").lower(),
        product=_required(path, "idProduct").lower(),
        serial=device.properties.get("ID_SERIAL_SHORT", ""),
        model=" ".join(_decoded(word) for word in words if word),
        interface_classes=classes,
        speed_mbps=float(_required(path, "speed")),
        authorized=authorized,
        tagged=all(_is_tagged(part) for part in parts),
        complete=all(_is_initialized(part) for part in parts) and not lacks_disk,
        disks=disks,
    )


def _disks(blocks: Iterable[pyudev.Device]) -> tuple[Disk, ...]:
    by_path = {Path(block.sys_path): block for block in blocks}
    disks = []
    for path, block in by_path.items():
        if block.properties["DEVTYPE"] != "disk":
            continue
        partitions = [inner for at, inner in by_path.items() if at.parent == path]
        volumes = [volume for one in partitions or [block] for volume in _file_systems(one)]
        disks.append(
            Disk(
                node=block.device_node,
                size_bytes=int(_required(path, "size")) * _SECTOR_BYTES,
                read_only=_text(path, "ro") == "1",
                volumes=tuple(sorted(volumes, key=lambda volume: volume.partition or 0)),
                partitions=len(partitions),
            )
        )
    return tuple(sorted(disks, key=lambda disk: disk.node))


def _file_systems(block: pyudev.Device) -> Iterator[FileSystem]:
    known = block.properties
    if "ID_FS_TYPE" in known and known.get("ID_FS_USAGE", "filesystem") == "filesystem":
        number = _text(Path(block.sys_path), "partition")
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


def _interface_classes(path: Path) -> Iterator[int]:
    for interface in path.glob(f"{path.name}:*"):
        yield int(_required(interface, "bInterfaceClass"), 16)


def _is_tagged(device: pyudev.Device) -> bool:
    return DOCKD_TAG in device.properties.get("CURRENT_TAGS", "").split(":")


def _is_initialized(device: pyudev.Device) -> bool:
    return "USEC_INITIALIZED" in device.properties


def _required(path: Path, attribute: str) -> str:
    return (path / attribute).read_text(encoding="ascii").strip()


def _text(path: Path, attribute: str) -> str:
    """Return an attribute that a device need not have; empty if it has none."""
    try:
        return _required(path, attribute)
    except FileNotFoundError:
        return ""
