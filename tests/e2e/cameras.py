"""Cameras: image files with a file system made by the real tools, filled by the guest's own kernel."""

import hashlib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dockd.demo.footage import playable
from tests.e2e.machine import Machine, archive

USB_IDS = "46f4:0001"
"""What QEMU's USB disk says of itself."""

_MIB = 1 << 20
_RECORDED_AT_S = 1_750_000_000
_DIRTY_BITS = {"vfat": (0x41, 0x01), "exfat": (0x6A, 0x02)}
"""Where a file system keeps that it was not unmounted, in its first sector: place and bit."""
_MAKE = {
    # One sector a cluster, so that a small image has clusters enough for FAT32.
    "vfat": ("mkfs.vfat", "-F", "32", "-s", "1", "-n", "BODYCAM"),
    "exfat": ("mkfs.exfat", "-L", "BODYCAM"),
}

FileSystem = Literal["vfat", "exfat"]


@dataclass(frozen=True, slots=True)
class CameraImage:
    """A camera's medium, and what was recorded on it."""

    image: Path
    file_system: FileSystem
    serial: str
    recordings: Mapping[bytes, bytes]

    @property
    def camera_id(self) -> str:
        """The id under which dockd knows it."""
        return f"{USB_IDS}:{self.serial}"

    def digest(self) -> str:
        """Return the digest of the whole image, each bit of it."""
        with self.image.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def sector_of(self, path: bytes, at_byte: int = 0) -> int:
        """Return the 512-byte sector of the image in which this byte of a recording lies."""
        wanted = self.recordings[path][at_byte : at_byte + 256]
        image = self.image.read_bytes()
        place = image.find(wanted)
        assert place >= 0, "the recording is not in one piece on this image"
        assert image.find(wanted, place + 1) < 0, "the recording's bytes are not unique"
        return place // 512

    def mark_dirty(self) -> None:
        """Leave it as a camera does whose battery ran out while recording."""
        place, bit = _DIRTY_BITS[self.file_system]
        with self.image.open("r+b") as file:
            file.seek(place)
            state = file.read(1)[0]
            file.seek(place)
            file.write(bytes([state | bit]))


def footage(serial: str, count: int, size_bytes: int) -> dict[bytes, bytes]:
    """Return so many playable recordings, unlike those of any other camera."""
    return {
        path: b"".join(playable(size_bytes, f"{serial}/{path!r}"))
        for path in (b"DCIM/100MEDIA/MOV_%04d.MP4" % number for number in range(1, count + 1))
    }


def make_camera(
    machine: Machine,
    folder: Path,
    serial: str,
    recordings: Mapping[bytes, bytes],
    *,
    file_system: FileSystem = "exfat",
    size_mib: int = 48,
) -> CameraImage:
    """Make a camera with these recordings."""
    image = folder / f"{serial}.img"
    with image.open("wb") as file:
        file.truncate(size_mib * _MIB)
    subprocess.run([*_MAKE[file_system], str(image)], check=True, stdout=subprocess.DEVNULL)
    camera = CameraImage(image, file_system, serial, dict(recordings))
    record(machine, camera, recordings)
    return camera


def record(machine: Machine, camera: CameraImage, recordings: Mapping[bytes, bytes]) -> None:
    """Put recordings on a camera that is not docked, as the camera itself would."""
    tar = camera.image.with_suffix(".tar")
    files = {os.fsdecode(path): data for path, data in recordings.items()}
    tar.write_bytes(archive(files, mtime_s=_RECORDED_AT_S))
    with (
        machine.attached(camera.image, read_only=False) as device,
        machine.attached(tar, read_only=True) as source,
    ):
        machine.check(
            f"mount -t {camera.file_system} {device} /mnt && "
            f"tar --no-same-owner -C /mnt -xf {source} && umount /mnt"
        )
    tar.unlink()


def files_on(machine: Machine, camera: CameraImage) -> dict[bytes, str]:
    """Return the files on a camera that is not docked, with their digests, as the kernel reads them."""
    with machine.attached(camera.image, read_only=True) as device:
        listed = machine.check(
            f"mount -o ro -t {camera.file_system} {device} /mnt && cd /mnt && "
            "find . -type f -exec sha256sum {} +; cd /; umount /mnt"
        )
    lines = (line.split("  ./", 1) for line in listed.splitlines())
    return {os.fsencode(path): digest for digest, path in lines}


def folders_on(machine: Machine, camera: CameraImage) -> set[str]:
    """Return the directories on a camera that is not docked."""
    with machine.attached(camera.image, read_only=True) as device:
        listed = machine.check(
            f"mount -o ro -t {camera.file_system} {device} /mnt && cd /mnt && "
            "find . -mindepth 1 -type d -printf '%P\\n'; cd /; umount /mnt"
        )
    return set(listed.splitlines())
