"""Bays that are USB ports: a device at a bay's port that a profile knows is a docked camera.

This side only looks: it reads sysfs and udev's database. Opening, erasing and charging are asked of
the privileged helper, which identifies the device by itself and takes no path from here.

What a device shows changes while it stays: its file system goes away while it is formatted, and all
of it while its data is switched off for charging. So who it is holds for its whole stay, from being
plugged in to being pulled; ``where`` names that stay.
"""

import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from dockd.cameras.directory import ListingLimits
from dockd.cameras.discovery import HIGH_SPEED_MBPS, UsbDevice
from dockd.cameras.footage import FootageVolume
from dockd.cameras.hints import udev_hints
from dockd.cameras.identify import Identified, Refused, identify, identify_all
from dockd.cameras.profiles import USB2_MA, Profile
from dockd.core.errors import CameraGoneError, CameraUnreadableError, DockdError
from dockd.core.interfaces import Clock, ShouldStop
from dockd.core.model import (
    Camera,
    ChargeStatus,
    EndedWipe,
    Power,
    Presence,
    WipeReport,
    WipeRequest,
)
from dockd.core.wipe_gate import WipeRefused
from dockd.ops import events

RETURN_S = 20.0
"""How long a camera may take to come back after its port was switched on, before it counts as pulled."""

STARTING_S = 8.0
"""How long a device may take to show its storage before its bay says that something is wrong."""


class Helper(Protocol):
    """What is asked of the privileged helper; see dockd.cameras.helper_client."""

    def open_volume(self, bay: str, camera: str) -> int:
        """Return a descriptor of the camera's root directory, mounted read-only."""

    def wipe(
        self, bay: str, request: WipeRequest, should_stop: ShouldStop
    ) -> WipeReport | WipeRefused:
        """Erase with proof."""

    def ended_wipes(self) -> Sequence[EndedWipe]:
        """Return the wipes that are done and not acknowledged yet."""

    def acknowledge(self, visit_id: str) -> None:
        """Say that the journal holds the end of a visit's wipe."""

    def charge(self, bay: str) -> ChargeStatus:
        """Charge; say how it goes."""

    def power(self, bay: str, action: Literal["on", "off"]) -> Power:
        """Switch the port's power; return what is known of it then."""

    def unfinished(self, bay: str) -> Camera | None:
        """Return whose medium is in the bay if its permitted erasing was cut short."""


@dataclass(slots=True)
class _Dark:
    """A camera whose port was switched off, and when it was switched on again."""

    presence: Presence
    lit_at_s: float | None = None


@dataclass(slots=True)
class _Stay:
    """One device, from being plugged in to being pulled, and what was found out about it."""

    since_s: float
    camera: Camera | None = None
    profile: Profile | None = None
    told_elsewhere: bool = False
    told_slow: bool = False
    asked_helper: bool = False
    awaits_helper: bool = True


