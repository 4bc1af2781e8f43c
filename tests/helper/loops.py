"""Cameras for the helper's tests: loop devices with ext4, each over a file of the test's own.

The kernel of an ordinary test machine has ext4 and loop devices, and often neither vfat nor USB. So
these cameras are real block devices with a real file system, and only what USB and udev would say of
them is told by hand. Everything here needs root.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dockd.cameras.discovery import Disk, FileSystem, UsbDevice
from dockd.cameras.profiles import Profile
from dockd.helper.image import Maker, Recipe

PORT = "1-1.4"
CAMERA = "1d6b:0104:CAM-0007"
LABEL, UUID = "BODYCAM", "0d2f7c3a-54a1-4f0c-9a5e-3b7f5a1c0e11"
SIZE_BYTES = 8 << 20
PARTITION_START = 2048

CONTENTS = {
    b"DCIM/100/MOV_0001.MP4": b"first clip" * 30_000,
    b"DCIM/100/MOV_0002.MP4": b"second clip" * 10,
    b"DCIM/empty.MP4": b"",
    b"new\nline \xff": b"odd name",
}
SETTINGS = {b"CONFIG/camera.ini": b"owner=4711\n" * 50}
DIRECTORIES = (b"DCIM", b"DCIM/100", b"DCIM/101", b"CONFIG")

_MKFS = ("/usr/sbin/mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=0")


def _make_ext4(recipe: Recipe) -> Sequence[Sequence[str]]:
    return [[*_MKFS, "-U", recipe.uuid, "-L", recipe.label]]


EXT4 = Maker(lambda _first_block: (), _make_ext4)
"""How the test's file system is made anew; the helper itself knows FAT and exFAT only."""


def why_not_here() -> str | None:
    """Return why loop devices cannot be used here, or None."""
    if os.geteuid() != 0:
        return "needs root: loop devices, mounts and the write block are root's"
    if not Path("/dev/loop-control").exists():
        return "this machine has no loop devices"
    if "\text4\n" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        return "this kernel has no ext4"
    return None


def profile(method: str = "delete", **tables: Any) -> Profile:
    """A profile of a camera model that exists in tests only."""
    return Profile.model_validate(
        {
            "name": "test-ext4",
            "title": "A camera of the tests",
            "match": {"vendor": "1d6b", "product": "0104"},
            "file_system": {"allowed": ["ext4"]},
            "footage": {"settings": ["CONFIG/*"]},
            "wipe": {"method": method},
            **tables,
        }
    )


