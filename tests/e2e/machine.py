"""A virtual machine with a USB hub into which a test plugs image files: QEMU, in software emulation.

The host reaches in by three doors: QEMU's monitor for hardware, the agent for commands, and the guest's
journal, which arrives here line by line while it is written.
"""

import base64
import io
import itertools
import json
import os
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.image import SystemImage
from tests.e2e.journal import Journal
from tests.e2e.qmp import Qmp

BOOT_WITHIN_S = 240.0
"""A boot takes 15 s on an idle machine; one that is shared may need many times that."""

HUB_PORTS = tuple(f"1.{number}" for number in range(1, 9))
"""The ports of the hub, as QEMU names them; the guest's kernel calls them ``1-1.1`` to ``1-1.8``."""

_COMMAND_WITHIN_S = 120.0
_LOOK_EVERY_S = 0.1
_START_WITHIN_S = 20.0
_JOURNAL_WITHIN_S, _JOURNAL_TRIES = 15.0, 4


class MachineError(Exception):
    """The virtual machine did not do what it must."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command in the guest ended, with all that it printed."""

    code: int
    output: str


class Machine:
    """One virtual machine. Its disk outlives it, so that a power cut can be followed by a boot."""

    def __init__(self, system: SystemImage, disk: Path, folder: Path) -> None:
        """Build; ``disk`` is a qcow2 file over the system's, ``folder`` takes the logs."""
        self._system = system
        self._disk = disk
        self._sockets = tempfile.TemporaryDirectory(prefix="e2e-")  # a short path: unix(7)
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._plugged: dict[str, bool] = {}
        self.serial_log = folder / "serial.log"
        self.journal = Journal(folder / "journal.log")

    def boot(self) -> None:
        """Switch on, and wait until commands can be run."""
        self.switch_on()
        self.wait_booted()

    def switch_on(self) -> None:
        """Switch on without waiting: what is plugged in now is there before udev is."""
        self._start_qemu()
        self._agent = self._connect("agent")
        self._agent_lines = self._agent.makefile("rb")

    def wait_booted(self) -> None:
        """Wait until a machine that was switched on runs commands, and its journal arrives here."""
        self.run("systemctl is-system-running --wait", timeout_s=BOOT_WITHIN_S)
        for _ in range(_JOURNAL_TRIES):
            since, words = self.journal.mark(), f"booted-{next(self._numbers)}"
            self.check(f"systemd-cat --identifier=e2e echo {words}")
            if self.journal.has(words, since=since, within_s=_JOURNAL_WITHIN_S):
                return
            # Its reader may have begun with files that journald was just putting aside.
            self.check("systemctl restart e2e-journal")
        raise MachineError("the guest's journal does not arrive")

    def cut_power(self) -> None:
        """Switch off at once, as when the power fails: what the guest had not written out is lost."""
        if self._process is None:
            return
        self._process.kill()
        self._ended()

    def shut_down(self) -> None:
        """Let the guest stop in order."""
        self.check("systemctl poweroff --no-block")
        if self._process is not None:
            self._process.wait(BOOT_WITHIN_S)
        self._ended()

    def close(self) -> None:
        """Switch off and leave nothing behind but logs and disk."""
        self.cut_power()
        self._sockets.cleanup()

    # Commands in the guest.

    def run(
        self, command: str, *, user: str | None = None, timeout_s: float = _COMMAND_WITHIN_S
    ) -> Ran:
        """Run a shell command in the guest, as root or another user, to its end."""
        number = next(self._numbers)
        request = {"id": number, "command": command, "user": user, "timeout_s": timeout_s}
        self._agent.settimeout(timeout_s + BOOT_WITHIN_S)
        self._agent.sendall(json.dumps(request).encode() + b"\n")
        while True:
            line = self._agent_lines.readline()
            if not line:
                raise MachineError(f"the machine went away during: {command}")
            answer = json.loads(line)
            if answer["id"] == number:
                output = base64.b64decode(answer["output"]).decode(errors="backslashreplace")
                return Ran(answer["code"], output)

    def check(self, command: str, **options: Any) -> str:
        """Run a command that must succeed; return what it printed."""
        ran = self.run(command, **options)
        if ran.code != 0:
            raise MachineError(f"{command!r} ended with {ran.code}:\n{ran.output}")
        return ran.output

    def wait(self, what: str, command: str, within_s: float = 60.0) -> None:
        """Run a command again and again until it succeeds."""
        deadline = time.monotonic() + within_s
        while (ran := self.run(command)).code != 0:
            if time.monotonic() > deadline:
                raise MachineError(f"not within {within_s:.0f} s: {what}:\n{ran.output}")
            time.sleep(_LOOK_EVERY_S)

    def send(self, files: Mapping[str, bytes], *, mode: int = 0o644) -> None:
        """Write files into the guest, as root, by their absolute paths."""
        with tempfile.NamedTemporaryFile(dir=self._sockets.name) as tar:
            tar.write(archive({path.lstrip("/"): data for path, data in files.items()}, mode))
            tar.flush()
            with self.attached(Path(tar.name), read_only=True) as device:
                # Set-up is not what a power cut is to hit.
                self.check(f"tar -C / --no-overwrite-dir -xf {device} && sync")

    @contextmanager
    def attached(self, image: Path, *, read_only: bool) -> Iterator[str]:
        """Give the guest an image as a disk that is not USB, so no camera; yield its device."""
        name = f"disk{next(self._numbers)}"
        self._qmp.execute(
            "blockdev-add",
            **{"driver": "raw", "node-name": name, "read-only": read_only},
            file={"driver": "file", "filename": str(image)},
        )
        self._qmp.execute("device_add", driver="virtio-blk-pci", drive=name, id=name, serial=name)
        device = f"/dev/disk/by-id/virtio-{name}"
        try:
            self.wait(f"{device} appears", f"test -b {device}")
            yield device
        finally:
            self._qmp.execute("device_del", id=name)
            self._qmp.wait_event("DEVICE_DELETED", lambda data: data.get("device") == name)
            self._qmp.execute("blockdev-del", **{"node-name": name})

    # Hardware.

    def plug(
        self,
        image: Path,
        port: str,
        *,
        serial: str,
        bytes_per_s: int | None = None,
        bad_sectors: Iterable[int] = (),
    ) -> str:
        """Plug a USB disk into a port; return the name to unplug it by.

        With ``bytes_per_s`` it is a slow card; ``bad_sectors`` (of 512 bytes) cannot be read.
        """
        name = f"usb{next(self._numbers)}"
        medium: dict[str, Any] = {"driver": "file", "filename": str(image)}
        faults = [{"event": "none", "iotype": "read", "sector": one} for one in bad_sectors]
        if faults:
            medium = {"driver": "blkdebug", "image": medium, "inject-error": faults}
        speed = {"qom-type": "throttle-group", "id": f"{name}-speed"}
        self._qmp.execute("object-add", **speed, limits={"bps-total": bytes_per_s or 0})
        medium = {"driver": "throttle", "throttle-group": speed["id"], "file": medium}
        self._qmp.execute("blockdev-add", **{"driver": "raw", "node-name": name}, file=medium)
        self._plugged[name] = True
        return self.plug_device("usb-storage", port, name=name, drive=name, serial=serial)

    def plug_device(self, driver: str, port: str, *, name: str = "", **properties: Any) -> str:
        """Plug any USB device that QEMU has into a port; return the name to unplug it by."""
        name = name or f"usb{next(self._numbers)}"
        self._qmp.execute(
            "device_add", driver=driver, bus="xhci.0", port=port, id=name, **properties
        )
        self._plugged.setdefault(name, False)
        return name

    def slow_down(self, name: str, requests_per_s: int) -> None:
        """Make a plugged USB disk one that takes its time over every request, however small."""
        self._qmp.execute(
            "qom-set",
            path=f"/objects/{name}-speed",
            property="limits",
            value={"iops-total": requests_per_s},
        )

    def unplug(self, name: str) -> None:
        """Pull a USB device out, whatever it is doing; its image file is then free."""
        self._qmp.execute("device_del", id=name)
        self._qmp.wait_event("DEVICE_DELETED", lambda data: data.get("device") == name)
        if self._plugged.pop(name):
            self._qmp.execute("blockdev-del", **{"node-name": name})

    def unplug_all(self) -> None:
        """Pull out whatever is plugged in."""
        for name in list(self._plugged):
            self.unplug(name)

    def set_link(self, *, up: bool) -> None:
        """Pull the network cable out, or put it in again."""
        self._qmp.execute("set_link", name="net0", up=up)

    # The process.

    def _start_qemu(self) -> None:
        if self._process is not None:
            raise MachineError("the machine is on already")
        self._plugged = {}
        for old in Path(self._sockets.name).iterdir():
            old.unlink()
        with self.serial_log.with_suffix(".qemu").open("ab") as output:
            self._process = subprocess.Popen(
                list(self._command()), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._until(lambda: self._path("qmp").exists())
        self._qmp = Qmp(self._path("qmp"))

    def _command(self) -> Iterator[str]:
        yield from ("qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,thread=multi")
        yield from ("-smp", "2", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot")
        yield from ("-kernel", str(self._system.kernel), "-initrd", str(self._system.initrd))
        yield from ("-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1 audit=0")
        yield from ("-drive", f"file={self._disk},format=qcow2,if=virtio")
        yield from ("-chardev", f"file,id=console,path={self.serial_log},append=on")
        yield from ("-serial", "chardev:console")
        yield from ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,id=net0")
        yield from ("-device", "virtio-rng-pci", "-device", "virtio-serial-pci")
        yield from ("-chardev", f"socket,id=agent,path={self._path('agent')},server=on,wait=off")
        yield from ("-device", "virtserialport,chardev=agent,name=e2e.agent")
        yield from ("-chardev", f"file,id=journal,path={self.journal.path},append=on")
        yield from ("-device", "virtserialport,chardev=journal,name=e2e.journal")
        yield from ("-device", "qemu-xhci,id=xhci,p2=8,p3=8")
        yield from ("-device", "usb-hub,id=hub,bus=xhci.0,port=1,ports=8,port-power=on")
        yield from ("-qmp", f"unix:{self._path('qmp')},server=on,wait=off")

    def _path(self, socket_name: str) -> Path:
        return Path(self._sockets.name) / socket_name

    def _connect(self, socket_name: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._path(socket_name)))
        return connection

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_WITHIN_S
        while not done():
            if self._process is None or self._process.poll() is not None:
                raise MachineError(f"QEMU did not start: {self.serial_log.with_suffix('.qemu')}")
            if time.monotonic() > deadline:
                raise MachineError("QEMU does not answer")
            time.sleep(0.02)

    def _ended(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None
        self._agent_lines.close()
        self._agent.close()
        self._qmp.close()


def archive(files: Mapping[str, bytes], mode: int = 0o644, mtime_s: float | None = None) -> bytes:
    """Return a tar archive of these files; names may be any bytes, given by ``os.fsdecode``."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape"
    ) as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), mode
            entry.mtime = int(time.time() if mtime_s is None else mtime_s)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def overlay(base: Path, disk: Path) -> Path:
    """Make a disk that begins as ``base`` and keeps its changes to itself."""
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", os.fspath(base), disk],
        check=True,
    )
    return disk
