"""Who is this? Matches a USB device with the profiles, and gives the camera its id. Pure.

The camera is hostile input: a device that no profile knows, that is more than its profile says, or
that nothing tells from another one is refused, with words that an officer or technician can act on.

A camera's id is its USB ids and the first of its marks that is worth anything: the one its profile
names, then the serial number, then the id of its file system. A serial number that whole batches
share (``123456789ABC``) is worth nothing. Where it is plugged in never tells who it is.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dockd.cameras.discovery import Disk, FileSystem, UsbDevice
from dockd.cameras.profiles import IdentityFrom, Profile
from dockd.core.model import Camera, IdentifiedBy

SHARED_SERIALS = frozenset({"123456789ABC", "966110000000100"})
"""Serial numbers seen on devices that are not the same."""

_COUNTING = ("0123456789ABCDEF" * 3, "1234567890" * 4, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""A serial number that only counts upwards was typed by a developer, not given to one device."""

_SHORTEST_COUNTING = 6

_INTERFACE_CLASSES = {
    0x01: "audio", 0x02: "modem or network", 0x03: "keyboard, mouse or other input device",
    0x06: "picture transfer (PTP or MTP)", 0x07: "printer", 0x08: "mass storage",
    0x0A: "modem or network", 0x0E: "video", 0xE0: "wireless controller", 0xFF: "vendor's own",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identified:
    """A camera that may be opened: its profile, its id, and where its footage is.

    ``disk`` and ``file_system`` are None only for a camera that shows neither before the profile's
    step of preparation (``profile.prepare``) has been done.
    """

    profile: Profile
    camera: Camera
    disk: Disk | None
    file_system: FileSystem | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A device that must not be opened. ``words`` say why, and what to do.

    ``camera`` is the best name for it that there is. ``passing`` says that the reason may pass by
    itself within seconds, because the device is still starting.
    """

    camera: Camera
    words: str
    profile: Profile | None = None
    passing: bool = False


def identify(device: UsbDevice, profiles: Sequence[Profile]) -> Identified | Refused:
    """Say who a single device is. Disabled profiles count for nothing."""
    matching = _most_exact([profile for profile in profiles if _matches(profile, device)])
    if len(matching) != 1:
        return Refused(_provisional(device), _no_profile(device, matching), passing=_starts(device))
    (profile,) = matching
    if (words := _speaks_against(device, profile)) is not None:
        return Refused(_provisional(device), words, profile)
    if not device.complete:
        words = "docked, but no storage appeared: check the cable and the card"
        return Refused(_provisional(device), words, profile, passing=True)
    if profile.prepare is not None and not _volumes(device):
        return Identified(profile, _provisional(device), None, None)
    found = _file_system(device, profile)
    if isinstance(found, str):
        return Refused(_provisional(device), found, profile)
    disk, file_system = found
    camera = _camera(device, profile, file_system)
    if camera is None:
        words = "neither a serial number nor an id on its card tells this camera from another one"
        return Refused(_provisional(device), words, profile)
    return Identified(profile, camera, disk, file_system)


def identify_all(
    devices: Sequence[UsbDevice], profiles: Sequence[Profile], holding: Collection[str] = ()
) -> Mapping[str, Identified | Refused]:
    """Say who each device is, by its port. Of those that come out with one id, all are refused.

    ``holding`` names the ports whose devices had their ids before the others came; they keep them.
    """
    found = {device.port: identify(device, profiles) for device in devices}
    known = {port: one for port, one in found.items() if isinstance(one, Identified)}
    count = Counter(one.camera.camera_id for one in known.values())
    for port, one in known.items():
        if count[one.camera.camera_id] > 1 and port not in holding:
            others = ", ".join(
                other for other, two in known.items() if two.camera == one.camera and other != port
            )
            words = (
                f"another camera with the same id ({one.camera.camera_id}) is docked, at USB port "
                f"{others}: dock them one after the other, and give each its own serial number or label"
            )
            found[port] = Refused(one.camera, words, one.profile)
    return found


def is_worthless_serial(serial: str) -> bool:
    """Whether a serial number tells nothing, because devices share it or somebody just typed it."""
    plain = re.sub(r"[^0-9A-Z]", "", serial.upper())
    counts = len(plain) >= _SHORTEST_COUNTING and any(plain in row for row in _COUNTING)
    return plain in SHARED_SERIALS or counts or len(set(plain)) <= 1


def _matches(profile: Profile, device: UsbDevice) -> bool:
    match = profile.match
    labels = [volume.label for _, volume in _volumes(device)]
    return (
        profile.enabled
        and match.vendor in (None, device.vendor)
        and match.product in (None, device.product)
        and (match.serial is None or fnmatchcase(device.serial, match.serial))
        and (match.label is None or any(fnmatchcase(label, match.label) for label in labels))
        and (not match.matches_anything or device.stores)
    )


def _most_exact(profiles: Sequence[Profile]) -> list[Profile]:
    most = max((profile.match.exactness for profile in profiles), default=0)
    return [profile for profile in profiles if profile.match.exactness == most]


def _no_profile(device: UsbDevice, matching: Sequence[Profile]) -> str:
    if matching:
        names = " and ".join(profile.name for profile in matching)
        return f"the profiles {names} fit it equally well: make one of them more exact"
    if not device.authorized:
        return "its data is switched off: pull it and dock it again"
    model = f" ({device.model})" if device.model else ""
    return f"no profile knows USB device {device.vendor}:{device.product}{model}: not a camera of ours?"


def _starts(device: UsbDevice) -> bool:
    """Whether more may be known of the device in a moment, a label say."""
    return device.authorized and not device.complete


def _speaks_against(device: UsbDevice, profile: Profile) -> str | None:
    strange = sorted(device.interface_classes - set(profile.match.interface_classes))
    if strange:
        names = ", ".join(_INTERFACE_CLASSES.get(one, f"class {one:#04x}") for one in strange)
        return f"it is more than a camera: it also is a {names}; keep it, it may have been tampered with"
    if not device.authorized:
        return "its data is switched off: pull it and dock it again"
    if device.complete and not device.tagged:
        return (
            "the udev rules do not know it: write them anew (dockd bays rules), then dock it again"
        )
    return None


def _volumes(device: UsbDevice) -> list[tuple[Disk, FileSystem]]:
    return [(disk, volume) for disk in device.disks for volume in disk.volumes]


def _file_system(device: UsbDevice, profile: Profile) -> tuple[Disk, FileSystem] | str:
    """Return where the footage is, or why that cannot be said."""
    wanted = profile.file_system
    if not any(disk.size_bytes for disk in device.disks):
        return "there is no card in it, or it does not make contact"
    volumes = _volumes(device)
    if not volumes:
        return (
            "no file system was recognised on it: the card may be damaged, encrypted or never formatted; "
            "it is left as it is, recover it by hand"
        )
    fitting = [
        (disk, volume)
        for disk, volume in volumes
        if wanted.partition in (None, volume.partition) and wanted.label in (None, volume.label)
    ]
    if len(fitting) != 1:
        names = ", ".join(
            f"{volume.node} {volume.type} {volume.label!r}" for _, volume in fitting or volumes
        )
        one = "none of them is" if not fitting else "it cannot be told which of them is"
        return (
            f"{one} the one with footage ({names}): name it in profile {profile.name} [file_system]"
        )
    disk, volume = fitting[0]
    if volume.type not in wanted.allowed:
        allowed = ", ".join(wanted.allowed)
        return f"its file system is {volume.type}; profile {profile.name} allows {allowed}"
    return disk, volume


def _camera(device: UsbDevice, profile: Profile, file_system: FileSystem) -> Camera | None:
    serial = "" if is_worthless_serial(device.serial) else device.serial
    uuid = file_system.uuid if set(file_system.uuid) - set("0-") else ""
    marks = {
        IdentityFrom.SERIAL: (serial, IdentifiedBy.SERIAL),
        IdentityFrom.LABEL: (file_system.label, IdentifiedBy.LABEL),
        IdentityFrom.UUID: (uuid, IdentifiedBy.MEDIA_ID),
    }
    for source in (profile.identity.source, IdentityFrom.SERIAL, IdentityFrom.UUID):
        value, identified_by = marks[source]
        if value:
            return Camera(f"{device.vendor}:{device.product}:{value}", identified_by)
    return None


def _provisional(device: UsbDevice) -> Camera:
    """Name a device of which no more is known, or may be believed, than what USB says."""
    ids = f"{device.vendor}:{device.product}"
    if is_worthless_serial(device.serial):
        return Camera(f"{ids}:port-{device.port}", IdentifiedBy.PORT)
    return Camera(f"{ids}:{device.serial}", IdentifiedBy.SERIAL)
