"""Writes the udev rules that belong to a set of profiles, so that the two cannot disagree.

The rules only say what a device is and who must leave it alone; nothing is run from them. They cannot
make a disk read-only, for which Linux has no attribute in sysfs: the helper does that before mounting.
"""

from collections.abc import Iterable, Iterator, Sequence

from dockd.cameras.discovery import DOCKD_TAG
from dockd.cameras.profiles import Profile

FILE_NAME = "60-dockd.rules"
"""A file of this name in /etc/udev/rules.d takes the place of the one in /usr/lib/udev/rules.d."""

SCSI_TIMEOUT_S = 15
"""How long the kernel waits for one command on a camera's disk; 30 s is its own choice."""

_HEAD = """\
# Marks the cameras of this dock, and keeps everybody but dockd away from USB storage.
# Written by `dockd bays rules` from the profiles that are switched on; changes made here are lost.

ACTION=="remove", GOTO="dockd_end"

# No desktop, no automount and no ordinary user touches USB storage on a dock.
SUBSYSTEM=="block", SUBSYSTEMS=="usb", MODE="0600", ENV{UDISKS_IGNORE}="1"
"""

_TAIL = f"""
# Cameras: no unit, no modem probing, and no patience for a dying card.
TAG=="{DOCKD_TAG}", SUBSYSTEM=="usb", MODE="0600", ENV{{ID_MM_DEVICE_IGNORE}}="1"
TAG=="{DOCKD_TAG}", SUBSYSTEM=="block", ENV{{SYSTEMD_READY}}="0"
TAG=="{DOCKD_TAG}", SUBSYSTEM=="block", ENV{{DEVTYPE}}=="disk", ATTR{{device/timeout}}="{SCSI_TIMEOUT_S}"

LABEL="dockd_end"
"""


def udev_rules(profiles: Iterable[Profile]) -> str:
    """Return the content of the rules file for the profiles that are switched on."""
    lines: list[str] = []
    for profile in profiles:
        if profile.enabled:
            lines += ["", f"# {profile.name}", *_tagging(profile)]
    return "\n".join([_HEAD.rstrip("\n"), *(lines or ["", "# No profile is switched on."]), _TAIL])


def _tagging(profile: Profile) -> Sequence[str]:
    ids = list(_ids(profile))
    # A profile without USB ids is for whatever has a mass storage interface.
    own = [f'ATTR{{{key}}}=="{value}"' for key, value in ids] or [
        'ENV{ID_USB_INTERFACES}=="*:08????:*"'
    ]
    parents = [f'ATTRS{{{key}}}=="{value}"' for key, value in ids]
    tag = f'TAG+="{DOCKD_TAG}"'
    return (
        ", ".join(['SUBSYSTEM=="usb"', 'ENV{DEVTYPE}=="usb_device"', *own, tag]),
        ", ".join(['SUBSYSTEM=="block"', 'SUBSYSTEMS=="usb"', *parents, tag]),
    )


def _ids(profile: Profile) -> Iterator[tuple[str, str]]:
    if profile.match.vendor is not None:
        yield "idVendor", profile.match.vendor
    if profile.match.product is not None:
        yield "idProduct", profile.match.product
