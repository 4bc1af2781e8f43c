"""A camera's disk as the guest's kernel sees it, without anything of dockd's."""

from collections.abc import Mapping
from dataclasses import dataclass

from tests.e2e.cameras import CameraImage
from tests.e2e.machine import Machine

_OPEN_ALONE = "import os; os.open({node!r}, os.O_RDONLY | os.O_EXCL)"
_SECTORS_WRITTEN = 6


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """A plugged camera's disk: its node, and what udev made of it."""

    machine: Machine
    node: str
    mode: int
    properties: Mapping[str, str]

    def written_sectors(self) -> int:
        """Return how much was written to the disk since it was plugged in (block/stat.rst)."""
        name = self.node.removeprefix("/dev/")
        counts = self.machine.check(f"cat /sys/class/block/{name}/stat").split()
        return int(counts[_SECTORS_WRITTEN])

    def require_unused(self) -> None:
        """Fail when it is mounted anywhere, detached included: nobody else can then have it alone."""
        self.machine.check(f'python3 -c "{_OPEN_ALONE.format(node=self.node)}"')


def find_disk(machine: Machine, camera: CameraImage) -> GuestDisk:
    """Wait until udev is done with the disk of a plugged camera, and return it."""
    link = f"/dev/disk/by-id/usb-QEMU_QEMU_HARDDISK_{camera.serial}-0:0"
    machine.wait(f"the disk of {camera.serial}", f"test -b {link}")
    node = machine.check(f"realpath {link}").strip()
    said = machine.check(f"udevadm info --query=property {node}").splitlines()
    return GuestDisk(
        machine,
        node,
        int(machine.check(f"stat --format=%a {node}"), 8),
        dict(line.split("=", 1) for line in said),
    )


def mounted_file_systems(machine: Machine) -> int:
    """Return how many camera file systems the kernel has mounted, detached ones included."""
    counts = machine.run("cat /sys/module/vfat/refcnt /sys/module/exfat/refcnt 2>/dev/null").output
    return sum(map(int, counts.split()))
