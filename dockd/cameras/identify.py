"""Who is this? Matches a USB device with the profiles, and gives the camera its id. Pure.

The camera is hostile input: a device that no profile knows, that is more than the profile says, or
whose id proves nothing is refused, with words that an officer or technician can act on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dockd.cameras.discovery import Disk, FileSystem, UsbDevice
from dockd.cameras.profiles import Profile
from dockd.core.model import Camera


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
    raise NotImplementedError


def identify_all(
    devices: Sequence[UsbDevice], profiles: Sequence[Profile]
) -> Mapping[str, Identified | Refused]:
    """Say who each device is, by its port. Devices that come out with one id are all refused."""
    raise NotImplementedError