@dataclass
class LoopCamera:
    """One camera: an image file, and the loop device over it while it is plugged in."""

    image: Path
    partitioned: bool = False
    node: str = ""
    tagged: bool = True
    port: str = PORT
    devnum: int = 7
    changes: dict[str, Any] = field(default_factory=dict)

    def make(self, contents: Mapping[bytes, bytes]) -> None:
        """Create the image with these files, the camera's settings and its directories."""
        tree = self.image.parent / f"{self.image.name}.tree"
        for name in DIRECTORIES:
            (tree / os.fsdecode(name)).mkdir(parents=True)
        for name, content in {**contents, **SETTINGS}.items():
            path = tree / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for path in (tree, *tree.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        volume = self.image.parent / f"{self.image.name}.volume"
        with volume.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _run(*_MKFS, "-U", UUID, "-L", LABEL, "-d", str(tree), str(volume))
        with self.image.open("wb") as file:
            if self.partitioned:
                file.write(os.urandom(PARTITION_START * 512))
                file.seek(0)
                file.write(_mbr(SIZE_BYTES // 512))
                file.seek(PARTITION_START * 512)
            file.write(volume.read_bytes())
            file.truncate(file.tell() + (8192 if self.partitioned else 0))
        volume.unlink()

    @contextmanager
    def plugged(self) -> Iterator[None]:
        """Attach a loop device. Proves that whatever is written to it lands in our own file."""
        scan = ["-P"] if self.partitioned else []
        self.node = _run("losetup", "-f", "--show", *scan, str(self.image)).strip()
        try:
            backing = Path(f"/sys/block/{self.node[5:]}/loop/backing_file")
            assert backing.read_text(encoding="utf-8").strip() == str(self.image)
            if self.partitioned and not Path(f"{self.node}p1").exists():
                # Not every test kernel reads partition tables.
                _run("addpart", self.node, "1", str(PARTITION_START), str(SIZE_BYTES // 512))
            yield
        finally:
            if self.partitioned:
                subprocess.run(["delpart", self.node, "1"], check=False, capture_output=True)
            _run("losetup", "-d", self.node)
            self.node = ""

    @property
    def volume(self) -> str:
        return f"{self.node}p1" if self.partitioned else self.node

    def device(self) -> UsbDevice:
        """What discovery would say of it now."""
        found = _blkid(self.volume)
        number = 1 if self.partitioned else None
        volumes = (
            (FileSystem(self.volume, found["TYPE"], found["LABEL"], found["UUID"], number),)
            if found.get("TYPE")
            else ()
        )
        disk = Disk(self.node, self.image.stat().st_size, False, volumes, int(self.partitioned))
        about: dict[str, Any] = {
            "port": self.port,
            "devnum": self.devnum,
            "sys_path": f"/sys/block/{self.node[5:]}",
            "vendor": "1d6b",
            "product": "0104",
            "serial": "CAM-0007",
            "model": "test camera",
            "interface_classes": frozenset({8}),
            "speed_mbps": 480.0,
            "authorized": True,
            "tagged": self.tagged,
            "complete": True,
            "disks": (disk,),
        }
        return UsbDevice(**{**about, **self.changes})

    def find(self) -> list[UsbDevice]:
        """The stand-in for discovery: this camera, while it is plugged in."""
        return [self.device()] if self.node else []

    def content(self) -> bytes:
        """Everything on the medium."""
        return self.image.read_bytes()

    def files(self) -> dict[bytes, bytes]:
        """Every file on it, read without the kernel's and the helper's help."""
        with self._unpacked() as tree:
            return {name: path.read_bytes() for name, path in tree.items() if path.is_file()}

    def directories(self) -> set[bytes]:
        """Every directory on it."""
        with self._unpacked() as tree:
            return {name for name, path in tree.items() if path.is_dir()} - {b"lost+found"}

    @contextmanager
    def _unpacked(self) -> Iterator[dict[bytes, Path]]:
        volume = self.image
        if self.partitioned:
            volume = self.image.parent / f"{self.image.name}.volume"
            start = PARTITION_START * 512
            volume.write_bytes(self.content()[start : start + SIZE_BYTES])
        with TemporaryDirectory(dir=self.image.parent) as out:
            _run("/usr/sbin/debugfs", "-R", f"rdump / {out}", str(volume))
            yield {os.fsencode(path.relative_to(out)): path for path in Path(out).rglob("*")}


def write_raw(node: str) -> None:
    """Write a sector to the device itself, as root; raises PermissionError when it is write-blocked."""
    fd = os.open(node, os.O_WRONLY)
    try:
        os.pwrite(fd, b"x" * 512, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def is_free(node: str) -> bool:
    """Whether nothing in any mount namespace uses the device."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return False
    return True


def _blkid(node: str) -> dict[str, str]:
    printed = subprocess.run(
        ["/usr/sbin/blkid", "-p", "-o", "export", node], check=False, capture_output=True, text=True
    ).stdout
    pairs = (line.partition("=") for line in printed.splitlines())
    return {"LABEL": "", "UUID": "", **{key: value for key, _, value in pairs}}


def _mbr(sectors: int) -> bytes:
    entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0])
    entry += PARTITION_START.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    return b"boot code".ljust(446, b"\x90") + entry.ljust(64, b"\0") + b"\x55\xaa"


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
