"""Checks of the machine that the dock runs on: kernel, clock, udev, devices, services."""

import ctypes
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import dockd
from dockd.cameras.discovery import UsbDevice
from dockd.cameras.identify import Refused, identify_all
from dockd.cameras.profiles import PACKAGED, Profile
from dockd.cameras.udev_rules import FILE_NAME, udev_rules
from dockd.cli.checks import Finding, Level

RULES_DIRS = tuple(
    Path(directory)
    for directory in ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d")
)
"""Where udev looks for rules (udev(7)); on Debian 12, /lib is the same as /usr/lib."""

WRITE_RULES = (
    f"dockd bays rules > /etc/udev/rules.d/{FILE_NAME}",
    "udevadm control --reload",
    "udevadm trigger --action=change --subsystem-match=usb --subsystem-match=block",
    "systemctl restart dockd-helper dockd",
)
"""What makes a changed profile count; the pages of docs/ have the same lines."""

FILE_SYSTEMS = ("vfat", "exfat")

_TIME_ERROR = 5
_TIMEX_BYTES = 512
"""More than the kernel's struct timex has; only what adjtimex(2) returns is looked at."""

_SYSTEMCTL_WITHIN_S = 10.0


def check_kernel(release: str, modules: Path, file_systems: Path) -> Iterator[Finding]:
    """The kernel can switch port power (6.0 and newer) and mount what cameras carry."""
    major = int(release.partition(".")[0])
    if major < 6:
        advice = "Port power cannot be switched; use Debian 12's kernel, 6.1."
        yield Finding("kernel", Level.WARN, f"{release} is older than 6.0", advice)
    else:
        yield Finding("kernel", Level.OK, release)
    listed = (modules / release / name for name in ("modules.dep", "modules.builtin"))
    known = "".join(path.read_text(encoding="utf-8") for path in listed if path.exists())
    loaded = file_systems.read_text(encoding="ascii").split()
    missing = [one for one in FILE_SYSTEMS if one not in loaded and f"/{one}.ko" not in known]
    if missing:
        words = f"the kernel has no {' and no '.join(missing)}"
        advice = "Cameras with it cannot be opened; install linux-image-amd64."
        yield Finding("file systems", Level.WARN, words, advice)
    else:
        yield Finding("file systems", Level.OK, ", ".join(FILE_SYSTEMS))


def clock_is_synchronised() -> bool:
    """Whether the kernel says that something keeps its clock right (adjtimex(2))."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    state: int = ctypes.CDLL(None).adjtimex(timex)
    return state not in (-1, _TIME_ERROR)


def check_clock(now: datetime, *, synchronised: bool) -> Finding:
    """The time of day can be true: it is in every receipt, manifest and custody entry."""
    made = datetime.fromtimestamp(Path(dockd.__file__).stat().st_mtime, UTC)
    words = now.isoformat(timespec="seconds")
    if now < made:
        words += ", before this dockd was made"
        return Finding("clock", Level.FAIL, words, "Set the clock, or replace the PC's battery.")
    if not synchronised:
        advice = "Have a time server keep it, with systemd-timesyncd or chrony."
        return Finding("clock", Level.WARN, f"{words}, not synchronised", advice)
    return Finding("clock", Level.OK, f"{words}, synchronised")


def check_rules(
    directories: Iterable[Path],
    profiles: Collection[Profile],
    profiles_dir: Path,
    *,
    needed: bool,
) -> Finding:
    """The udev rules are there, which keep cameras for dockd alone, and fit the profiles.

    ``profiles_dir`` is where the dock's own profiles are; ``needed`` says whether there are USB bays.
    """
    bad = Level.FAIL if needed else Level.WARN
    renew = f"as root: {' && '.join(WRITE_RULES)}"
    if needed and not any(profile.enabled for profile in profiles):
        words = "no profile is switched on, so no camera is known"
        advice = (
            f"Copy the one that fits from {PACKAGED} to {profiles_dir}, set enabled = true in it; "
            f"then {renew}. See docs/profiles.md."
        )
        return Finding("udev rules", bad, words, advice)
    file = next((path for one in directories if (path := one / FILE_NAME).exists()), None)
    if file is None:
        return Finding("udev rules", bad, f"no {FILE_NAME}", "Install the dockd package again.")
    if file.read_text(encoding="utf-8") != udev_rules(profiles):
        words = f"{file} does not fit the profiles that are switched on"
        return Finding("udev rules", bad, words, f"Write them anew, {renew}")
    return Finding("udev rules", Level.OK, str(file))


def check_devices(
    devices: Iterable[UsbDevice], profiles: Iterable[Profile], bays: Mapping[str, str]
) -> Iterator[Finding]:
    """Storage that is plugged in, by port: what dockd takes it for. ``bays`` has names by port."""
    storage = [device for device in devices if device.stores or device.port in bays]
    known = identify_all(storage, tuple(profiles))
    for device in storage:
        bay, found = bays.get(device.port), known[device.port]
        name = f"USB {device.port}"
        if bay is None:
            words = f"{found.camera.camera_id} is in no bay, and is left alone"
            yield Finding(name, Level.OK, words)
        elif isinstance(found, Refused):
            yield Finding(name, Level.WARN, f"bay {bay}: {found.words}")
        else:
            words = f"bay {bay}: {found.camera.camera_id}, profile {found.profile.name}"
            yield Finding(name, Level.OK, words)


def check_units(units: Iterable[str], *, running: bool) -> Iterator[Finding]:
    """systemd has the services running. ``running`` says whether systemd itself is."""
    if not running:
        yield Finding("services", Level.WARN, "systemd does not run here", "Start dockd by hand.")
        return
    for unit in units:
        yield check_unit(unit, _properties(unit))


def check_unit(unit: str, properties: Mapping[str, str]) -> Finding:
    """Judge one unit by its properties (org.freedesktop.systemd1(5))."""
    active = properties.get("ActiveState", "unknown")
    restarts = int(properties.get("NRestarts") or 0)
    advice = f"journalctl -u {unit}"
    if active not in ("active", "reloading"):
        return Finding(unit, Level.FAIL, active, f"systemctl restart {unit}; {advice}")
    if restarts:
        return Finding(unit, Level.WARN, f"{active}, restarted {restarts} times", advice)
    return Finding(unit, Level.OK, active)


def _properties(unit: str) -> dict[str, str]:
    shown = subprocess.run(  # noqa: S603 - fixed words and unit names of our own
        ["/usr/bin/systemctl", "show", "--property=ActiveState,NRestarts", unit],
        capture_output=True, text=True, check=False, timeout=_SYSTEMCTL_WITHIN_S,
    )  # fmt: skip
    return dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
