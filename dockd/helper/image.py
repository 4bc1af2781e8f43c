"""New file systems, made in memory first: the same kind, label and volume id as before.

The mkfs tools never see a device. They write into a sparse memfd of the volume's size, and the few
megabytes that they wrote are then copied to the medium by us, the first block last. So a power cut
leaves either a medium that still carries our mark, or a whole new file system.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from dockd.core.errors import DeviceRefusedError, HelperError
from dockd.helper import programs
from dockd.helper.block import SECTOR_BYTES

_MKFS_TIMEOUT_S = 120.0
_PIECE_BYTES = 1 << 20
_VOLUME_ID = re.compile(r"([0-9A-Fa-f]{4})-([0-9A-Fa-f]{4})")
_OLD_TOOLS_SECTOR_BYTES = 512
"""What mkfs.exfat 1.2 always uses for a file."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is needed to make a file system like the one that is there.

    ``variant`` are the mkfs tool's own options for it: FAT width, cluster size.
    """

    type: str
    label: str
    uuid: str
    size_bytes: int
    offset: int
    variant: tuple[str, ...]


Commands = Sequence[Sequence[str]]
"""Programs with arguments; the path of the image is added at the end."""


def recipe(
    kind: str, label: str, uuid: str, first_block: bytes, *, size_bytes: int, offset: int
) -> Recipe:
    """Read from the first block how the file system was made.

    Raises DeviceRefusedError when one like it cannot be made.
    """
    if kind not in MAKERS:
        raise DeviceRefusedError(f"a {kind} file system cannot be made anew: use the method delete")
    return Recipe(kind, label, uuid, size_bytes, offset, MAKERS[kind].variant(first_block))


class Image:
    """A new file system in memory; use as a context. ``tool`` names what made it, and its version."""

    def __init__(self, recipe: Recipe) -> None:
        """Make it. Raises HelperError."""
        self._size = recipe.size_bytes
        self._fd = os.memfd_create("file system", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self._fd, self._size)
            self.tool = "; ".join(
                self._run(command) for command in MAKERS[recipe.type].make(recipe)
            )
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        """Return the image."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Forget it."""
        os.close(self._fd)

    def beginning(self, length: int) -> bytes:
        """Return the first bytes, which must be written last."""
        return os.pread(self._fd, length, 0)

    def pieces(self, position: int) -> Iterator[tuple[int, bytes]]:
        """Yield everything that was written from ``position`` on, with its place."""
        while True:
            try:
                start = os.lseek(self._fd, position, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing was written behind this
                return
            position = os.lseek(self._fd, start, os.SEEK_HOLE)
            while start < position:
                piece = os.pread(self._fd, min(_PIECE_BYTES, position - start), start)
                yield start, piece
                start += len(piece)

    def _run(self, command: Sequence[str]) -> str:
        # The descriptor has the same number in the child.
        path = f"/proc/self/fd/{self._fd}"
        printed = programs.run([*command, path], timeout_s=_MKFS_TIMEOUT_S, fds=(self._fd,))
        return f"{command[0].rpartition('/')[2]} ({printed.partition(chr(10))[0]})"


@dataclass(frozen=True, slots=True)
class Maker:
    """How file systems of one type are made: options from the old first block, then the programs."""

    variant: Callable[[bytes], tuple[str, ...]]
    make: Callable[[Recipe], Commands]


def _fat_variant(first: bytes) -> tuple[str, ...]:
    """Read the BIOS parameter block (Microsoft's FAT specification, "Boot Sector and BPB")."""
    sector, cluster_sectors, reserved, fats, entries, total, _, fat_sectors = struct.unpack_from(
        "<HBHBHHBH", first, 11
    )
    (total_32,) = struct.unpack_from("<I", first, 32)
    if sector not in (512, 1024, 2048, 4096) or cluster_sectors == 0 or fats == 0:
        raise DeviceRefusedError("its boot sector is not that of a FAT file system")
    width = 32
    if fat_sectors != 0:
        root_sectors = -(-entries * 32 // sector)
        data = (total or total_32) - reserved - fats * fat_sectors - root_sectors
        # By the specification, the count of clusters alone tells FAT12 from FAT16.
        width = 12 if data // cluster_sectors < 4085 else 16
    options = (("-F", width), ("-S", sector), ("-s", cluster_sectors), ("-f", fats))
    return tuple(part for key, value in options for part in (key, str(value)))


def _make_fat(recipe: Recipe) -> Commands:
    # An SD card or stick must not get a fake partition table, hence --mbr=n.
    command = ["/usr/sbin/mkfs.vfat", "--mbr=n", *recipe.variant]
    command += ["-i", _volume_id(recipe.uuid), "-h", str(recipe.offset // SECTOR_BYTES)]
    if recipe.label:
        command += ["-n", recipe.label]
    return [command]


def _exfat_variant(first: bytes) -> tuple[str, ...]:
    """Read the main boot sector (Microsoft's exFAT specification, section 3.1)."""
    sector_shift, cluster_shift = first[108], first[109]
    if first[3:11] != b"EXFAT   " or not 9 <= sector_shift <= 12 or cluster_shift > 25:
        raise DeviceRefusedError("its boot sector is not that of an exFAT file system")
    if 1 << sector_shift != _OLD_TOOLS_SECTOR_BYTES:
        raise DeviceRefusedError("an exFAT file system with large sectors cannot be made anew")
    return ("-c", str(1 << (sector_shift + cluster_shift)))


def _make_exfat(recipe: Recipe) -> Commands:
    command = ["/usr/sbin/mkfs.exfat", *recipe.variant]
    if recipe.label:
        command += ["-L", recipe.label]
    return [command, ["/usr/sbin/tune.exfat", "-I", f"0x{_volume_id(recipe.uuid)}"]]


def _volume_id(uuid: str) -> str:
    found = _VOLUME_ID.fullmatch(uuid or "0000-0000")
    if found is None:
        raise HelperError(f"{uuid!r} is not the volume id of a FAT file system")
    return found[1] + found[2]


MAKERS: Mapping[str, Maker] = {
    "vfat": Maker(_fat_variant, _make_fat),
    "exfat": Maker(_exfat_variant, _make_exfat),
}
