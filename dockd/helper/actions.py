"""What the helper does for each request. One bay does one thing at a time; bays do not meet.

Whatever a request says, the device, the camera's id, the dock, the store and the method of erasing
are the helper's own findings and configuration.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from dockd.cameras.discovery import UsbDevice
from dockd.cameras.profiles import Profile
from dockd.cameras.wiping import WipeAuthority, WipeStoppedError, prove
from dockd.core.errors import (
    CameraGoneError,
    CameraUnreadableError,
    DeviceRefusedError,
    HelperUnavailableError,
)
from dockd.core.interfaces import ShouldStop
from dockd.core.model import (
    Camera,
    ChargeStatus,
    EndedWipe,
    Power,
    Presence,
    WipeReport,
    WipeRequest,
)
from dockd.core.wipe_gate import WipePermit, WipeRefused
from dockd.helper import erase
from dockd.helper.bays import Bays, Docked
from dockd.helper.block import BLOCK_BYTES, Medium, partition_at
from dockd.helper.ledger import Entry, Ledger
from dockd.helper.mounts import DetachedMount
from dockd.ops import events

BUSY_TIMEOUT_S = 10.0
"""How long a request waits for the one before it at the same bay, which may just be stopping."""

MOST_REASONS_LOGGED = 20
_BATTERY_BYTES = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to wipe, as it came: nothing in it is believed but as far as it can be proved."""

    bay: str
    camera: str
    visit: str
    manifest: str
    manifest_receipt: str
    hold_until: datetime
    key_statements: tuple[str, ...] = ()


