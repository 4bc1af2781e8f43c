"""What the kernel says of the daemon and its helper while they work: who holds which power."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cameras import footage, make_camera
from tests.e2e.dock import Dock
from tests.e2e.guest_disk import find_disk
from tests.e2e.machine import Machine

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
CAP_SYS_ADMIN = 1 << 21
HARMLESS = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")} | {
    "/dev/ptmx",
    "/dev/pts/ptmx",
}
FILTERED = "2"
"""The system calls of a process are filtered (SECCOMP_MODE_FILTER)."""


class Process:
    """A service's main process, with all its threads and children, as /proc shows them."""

    def __init__(self, machine: Machine, unit: str) -> None:
        """Look the process up; it must be running."""
        self._machine = machine
        self.pid = int(machine.check(f"systemctl show --property=MainPID --value {unit}"))
        group = machine.check(f"systemctl show --property=ControlGroup --value {unit}").strip()
        self._group = f"/sys/fs/cgroup{group}"

    def statuses(self) -> Iterator[dict[str, str]]:
        """Yield the status of each thread of each process of the service."""
        text = self._machine.check(
            f"for thread in $(cat {self._group}/cgroup.threads); do cat /proc/$thread/status && echo; done"
        )
        for block in text.strip().split("\n\n"):
            yield {
                key: value.strip()
                for key, _, value in (line.partition(":") for line in block.splitlines())
            }

    def capabilities(self) -> set[int]:
        """Return what any of its threads has, may gain, or could pass on."""
        return {int(status[name], 16) for status in self.statuses() for name in CAPABILITIES}

    def inside(self, command: str) -> str:
        """Return what a command prints that sees the files which this process sees."""
        return self._machine.check(f"nsenter --target {self.pid} --mount -- {command}")

    def may_open(self, device: str) -> bool:
        """Whether the service's devices policy lets even root open this one."""
        join = f"echo $$ > {self._group}/cgroup.procs"
        return self._machine.run(f"{join} && exec head --bytes=1 {device}").code == 0

    def network(self) -> str:
        """Return its network namespace."""
        return self._machine.check(f"readlink /proc/{self.pid}/ns/net")


@pytest.fixture
def disk_at_work(dock: Dock, tmp_path: Path) -> str:
    """Return the disk of a camera in mid-visit: the helper has opened it, the daemon sends it."""
    camera = make_camera(dock.machine, tmp_path, "CAM1201", footage("CAM1201", 1, 8_000_000))
    since, before = dock.mark(), dock.store.unfinished_bytes()
    dock.plug(camera, "1", bytes_per_s=1_000_000)
    dock.wait_state("ingesting", since=since, camera=camera.camera_id)
    dock.store.wait_unfinished(before)
    return find_disk(dock.machine, camera).node


def test_the_process_with_the_network_holds_no_power(dock: Dock, disk_at_work: str) -> None:
    """INV-6: no capability in any thread, none to be gained, no device, and no way to one."""
    daemon = Process(dock.machine, "dockd.service")
    dockd = dock.machine.check("id --user dockd").strip()

    for status in daemon.statuses():
        assert status["Uid"].split() == [dockd] * 4
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == FILTERED
    assert daemon.capabilities() == {0}
    assert set(daemon.inside("find /dev -type b -o -type c").split()) <= HARMLESS
    opened = dock.machine.check(f"readlink /proc/{daemon.pid}/fd/*").split()
    assert {path for path in opened if path.startswith("/dev/")} <= HARMLESS
    outside = dock.machine.run(f"head --bytes=512 {disk_at_work}", user="dockd")
    assert "Permission denied" in outside.output
    assert daemon.network() == dock.machine.check("readlink /proc/1/ns/net")


def test_the_process_with_the_power_holds_no_network(dock: Dock, disk_at_work: str) -> None:
    """INV-6: the helper lives alone in a network without interfaces, with the cameras' disks."""
    helper = Process(dock.machine, "dockd-helper.service")

    assert helper.network() != dock.machine.check("readlink /proc/1/ns/net")
    interfaces = dock.machine.check(f"cat /proc/{helper.pid}/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    for protocol in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"):
        sockets = dock.machine.check(f"cat /proc/{helper.pid}/net/{protocol}").splitlines()[1:]
        assert sockets == [], protocol
    assert helper.capabilities() == {0, CAP_SYS_ADMIN}
    assert helper.may_open(disk_at_work)
    assert not helper.may_open("/dev/vda")
    assert not helper.may_open("/dev/mem")
    for status in helper.statuses():
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == FILTERED
