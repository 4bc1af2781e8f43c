"""Cards that are damaged, hostile or just odd, all at once: each bay says what is wrong and what to do,
all that can be read is safe, nothing else is touched, and the bays beside carry on.
"""

import re
from pathlib import Path

from tests.e2e import bad_media
from tests.e2e.cameras import CameraImage, FileSystem, footage, make_camera
from tests.e2e.dock import Dock
from tests.e2e.guest_disk import mounted_file_systems

SIZE_MIB = 36
"""Small, and just enough for FAT32."""

ODD = (
    "\N{LATIN SMALL LETTER E WITH ACUTE}\N{CJK UNIFIED IDEOGRAPH-9304}.MP4", "-rf", "$(reboot)", "%00",
    "'; drop table", "&lt;b&gt;", "#~", "...MP4", "a b  c.MP4", "\N{POLICE CAR}", "x" * 200,
)  # fmt: skip
MANY = 1_000


def test_each_bad_medium_ends_in_words_and_the_others_carry_on(dock: Dock, tmp_path: Path) -> None:
    """INV-1, INV-2, INV-5, INV-8."""
    no_table = camera(dock, tmp_path, "CAM1301")
    bad_media.break_partition_table(no_table)
    two_parts = bad_media.partitioned(
        tmp_path,
        "CAM1302",
        [
            (bad_media.FAT32_LBA, camera(dock, tmp_path, "PART1", "vfat")),
            (bad_media.FAT32_LBA, camera(dock, tmp_path, "PART2", "exfat")),
        ],
    )
    no_medium = CameraImage(tmp_path / "CAM1303.img", "vfat", "CAM1303", {})
    no_medium.image.touch()
    noise_vfat = camera(dock, tmp_path, "CAM1304", "vfat")
    noise_exfat = camera(dock, tmp_path, "CAM1305", "exfat")
    bad_media.break_allocation_table(noise_vfat)
    bad_media.break_allocation_table(noise_exfat)
    lost_clip = camera(dock, tmp_path, "CAM1308", "vfat")
    bad_media.break_allocation_table(lost_clip, spared_bytes=64)
    in_loop = camera(dock, tmp_path, "CAM1306", "vfat", {b"OUTER/INNER/CLIP.MP4": b"in a loop"})
    bad_media.make_loop(in_loop, "OUTER", "INNER")
    odd_type = bad_media.partitioned(
        tmp_path, "CAM1307", [(bad_media.LINUX, camera(dock, tmp_path, "PART3", "exfat"))]
    )
    expected = {
        "1": (no_table, "refused", "no file system was recognised"),
        "2": (two_parts, "refused", "it cannot be told which of them is the one with footage"),
        "3": (no_medium, "refused", "there is no card in it"),
        "4": (noise_vfat, "attention", "its vfat is not mountable.*recover"),
        "5": (noise_exfat, "attention", "its exfat is not mountable.*recover"),
        "6": (in_loop, "attention", "could not be looked into, first OUTER/INNER.*recover"),
        "8": (lost_clip, "attention", "1 recordings set aside: .*MOV_0001.MP4: Input/output error"),
    }
    before = [bad.digest() for bad, _, _ in expected.values()]
    since = dock.mark()

    plugged = [dock.plug(bad, bay) for bay, (bad, _, _) in expected.items()]
    dock.plug(odd_type, "7")

    for bay, (_, _, words) in expected.items():
        dock.wait("bay.attention", since=since, bay=bay, reason=re.compile(words))
    dock.wait_state("ready", since=since, bay="7")
    assert dock.store.held(odd_type.camera_id) == odd_type.recordings
    status = dock.status()
    for bay, (_, state, words) in expected.items():
        assert status[bay]["state"] == state
        assert re.search(words, status[bay]["reason"])

    clip = b"DCIM/100MEDIA/MOV_0001.MP4"
    assert dock.store.held(in_loop.camera_id)[clip] == in_loop.recordings[clip]
    for bad, _, _ in expected.values():
        assert dock.store.manifests(bad.camera_id) == 0
    assert dock.seen("wipe.done", since=since, bay="7") != []
    assert len(dock.seen("wipe.done", since=since)) == 1, "the good one alone was erased"
    dock.check_custody()
    for name in plugged:
        dock.machine.unplug(name)
    assert [bad.digest() for bad, _, _ in expected.values()] == before
    assert mounted_file_systems(dock.machine) == 0


def test_a_thousand_files_with_odd_names_are_all_taken_and_erased(
    dock: Dock, tmp_path: Path
) -> None:
    """INV-1, INV-2: empty ones among them, and names that programs could stumble over."""
    names = [f"DCIM/{number:04}{ODD[number % len(ODD)]}" for number in range(MANY)]
    recordings = {name.encode(): name.encode() * (number % 3) for number, name in enumerate(names)}
    many = make_camera(dock.machine, tmp_path, "CAM1311", recordings)
    since = dock.mark()

    plugged = dock.plug(many, "1")

    summary = dock.wait("visit.finished", since=since, camera=many.camera_id, within_s=240)
    assert (summary["verdict"], summary["erased"]) == ("wiped", MANY)
    assert dock.store.held(many.camera_id) == recordings
    dock.machine.unplug(plugged)


def camera(
    dock: Dock,
    folder: Path,
    serial: str,
    file_system: FileSystem = "vfat",
    more: dict[bytes, bytes] | None = None,
) -> CameraImage:
    """Make a small camera with one clip, and more if wanted."""
    recordings = footage(serial, 1, 300_000) | (more or {})
    return make_camera(
        dock.machine, folder, serial, recordings, file_system=file_system, size_mib=SIZE_MIB
    )
