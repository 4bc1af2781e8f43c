"""Damages media, as cards are damaged and as somebody who means harm would do it."""

import random
import shutil
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.e2e.cameras import CameraImage

FAT32_LBA, LINUX = 0x0C, 0x83
"""What a partition table says is in a partition; nobody has to keep to it."""

_SECTOR = 512
_ALIGNMENT = 1 << 20
_DIRECTORY = 0x10
_ENTRY_BYTES = 32


def partitioned(folder: Path, serial: str, parts: Sequence[tuple[int, CameraImage]]) -> CameraImage:
    """Put the media of cameras onto one disk as its partitions, each with its type in an MBR table."""
    table = b""
    image = folder / f"{serial}.img"
    with image.open("wb") as disk:
        for kind, part in parts:
            start = max(_ALIGNMENT, disk.seek(0, 2))
            disk.seek(start)
            with part.image.open("rb") as source:
                shutil.copyfileobj(source, disk)
            table += _partition(kind, start, part.image.stat().st_size)
        disk.seek(0)
        disk.write(_mbr(table))
    recordings = {path: data for _, part in parts for path, data in part.recordings.items()}
    return replace(parts[0][1], image=image, serial=serial, recordings=recordings)


def break_partition_table(camera: CameraImage) -> None:
    """Write a partition table over the beginning whose partitions all lie beyond the end."""
    end = camera.image.stat().st_size
    table = b"".join(_partition(FAT32_LBA, end + _ALIGNMENT * n, _ALIGNMENT) for n in range(4))
    # The boot sector's copy as well, else what was there could still be recognised.
    _write(camera, 0, _mbr(table).ljust(_ALIGNMENT, b"\0"))


def break_allocation_table(camera: CameraImage, *, spared_bytes: int = 0) -> None:
    """Fill the file allocation table with noise: which clusters belong together is lost.

    Its beginning, where the directories are that were made first, may be spared.
    """
    with camera.image.open("rb") as file:
        boot = file.read(_SECTOR)
    if camera.file_system == "vfat":
        sector_bytes, _, reserved, tables = struct.unpack_from("<HBHB", boot, 11)
        (sectors,) = struct.unpack_from("<I", boot, 36)
        start, length = reserved * sector_bytes, tables * sectors * sector_bytes
    else:
        first, sectors = struct.unpack_from("<II", boot, 80)
        start, length = first << boot[108], sectors << boot[108]
    noise = random.Random(camera.serial).randbytes(length - spared_bytes)
    _write(camera, start + spared_bytes, noise)


def make_loop(camera: CameraImage, outer: str, inner: str) -> None:
    """Make a directory of a FAT file system contain itself under the name of one inside it."""
    image = camera.image.read_bytes()
    around, inside = (_directory_entry(image, name) for name in (outer, inner))
    for first, size in ((20, 2), (26, 2)):
        where = slice(around + first, around + first + size)
        _write(camera, inside + first, image[where])


def _directory_entry(image: bytes, name: str) -> int:
    """Return where the one entry of a directory with a short name is."""
    pattern = name.encode().ljust(11) + bytes([_DIRECTORY])
    place = image.find(pattern)
    assert place % _ENTRY_BYTES == 0, f"no directory {name}"
    assert image.find(pattern, place + 1) < 0, f"{name} is there more than once"
    return place


def _partition(kind: int, start: int, size_bytes: int) -> bytes:
    return struct.pack("<4xB3xII", kind, start // _SECTOR, size_bytes // _SECTOR)


def _mbr(table: bytes) -> bytes:
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


def _write(camera: CameraImage, place: int, data: bytes) -> None:
    with camera.image.open("r+b") as file:
        file.seek(place)
        file.write(data)
