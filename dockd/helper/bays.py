"""Which device is in a bay: found by the helper itself, whatever a request may say.

A bay is a USB port of the root-owned configuration. What is at that port is opened only when it
carries our udev tag and one enabled profile says that it is a camera of ours.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dockd.cameras.discovery import Disk, FileSystem, UsbDevice
from dockd.cameras.identify import Identified, identify
from dockd.cameras.profiles import Profile
from dockd.core.errors import CameraGoneError, DeviceRefusedError
from dockd.core.model import Camera
from dockd.helper import programs
from dockd.helper.power import Port
from dockd.ops import events

READY_TIMEOUT_S = 20.0
"""How long a device may take to show its file system after its data was switched on, or it was
unlocked: enumeration, SCSI probe and partition scan take seconds."""

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Docked:
    """A camera of ours in a bay, with the file system that holds its footage."""

    bay: str
    device: UsbDevice
    profile: Profile
    camera: Camera
    disk: Disk
    file_system: FileSystem


class Bays:
    """The bays of this dock, and what is in them."""

    def __init__(
        self,
        ports: Mapping[str, str],
        profiles: Sequence[Profile],
        find_devices: Callable[[], Sequence[UsbDevice]],
        make_port: Callable[[str], Port] = Port,
    ) -> None:
        """Build over the port of each bay, by the bay's name."""
        self._ports = dict(ports)
        self._profiles = profiles
        self._find_devices = find_devices
        self._make_port = make_port

    @property
    def names(self) -> tuple[str, ...]:
        """The bays' names."""
        return tuple(self._ports)

    def port(self, bay: str) -> Port:
        """Return the port of a bay. Raises DeviceRefusedError when there is no such bay."""
        if bay not in self._ports:
            raise DeviceRefusedError(f"there is no bay {bay!r}")
        return self._make_port(self._ports[bay])

    def device(self, bay: str) -> UsbDevice:
        """Return what is in the bay now. Raises CameraGoneError, DeviceRefusedError."""
        self.port(bay)
        for device in self._find_devices():
            if device.port == self._ports[bay]:
                return device
        raise CameraGoneError(f"bay {bay} is empty")

    def profile(self, bay: str) -> Profile | None:
        """Return the profile of what is in the bay, as far as it can be told. Raises as ``device``."""
        found = identify(self.device(bay), self._profiles)
        return found.profile

    def find(self, bay: str) -> Docked:
        """Return the camera in the bay, as it is now. Raises CameraGoneError, DeviceRefusedError."""
        device = self.device(bay)
        found = identify(device, self._profiles)
        if not isinstance(found, Identified):
            raise DeviceRefusedError(f"bay {bay}: {found.words}")
        if not device.tagged:
            raise DeviceRefusedError(f"bay {bay}: udev has not tagged the device as a camera")
        if found.disk is None or found.file_system is None:
            raise DeviceRefusedError(
                f"bay {bay}: the camera shows no storage before it is unlocked"
            )
        return Docked(bay, device, found.profile, found.camera, found.disk, found.file_system)

    def wake(self, bay: str, *, patient: bool = False) -> Docked:
        """Return the camera in the bay, after all that it needs before it shows its file system.

        Switches its data on where it is off, and takes its profile's step of preparation once.
        ``patient`` waits although nothing needs doing: udev is about to look at a new file system.
        Blocking, for a bounded time. Raises CameraGoneError, DeviceRefusedError, HelperError.
        """
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        woken = prepared = False
        while True:
            device = self.device(bay)
            found = identify(device, self._profiles)
            if isinstance(found, Identified) and found.file_system is not None:
                return self.find(bay)
            if not device.authorized and device.tagged:
                self.port(bay).set_data(on=True)
                woken = True
            elif isinstance(found, Identified) and not prepared:
                self._prepare(bay, device, found.profile)
                prepared = True
                deadline_s = time.monotonic() + READY_TIMEOUT_S
            elif not isinstance(found, Identified) and not (
                patient or found.passing or woken or prepared
            ):
                raise DeviceRefusedError(f"bay {bay}: {found.words}")
            elif time.monotonic() > deadline_s:
                return self.find(bay)
            time.sleep(_POLL_S)

    def _prepare(self, bay: str, device: UsbDevice, profile: Profile) -> None:
        if profile.prepare is None or not device.tagged:
            raise DeviceRefusedError(f"bay {bay}: the camera shows no storage")
        programs.run(
            profile.prepare.command,
            timeout_s=profile.prepare.timeout_s,
            environment={"DOCKD_PORT": device.port},
        )
        events.HELPER_PREPARED.log(bay=bay, port=device.port, profile=profile.name)