class Actions:
    """The powers of the helper. Every method blocks, and raises CameraError and HelperError."""

    def __init__(
        self,
        bays: Bays,
        authority: WipeAuthority,
        ledger: Ledger,
        owner: tuple[int, int],
        now: erase.Now,
    ) -> None:
        """Build. ``owner`` is the user and group that may read opened cameras."""
        self._bays = bays
        self._authority = authority
        self._ledger = ledger
        self._owner = owner
        self._now = now
        self._locks: Mapping[str, threading.Lock] = {name: threading.Lock() for name in bays.names}
        self._charging: dict[str, tuple[int, Profile]] = {}

    @property
    def bays(self) -> tuple[str, ...]:
        """The names of the bays."""
        return self._bays.names

    def open(self, bay: str, camera: str, should_stop: ShouldStop) -> int:
        """Return a descriptor of the camera's root, write-blocked and mounted read-only, detached.

        An erasing that was cut short on this very medium is finished first.
        """
        with self._alone(bay):
            finished = self._finish(bay, should_stop)
            docked = self._bays.wake(bay, patient=finished)
            _require_camera(docked, camera)
            with self._medium(docked) as medium:
                if not finished:
                    self._complete(docked, medium)
                medium.require_unused()
                medium.forget_cached()
                kind = docked.file_system.type
                with DetachedMount(medium.volume, kind, self._owner) as mount:
                    events.HELPER_OPENED.log(
                        bay=bay,
                        camera=docked.camera.camera_id,
                        port=docked.device.port,
                        profile=docked.profile.name,
                        file_system=kind,
                    )
                    return os.dup(mount.fd)

    def wipe(self, asked: Asked, should_stop: ShouldStop) -> WipeReport | WipeRefused:
        """Prove on the write-blocked medium, then erase by the profile's method.

        Also raises ManifestInvalidError.
        """
        with self._alone(asked.bay):
            docked = self._bays.wake(asked.bay)
            _require_camera(docked, asked.camera)
            with self._medium(docked) as medium:
                if self._marked(medium) is not None:
                    raise CameraUnreadableError(
                        f"bay {asked.bay}: an earlier erasing is to be finished first: open it again"
                    )
                outcome = self._prove_and_erase(asked, docked, medium, should_stop)
        if isinstance(outcome, WipeReport):
            _log_report(asked.bay, docked.camera, asked.visit, outcome)
            if outcome.verified:
                self._ledger.keep(EndedWipe(asked.visit, docked.camera.camera_id, outcome))
        return outcome

    def charge(self, bay: str) -> ChargeStatus:
        """Switch the camera's data off and leave its power on, unless its battery is to be read."""
        with self._alone(bay):
            device = self._bays.device(bay)
            if not device.tagged:
                raise DeviceRefusedError(f"bay {bay}: udev has not tagged the device as a camera")
            profile = self._charging_profile(bay, device)
            port = self._bays.port(bay)
            rule = profile.charge if profile is not None else None
            percent = None
            if rule is not None and rule.battery_file is not None and device.authorized:
                percent = self._battery_percent(bay, rule.battery_file)
            if device.authorized and percent is None:
                port.set_data(on=False)
                events.HELPER_POWER.log(bay=bay, action="data off", power=port.power())
            return ChargeStatus(
                power=port.power(),
                battery_percent=percent,
                minimum_s=rule.minimum_s if rule is not None else 0.0,
                wanted_percent=rule.wanted_percent if rule is not None else None,
            )

    def power(self, bay: str, action: Literal["on", "off", "cycle"]) -> Power:
        """Switch the power of the bay's port, where its hub can; the device in it may be any."""
        with self._alone(bay):
            port = self._bays.port(bay)
            power = port.cycle_power() if action == "cycle" else port.set_power(on=action == "on")
            events.HELPER_POWER.log(bay=bay, action=action, power=power)
            return power

    def unfinished(self, bay: str) -> Camera | None:
        """Return whose medium is in the bay, if an erasing of it was cut short."""
        with self._alone(bay):
            found = self._find_marked(bay)
        if found is None:
            return None
        _, entry = found
        return Camera(entry.camera, entry.identified_by)

    def ended_wipes(self) -> Iterable[EndedWipe]:
        """Return the verified wipes, of any camera, that were not acknowledged yet."""
        return self._ledger.ended()

    def acknowledge(self, visit: str) -> None:
        """Forget the report of a visit's wipe: the daemon has it."""
        self._ledger.acknowledge(visit)

    @contextlib.contextmanager
    def _alone(self, bay: str) -> Iterator[None]:
        lock = self._locks.get(bay)
        if lock is None:
            raise DeviceRefusedError(f"there is no bay {bay!r}")
        if not lock.acquire(timeout=BUSY_TIMEOUT_S):
            raise HelperUnavailableError(f"bay {bay}: another request is under way")
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _medium(self, docked: Docked) -> Iterator[Medium]:
        """Hold the camera's medium, write-blocked from the first moment on (INV-5)."""
        disk, volume = docked.disk.node, docked.file_system.node
        with Medium(disk, volume, docked.device.sys_path) as medium:
            medium.block_writes()
            yield medium

    # Wiping

    def _prove_and_erase(
        self, asked: Asked, docked: Docked, medium: Medium, should_stop: ShouldStop
    ) -> WipeReport | WipeRefused:
        now = self._now
        with erase.mounted(medium, docked.file_system.type, writable=True) as mount:
            try:
                permit = self._prove(asked, docked, mount, should_stop)
            except WipeStoppedError:
                return erase.stopped_report(docked.profile.wipe.method, now)
            if isinstance(permit, WipeRefused):
                _log_refusal(asked, docked, permit)
                return permit
            self._forget_entries(docked, medium)
            if docked.profile.wipe.method == "delete":
                _log_erasing(
                    asked.bay, docked.camera, asked.visit, "delete", _digest(asked), resumed=False
                )
                return erase.delete(medium, mount, docked, permit, now=now, should_stop=should_stop)
            entry = erase.plan(
                medium,
                mount,
                docked,
                permit.redeem(),
                visit=asked.visit,
                manifest_sha256=_digest(asked),
                now=now,
            )
        return self._carry_out(asked.bay, medium, entry, docked.profile, should_stop, resumed=False)

    def _prove(
        self, asked: Asked, docked: Docked, mount: DetachedMount, should_stop: ShouldStop
    ) -> WipePermit | WipeRefused:
        camera = docked.camera
        request = WipeRequest(
            Presence(asked.bay, camera, docked.device.sys_path),
            asked.visit,
            asked.manifest,
            asked.manifest_receipt,
            asked.hold_until,
        )
        authority = self._authority.knowing(asked.key_statements)
        with contextlib.closing(erase.view(mount, docked.profile, camera)) as volume:
            return prove(
                volume,
                request,
                authority=authority,
                camera=camera.camera_id,
                now=self._now,
                should_stop=should_stop,
            )

    def _carry_out(
        self,
        bay: str,
        medium: Medium,
        entry: Entry,
        profile: Profile,
        should_stop: ShouldStop,
        *,
        resumed: bool,
    ) -> WipeReport:
        camera = Camera(entry.camera, entry.identified_by)
        _log_erasing(bay, camera, entry.visit, entry.method, entry.manifest_sha256, resumed=resumed)
        return erase.carry_out(
            medium,
            entry,
            profile,
            self._ledger,
            now=self._now,
            should_stop=should_stop,
            resumed=resumed,
        )

    # What was cut short

    def _finish(self, bay: str, should_stop: ShouldStop) -> bool:
        """Finish the erasing of a marked medium; return whether there was one."""
        found = self._find_marked(bay)
        if found is None:
            return False
        node, entry = found
        device, profile = self._bays.device(bay), self._bays.profile(bay)
        if profile is None or not device.tagged:
            raise DeviceRefusedError(f"bay {bay}: no profile knows the camera to be finished")
        volume = _volume_node(device, node, entry)
        with Medium(node, volume, device.sys_path) as medium:
            medium.block_writes()
            report = self._carry_out(bay, medium, entry, profile, should_stop, resumed=True)
        camera = Camera(entry.camera, entry.identified_by)
        _log_report(bay, camera, entry.visit, report)
        if not report.verified:
            raise HelperUnavailableError(f"bay {bay}: {report.verification}")
        return True

    def _find_marked(self, bay: str) -> tuple[str, Entry] | None:
        """Return the disk in the bay that carries a mark of the ledger, with the entry.

        Only the devices of an unfinished wipe are looked at: tagged, and of the right size.
        """
        entries = list(self._ledger.entries())
        if not entries:
            return None
        device = self._bays.device(bay)
        if not device.tagged:
            return None
        sizes = {entry.disk_bytes for entry in entries}
        for disk in device.disks:
            if disk.size_bytes in sizes:
                with Medium(disk.node, disk.node, device.sys_path) as medium:
                    medium.block_writes()
                    entry = self._marked(medium)
                if entry is not None:
                    return disk.node, entry
        return None

    def _marked(self, medium: Medium) -> Entry | None:
        """Return the entry whose mark the medium carries, read past the cache."""
        entries = [entry for entry in self._ledger.entries() if entry.disk_bytes == medium.size]
        if not entries:
            return None
        with medium.direct(write=False) as disk:
            for entry in entries:
                if entry.is_marked(disk.read(entry.volume_offset, BLOCK_BYTES)):
                    return entry
        return None

    def _complete(self, docked: Docked, medium: Medium) -> None:
        """Give a camera back what is its own, where a power cut came just after the formatting."""
        entries = self._entries_about(docked, medium)
        if not entries:
            return
        with erase.mounted(medium, docked.file_system.type) as mount:
            left = erase.files_left(mount, docked.profile, docked.camera)
        if not left:
            erase.give_back(medium, entries[0], docked.profile)
            words = "the new file system was completed after a break, mounted anew and compared"
            report = erase.report_of(entries[0], self._now, words)
            _log_report(docked.bay, docked.camera, entries[0].visit, report)
            self._ledger.finish(entries[0], report)
        self._forget_entries(docked, medium)

    def _entries_about(self, docked: Docked, medium: Medium) -> list[Entry]:
        return [
            entry
            for entry in self._ledger.entries()
            if entry.is_about(docked.camera, docked.file_system, medium.size)
        ]

    def _forget_entries(self, docked: Docked, medium: Medium) -> None:
        """Remove entries that are about a medium which is known to be whole."""
        for entry in self._entries_about(docked, medium):
            self._ledger.remove(entry)

    # Charging

    def _charging_profile(self, bay: str, device: UsbDevice) -> Profile | None:
        """Return the device's profile, also while its data is off and hides what tells it apart."""
        known = self._charging.get(bay)
        if known is not None and known[0] == device.devnum:
            return known[1]
        profile = self._bays.profile(bay)
        if profile is not None:
            self._charging[bay] = (device.devnum, profile)
        elif device.authorized:
            raise DeviceRefusedError(f"bay {bay}: no profile knows this device")
        return profile

    def _battery_percent(self, bay: str, path: str) -> int | None:
        """Return the first number in the camera's battery file, or None where it tells nothing."""
        docked = self._bays.find(bay)
        with (
            self._medium(docked) as medium,
            erase.mounted(medium, docked.file_system.type) as mount,
            contextlib.closing(erase.view(mount, docked.profile, docked.camera)) as volume,
        ):
            try:
                with contextlib.closing(volume.open_file(path.encode())) as file:
                    words = file.read(_BATTERY_BYTES).split()
            except CameraUnreadableError:
                return None
        digits = words[0].rstrip(b"%") if words else b""
        return int(digits) if digits.isdigit() and int(digits) <= 100 else None