class UsbSource:
    """Implements core.interfaces.CameraSource over USB ports."""

    watches_when_ready = False

    def __init__(
        self,
        ports: Mapping[str, str],
        helper: Helper,
        profiles: Sequence[Profile],
        clock: Clock,
        *,
        look: Callable[[], Sequence[UsbDevice]],
        limits: ListingLimits,
        flagged: Sequence[str] = (),
        remembered: Mapping[str, Camera] | None = None,
    ) -> None:
        """Build over the port of each bay, by the bay's name.

        ``look`` returns what is plugged in, ``flagged`` are patterns besides those of the profiles.
        ``remembered`` are the cameras of visits that were open before a restart, by their ``where``:
        a camera whose data is switched off cannot say again who it is.
        """
        self.bays: Sequence[str] = tuple(ports)
        self._bay_at = {port: bay for bay, port in ports.items()}
        self._helper = helper
        self._profiles = profiles
        self._clock = clock
        self._look = look
        self._limits = limits
        self._flagged = tuple(flagged)
        self._remembered = dict(remembered or {})
        self._boot_id = _boot_id()
        self._stays: dict[str, _Stay] = {}
        self._dark: dict[str, _Dark] = {}
        self._unlit = set(ports)
        self._lighting: threading.Thread | None = None

    def enumerate_cameras(self) -> Mapping[str, Sequence[Presence]]:
        """Return who is at each bay's port. Blocking, quick; never raises for one bad device."""
        devices = self._look()
        stays = {self._where(device): self._stay(device) for device in devices}
        self._stays = stays
        holding = {
            device.port for device in devices if stays[self._where(device)].camera is not None
        }
        found = identify_all(devices, self._profiles, holding)
        seen: dict[str, list[Presence]] = {bay: [] for bay in self.bays}
        for device in devices:
            bay, stay = self._bay_at.get(device.port), stays[self._where(device)]
            if bay is None:
                _tell_elsewhere(device, stay)
            elif presence := self._presence(bay, device, found[device.port], stay):
                seen[bay].append(presence)
        for bay, dark in tuple(self._dark.items()):
            self._look_into_the_dark(seen[bay], dark)
        self._light(bay for bay in self.bays if not seen[bay])
        return seen

    def _look_into_the_dark(self, seen: list[Presence], dark: _Dark) -> None:
        """Take a camera for present while its port has no power, and until it had time to come back."""
        bay, lit_at_s = dark.presence.bay, dark.lit_at_s
        back = any(one.where != dark.presence.where for one in seen)
        if back or (lit_at_s is not None and self._clock.monotonic_s() - lit_at_s > RETURN_S):
            self._dark.pop(bay, None)
        elif not seen:
            seen.append(dark.presence)

    def _light(self, empty: Iterable[str]) -> None:
        """Give power to empty bays once: an earlier run may have ended while it had them switched off.

        In a thread, because the helper may be busy.
        """
        self._unlit.intersection_update(empty)
        if not self._unlit or (self._lighting is not None and self._lighting.is_alive()):
            return

        def light() -> None:
            for bay in tuple(self._unlit):
                try:
                    self._helper.power(bay, "on")
                except DockdError:
                    return  # the helper is away; the next look asks again
                self._unlit.discard(bay)

        self._lighting = threading.Thread(target=light, name="light", daemon=True)
        self._lighting.start()

    def hints(self) -> AsyncGenerator[None, None]:
        """Yield when udev has something to tell."""
        return udev_hints()

    def open_camera(self, presence: Presence) -> FootageVolume:
        """Have the camera opened read-only; see core.interfaces.CameraSource.

        Also raises the errors of the helper's client.
        """
        camera = presence.camera.camera_id
        root_fd = self._helper.open_volume(presence.bay, camera)
        try:
            profile = self._profile(presence)
        except BaseException:
            os.close(root_fd)
            raise
        return FootageVolume(root_fd, self._limits, camera, profile)

    def wipe(self, request: WipeRequest, should_stop: ShouldStop) -> WipeReport | WipeRefused:
        """Have the camera erased, with proof; see core.interfaces.CameraSource."""
        return self._helper.wipe(request.presence.bay, request, should_stop)

    def is_half_erased(self, presence: Presence) -> bool:
        """Whether its medium carries the mark of an erasing that was cut short."""
        return self._helper.unfinished(presence.bay) is not None

    def ended_wipes(self) -> Sequence[EndedWipe]:
        """Return the reports that the helper still keeps; see core.interfaces.CameraSource."""
        return self._helper.ended_wipes()

    def acknowledge(self, visit_id: str) -> None:
        """Tell the helper that a report need not be kept; it offers it again if it was away."""
        try:
            self._helper.acknowledge(visit_id)
        except DockdError as error:
            events.WIPE_UNACKNOWLEDGED.log(visit=visit_id, reason=str(error))

    def charge(self, presence: Presence) -> ChargeStatus:
        """Have the camera charged; see core.interfaces.CameraSource."""
        dark = self._dark.get(presence.bay)
        if dark is None:
            return self._helper.charge(presence.bay)
        if dark.lit_at_s is None:
            self._helper.power(presence.bay, "on")
            dark.lit_at_s = self._clock.monotonic_s()
        return ChargeStatus(Power.ON)

    def rest(self, presence: Presence) -> Power:
        """Have the port switched off, and the camera stay present; see core.interfaces.CameraSource."""
        bay, before = presence.bay, self._dark.get(presence.bay)
        # Before it is done: who looks meanwhile must not take the camera for pulled.
        self._dark[bay] = _Dark(presence)
        try:
            power = self._helper.power(bay, "off")
        except DockdError:
            self._dark.pop(bay, None)
            if before is not None:
                self._dark[bay] = before
            raise
        if power is not Power.OFF:
            self._dark.pop(bay, None)
        if power is Power.ON:
            # A hub that only says that it can has let go of the device all the same.
            self._helper.power(bay, "on")
        return power

    def _where(self, device: UsbDevice) -> str:
        return f"usb:{device.port}/{device.devnum}/{self._boot_id}"

    def _stay(self, device: UsbDevice) -> _Stay:
        where = self._where(device)
        known = self._stays.get(where)
        return known or _Stay(self._clock.monotonic_s(), self._remembered.get(where))

    def _presence(
        self, bay: str, device: UsbDevice, found: Identified | Refused, stay: _Stay
    ) -> Presence | None:
        where = self._where(device)
        if isinstance(found, Identified):
            stay.camera, stay.profile = found.camera, found.profile
            _tell_slow(bay, device, stay)
            return Presence(bay, found.camera, where, draw_ma=_draw_ma(found.profile))
        stay.profile = found.profile or stay.profile
        if _shows_less(device, found):
            if stay.camera is not None:
                return Presence(bay, stay.camera, where, draw_ma=_draw_ma(stay.profile))
            if self._awaits_helper(bay, device, stay):
                return None
        if found.passing and self._clock.monotonic_s() - stay.since_s < STARTING_S:
            return None
        draw_ma = _draw_ma(found.profile)
        return Presence(bay, found.camera, where, refusal=found.words, draw_ma=draw_ma)

    def _awaits_helper(self, bay: str, device: UsbDevice, stay: _Stay) -> bool:
        """Ask whose medium this is that has no file system: perhaps its erasing was cut short.

        In a thread, because the helper may be busy with it, and no other bay is to wait for that.
        Return whether its first answer, or its silence for too long, is still to come.
        """
        if not _has_medium(device):
            return False
        if stay.asked_helper:
            return stay.awaits_helper
        awaited, stay.asked_helper = stay.awaits_helper, True

        def ask() -> None:
            try:
                stay.camera = self._helper.unfinished(bay)
            except DockdError:
                stay.asked_helper = False  # the helper is away; the next look asks again
            stay.awaits_helper = False

        threading.Thread(target=ask, name=f"unfinished-{bay}", daemon=True).start()
        return awaited

    def _profile(self, presence: Presence) -> Profile:
        """Return the profile of an opened camera, with the dock's own patterns."""
        here = [device for device in self._look() if self._where(device) == presence.where]
        if not here:
            raise CameraGoneError(f"{presence.camera.camera_id}: the camera is gone")
        found = identify(here[0], self._profiles)
        stay = self._stays.get(presence.where)
        profile = found.profile or (stay.profile if stay is not None else None)
        if profile is None:
            raise CameraUnreadableError(f"{presence.camera.camera_id}: no profile is for it")
        flagged = (*profile.footage.flagged, *self._flagged)
        footage = profile.footage.model_copy(update={"flagged": flagged})
        return profile.model_copy(update={"footage": footage})


def _draw_ma(profile: Profile | None) -> int:
    return profile.charge.draw_ma if profile is not None else USB2_MA


def _shows_less(device: UsbDevice, refused: Refused) -> bool:
    """Whether it is refused only because it shows less of itself than it did, or will."""
    unreadable = _has_medium(device) and not any(disk.volumes for disk in device.disks)
    return refused.passing or not device.authorized or unreadable


def _has_medium(device: UsbDevice) -> bool:
    return any(disk.size_bytes for disk in device.disks)


def _tell_elsewhere(device: UsbDevice, stay: _Stay) -> None:
    if not stay.told_elsewhere and (device.stores or device.tagged):
        stay.told_elsewhere = True
        events.USB_ELSEWHERE.log(
            port=device.port, vendor=device.vendor, product=device.product, model=device.model
        )


def _tell_slow(bay: str, device: UsbDevice, stay: _Stay) -> None:
    if not stay.told_slow and device.speed_mbps < HIGH_SPEED_MBPS and stay.camera is not None:
        stay.told_slow = True
        events.USB_SLOW.log(
            bay=bay,
            camera=stay.camera.camera_id,
            port=device.port,
            speed_mbps=device.speed_mbps,
        )


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
