"""USB devices and profiles as plain values, for tests that need no system."""

from dataclasses import replace
from typing import Any

from dockd.cameras.discovery import Disk, FileSystem, UsbDevice
from dockd.cameras.profiles import Profile

VOLUME = FileSystem("/dev/sda1", "vfat", "CAM", "1A2B-3C4D", 1)
DISK = Disk("/dev/sda", 32 << 30, False, (VOLUME,), 1)

DEVICE = UsbDevice(
    port="1-1",
    devnum=4,
    sys_path="/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1",
    vendor="0603",
    product="8611",
    serial="BWC0012345",
    model="NOVATEK NT96660",
    interface_classes=frozenset({8}),
    speed_mbps=480.0,
    authorized=True,
    tagged=True,
    complete=True,
    disks=(DISK,),
)
"""An ordinary camera."""


def with_volumes(*volumes: FileSystem, device: UsbDevice = DEVICE) -> UsbDevice:
    """Return the camera with these volumes on its one disk."""
    return replace(device, disks=(replace(DISK, volumes=volumes, partitions=len(volumes)),))


def starting(device: UsbDevice = DEVICE) -> UsbDevice:
    """Return the camera as it is before its storage appears."""
    return replace(device, disks=(), complete=False)


def data_off(device: UsbDevice = DEVICE) -> UsbDevice:
    """Return the camera with its data switched off for charging."""
    return replace(device, authorized=False, interface_classes=frozenset(), disks=())


def profile(name: str = "camera", **keys: Any) -> Profile:
    """Return a profile, by default of the ordinary camera."""
    keys.setdefault("match", {"vendor": "0603", "product": "8611"})
    return Profile.model_validate({"name": name, "title": name.title(), **keys})