def _require_camera(docked: Docked, camera: str) -> None:
    if docked.camera.camera_id != camera:
        raise CameraGoneError(
            f"bay {docked.bay}: camera {docked.camera.camera_id} is in the bay, not {camera}"
        )


def _volume_node(device: UsbDevice, node: str, entry: Entry) -> str:
    """Return the device node of the volume that an entry is about: the disk's own, or a partition's."""
    if entry.volume_offset == 0:
        return node
    return partition_at(node, entry.volume_offset)


def _digest(asked: Asked) -> str:
    return hashlib.sha256(asked.manifest.encode()).hexdigest()


def _log_refusal(asked: Asked, docked: Docked, refused: WipeRefused) -> None:
    events.HELPER_WIPE_REFUSED.log(
        bay=asked.bay,
        camera=docked.camera.camera_id,
        visit=asked.visit,
        count=len(refused.reasons),
        reasons=[str(reason) for reason in refused.reasons[:MOST_REASONS_LOGGED]],
    )


def _log_erasing(
    bay: str, camera: Camera, visit: str, method: str, digest: str, *, resumed: bool
) -> None:
    events.HELPER_ERASING.log(
        bay=bay,
        camera=camera.camera_id,
        visit=visit,
        method=method,
        manifest_sha256=digest,
        resumed=resumed,
    )


def _log_report(bay: str, camera: Camera, visit: str, report: WipeReport) -> None:
    events.HELPER_WIPED.log(
        bay=bay,
        camera=camera.camera_id,
        visit=visit,
        method=report.method,
        wipe_level=report.level,
        tool=report.tool,
        files=report.files_erased,
        bytes=report.bytes_erased,
        preserved=list(report.preserved),
        verified=report.verified,
        verification=report.verification,
        resumed=report.resumed,
    )
