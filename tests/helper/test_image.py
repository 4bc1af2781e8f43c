"""New file systems by the real mkfs tools: the same kind, label, volume id and cluster size as before."""

import contextlib
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from dockd.core.errors import DeviceRefusedError, HelperError
from dockd.helper.image import Image, recipe

MIB = 1 << 20
START = 2048 * 512

FAT = ("/usr/sbin/mkfs.vfat", "-i", "1A2B3C4D", "-n", "BODYCAM")
EXFAT = ("/usr/sbin/mkfs.exfat", "-L", "BODYCAM")

CASES: dict[str, tuple[str, int, Sequence[str]]] = {
    "fat12": ("vfat", 4 * MIB, (*FAT, "-F", "12")),
    "fat16": ("vfat", 64 * MIB, (*FAT, "-F", "16", "-s", "4")),
    "fat32": ("vfat", 40 * MIB, (*FAT, "-F", "32", "-s", "1")),
    "fat32 with one table": ("vfat", 80 * MIB, (*FAT, "-F", "32", "-s", "2", "-f", "1")),
    "exfat": ("exfat", 64 * MIB, (*EXFAT, "-c", "32K")),
    "exfat with large clusters": ("exfat", 80 * MIB, (*EXFAT, "-c", "128K")),
}


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    return done.stdout


def blkid(path: Path) -> dict[str, str]:
    lines = run("/usr/sbin/blkid", "-p", "-o", "export", str(path)).splitlines()
    found = dict(line.split("=", 1) for line in lines)
    return {key: found[key] for key in ("TYPE", "LABEL", "UUID", "VERSION")}


def cluster_bytes(path: Path) -> int:
    first = path.read_bytes()[:512]
    if first[3:8] == b"EXFAT":
        return 1 << (first[108] + first[109])
    return int.from_bytes(first[11:13], "little") * first[13]


@pytest.mark.parametrize("name", CASES)
def test_a_medium_is_formatted_as_it_was(name: str, tmp_path: Path) -> None:
    kind, size, command = CASES[name]
    if not Path(command[0]).exists():
        pytest.skip(f"needs {command[0]}")
    before, after = tmp_path / "before", tmp_path / "after"
    with before.open("wb") as file:
        file.truncate(size)
    run(*command, str(before))
    if kind == "exfat":
        run("/usr/sbin/tune.exfat", "-I", "0x1A2B3C4D", str(before))
    with before.open("rb") as file:
        made = recipe(kind, "BODYCAM", "1A2B-3C4D", file.read(4096), size_bytes=size, offset=START)

    # What was on the medium is all ones, so that nothing may rely on its being empty.
    after.write_bytes(b"\xff" * size)
    with Image(made) as image, after.open("r+b") as file:
        for start, piece in image.pieces(512):
            file.seek(start)
            file.write(piece)
        assert after.read_bytes()[:512] == b"\xff" * 512
        file.seek(0)
        file.write(image.beginning(512))
        assert re.search(r"mkfs\.\w+ \(.*\d+\.\d+", image.tool), (
            "the tool and its version are named"
        )

    assert blkid(after) == blkid(before)
    assert blkid(after)["UUID"] == "1A2B-3C4D"
    assert cluster_bytes(after) == cluster_bytes(before)
    run(f"/usr/sbin/fsck.{kind}", "-n", str(after))
    if kind == "vfat":
        assert int.from_bytes(after.read_bytes()[28:32], "little") == 2048, "the hidden sectors"
        assert after.read_bytes()[16] == before.read_bytes()[16], "the number of tables"


@pytest.mark.parametrize("kind", ["vfat", "exfat"])
@pytest.mark.parametrize("first", [bytes(4096), b"\xff" * 4096])
def test_what_is_no_boot_sector_is_refused(kind: str, first: bytes) -> None:
    with pytest.raises(DeviceRefusedError, match="boot sector"):
        recipe(kind, "", "1A2B-3C4D", first, size_bytes=64 * MIB, offset=0)


def test_other_file_systems_are_refused() -> None:
    with pytest.raises(DeviceRefusedError, match="use the method delete"):
        recipe("ntfs", "", "", bytes(4096), size_bytes=64 * MIB, offset=0)


@pytest.mark.parametrize("label", ["", "-n x", "A" * 40, "a\nb", "ÄÖ"])
def test_a_label_is_never_taken_for_an_option(label: str) -> None:
    """The label is the camera's word: it is made as it stands, or nothing is made."""
    if not Path(FAT[0]).exists():
        pytest.skip(f"needs {FAT[0]}")
    first = bytearray(4096)
    first[11:17] = b"\x00\x02\x04\x01\x00\x02"
    made = recipe("vfat", label, "1A2B-3C4D", bytes(first), size_bytes=300 * MIB, offset=0)
    with contextlib.suppress(HelperError), Image(made) as image:
        beginning = image.beginning(512)
        assert beginning[510:] == b"\x55\xaa"
        assert beginning[71:82].strip() == (label.encode("cp850").strip() or b"NO NAME")


def test_a_volume_id_that_is_none_is_refused() -> None:
    first = bytearray(4096)
    first[11:17] = b"\x00\x02\x04\x01\x00\x02"
    made = recipe("vfat", "", "1A2B-3C4D; rm", bytes(first), size_bytes=300 * MIB, offset=0)
    with pytest.raises(HelperError, match="volume id"):
        Image(made)
