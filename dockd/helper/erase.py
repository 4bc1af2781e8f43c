"""Erasing a camera, once the wipe gate has permitted it: by deleting, formatting or overwriting.

Deleting touches the listed files only, and can be proved anew at any moment. Formatting and
overwriting destroy what a proof would be read from, so they go through the ledger:

1. the new file system is made in memory; if that fails, nothing has happened;
2. the entry is written, durably; then the mark replaces the first block of the volume;
3. overwrite only: every block of the disk but the mark is written, then read back and compared;
4. the new file system is copied, all but its first block, and read back; then the first block;
5. the camera's directories and settings are put back, the medium is mounted anew and compared;
6. the report is kept in the ledger, and the entry is removed.

Cut short up to the last write of step 4, the medium carries the mark and all starts again at step 3;
after that, it has a whole and empty file system, and step 5 is taken again.
"""

import base64
import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from dockd.cameras import wiping
from dockd.cameras.directory import ListingLimits
from dockd.cameras.footage import FootageVolume
from dockd.cameras.profiles import Profile
from dockd.core.errors import CameraError, CameraUnreadableError, DeviceRefusedError
from dockd.core.interfaces import ShouldStop
from dockd.core.model import Camera, WipeReport
from dockd.core.wipe_gate import FreshFile, WipePermit
from dockd.helper import keeping
from dockd.helper.bays import Docked
from dockd.helper.block import BLOCK_BYTES, SECTOR_BYTES, DirectDisk, Medium
from dockd.helper.image import Image, recipe
from dockd.helper.ledger import Entry, Ledger, new_token
from dockd.helper.mounts import DetachedMount

LIMITS = ListingLimits(max_files=1_000_000, max_depth=256)
"""The largest that a dock's configuration can set: never less than what dockd has seen."""

LEVELS = {
    "delete": wiping.LEVEL,
    "format": wiping.LEVEL,
    "overwrite": "clear (NIST SP 800-88r2): all addressable blocks; what the card holds back is out of reach",
}
"""What each method is, in the words of the standard; docs/wipe-gate.md explains them."""

ROOT = (0, 0)

_GPT_PROTECTIVE = 0xEE
_CHUNK_BYTES = DirectDisk.BUFFER_BYTES

Now = Callable[[], datetime]


class EraseStoppedError(Exception):
    """The caller wants no more of it; the medium is marked and will be finished when docked again."""


def delete(
    medium: Medium,
    mount: DetachedMount,
    docked: Docked,
    permit: WipePermit,
    *,
    now: Now,
    should_stop: ShouldStop,
) -> WipeReport:
    """Delete what the permit names through a mount made writable for this moment. Closes the mount.

    Afterwards the medium is write-blocked, mounted anew and listed. Raises CameraError.
    """
    volume = view(mount, docked.profile, docked.camera)
    with contextlib.closing(volume), _written(medium, mount):
        report = wiping.erase(volume, permit, now=now, should_stop=should_stop)
    mount.close()
    if not report.verified:
        return report
    with mounted(medium, docked.file_system.type) as again:
        left = files_left(again, docked.profile, docked.camera)
    words = "written back, mounted anew and listed: no recording is left"
    if left:
        words = f"{left} files are still there after mounting anew"
    return replace(report, verified=not left, verification=words)


def plan(
    medium: Medium,
    mount: DetachedMount,
    docked: Docked,
    files: tuple[FreshFile, ...],
    *,
    visit: str,
    manifest_sha256: str,
    now: Now,
) -> Entry:
    """Write down all that formatting or overwriting will need, from a medium that is still whole.

    Raises CameraError, and DeviceRefusedError when the camera could not be given back as it was.
    """
    file_system = docked.file_system
    if docked.profile.wipe.method == "overwrite":
        _require_simple_layout(medium)
    with contextlib.closing(view(mount, docked.profile, docked.camera)) as volume:
        directories = keeping.directories(volume)
        settings = keeping.settings(volume)
    with medium.direct(write=False) as disk:
        first_block = disk.read(medium.offset, BLOCK_BYTES)
    made = recipe(
        file_system.type,
        file_system.label,
        file_system.uuid,
        first_block,
        size_bytes=medium.volume_size,
        offset=medium.offset,
    )
    return Entry(
        token=new_token(),
        begun_at=now(),
        method=docked.profile.wipe.method,
        camera=docked.camera.camera_id,
        identified_by=docked.camera.identified_by,
        visit=visit,
        manifest_sha256=manifest_sha256,
        disk_bytes=medium.size,
        type=made.type,
        label=made.label,
        uuid=made.uuid,
        volume_bytes=made.size_bytes,
        volume_offset=made.offset,
        variant=made.variant,
        directories_b64=tuple(base64.b64encode(path).decode() for path in directories),
        settings=tuple(settings),
        recordings=len(files),
        footage_bytes=sum(file.stat.size_bytes for file in files),
    )


def carry_out(
    medium: Medium,
    entry: Entry,
    profile: Profile,
    ledger: Ledger,
    *,
    now: Now,
    should_stop: ShouldStop,
    resumed: bool,
) -> WipeReport:
    """Format or overwrite as the entry says, from its beginning, whether it is new or was cut short.

    Its report stays in the ledger until it is acknowledged. Stopped on the way, it returns one that is
    not verified. Raises CameraError, HelperError.
    """
    with Image(entry.recipe) as image:
        ledger.add(entry)
        try:
            with medium.writable(), medium.direct(write=True) as disk:
                disk.write(entry.volume_offset, entry.mark())
                disk.sync()
                if entry.method == "overwrite":
                    _overwrite(disk, entry, should_stop)
                _copy(disk, image, entry.volume_offset, medium.logical_block)
        except EraseStoppedError:
            words = "stopped before the end; it is finished when the camera is docked again"
            return _report(entry, now(), image.tool, words, verified=False)
        tool = image.tool
    give_back(medium, entry, profile)
    words = "the new file system was read back, mounted anew and compared"
    if entry.method == "overwrite":
        words = f"every block was read back and compared; {words}"
    report = replace(_report(entry, now(), tool, words, verified=True), resumed=resumed)
    ledger.finish(entry, report)
    return report


def give_back(medium: Medium, entry: Entry, profile: Profile) -> None:
    """Put directories and settings back into the new file system, and compare from a new mount.

    Raises CameraError, also when there is anything else on it.
    """
    camera = Camera(entry.camera, entry.identified_by)
    with (
        mounted(medium, entry.type, writable=True) as mount,
        contextlib.closing(view(mount, profile, camera)) as volume,
        _written(medium, mount),
    ):
        keeping.put_back(mount.fd, volume, entry.directories, entry.settings)
    with mounted(medium, entry.type) as mount:
        left = files_left(mount, profile, camera)
        with contextlib.closing(view(mount, profile, camera)) as volume:
            problem = keeping.missing(volume, entry.directories, entry.settings)
    if left or problem:
        raise CameraUnreadableError(
            f"the formatted medium is not as it should be: {problem or left}"
        )


def stopped_report(method: str, now: Now) -> WipeReport:
    """Return the report of a wipe that was stopped before anything was erased."""
    return WipeReport(
        method=method,
        level=LEVELS[method],
        files_erased=0,
        bytes_erased=0,
        verified=False,
        verification="stopped before anything was erased",
        finished_at=now(),
        tool=wiping.TOOL,
    )


def report_of(entry: Entry, now: Now, verification: str) -> WipeReport:
    """Return the report of an erasing whose end only had to be completed."""
    return replace(_report(entry, now(), "", verification, verified=True), resumed=True)


@contextlib.contextmanager
def mounted(medium: Medium, file_system: str, *, writable: bool = False) -> Iterator[DetachedMount]:
    """Mount the volume read-only for ourselves, with nothing of it in any cache. Raises CameraError."""
    medium.require_unused()
    medium.forget_cached()
    with DetachedMount(medium.volume, file_system, ROOT, writable=writable) as mount:
        yield mount


def view(mount: DetachedMount, profile: Profile, camera: Camera) -> FootageVolume:
    """Return the mounted file system as dockd sees it too; the caller closes it."""
    return FootageVolume(os.dup(mount.fd), LIMITS, camera.camera_id, profile)


def files_left(mount: DetachedMount, profile: Profile, camera: Camera) -> int:
    """Count the recordings, and what may hide one. Raises CameraError."""
    with contextlib.closing(view(mount, profile, camera)) as volume:
        listing = volume.list_files()
    return len(listing.files) + sum(entry.reason.hides_footage for entry in listing.skipped)


@contextlib.contextmanager
def _written(medium: Medium, mount: DetachedMount) -> Iterator[None]:
    """Make medium and mount writable for the time of a ``with`` block, and write back at its end."""
    with medium.writable():
        mount.make_writable()
        try:
            yield
        except BaseException:
            with contextlib.suppress(CameraError):
                mount.make_read_only()
            raise
        mount.make_read_only()


def _require_simple_layout(medium: Medium) -> None:
    """Refuse to overwrite a disk whose partition table could not be given back as it was."""
    if not medium.partitioned:
        return
    with medium.direct(write=False) as disk:
        first = disk.read(0, BLOCK_BYTES)
    kinds = {first[446 + 16 * number + 4] for number in range(4)}
    if (
        medium.partition_count != 1
        or first[510:512] != b"\x55\xaa"
        or _GPT_PROTECTIVE in kinds
        or medium.offset < BLOCK_BYTES
    ):
        raise DeviceRefusedError(
            "only a disk with one partition in an MBR table, or with none, can be overwritten"
        )


def _overwrite(disk: DirectDisk, entry: Entry, should_stop: ShouldStop) -> None:
    """Write every block but the mark, then read all of it back. Raises CameraError, EraseStoppedError."""
    noise = os.urandom(_CHUNK_BYTES)
    if entry.volume_offset:
        # The partition table stays, whatever else is in its block goes.
        table = disk.read(0, BLOCK_BYTES)[:SECTOR_BYTES].ljust(BLOCK_BYTES, b"\0")
        disk.write(0, table)
    for start, length in _chunks(entry):
        if should_stop():
            raise EraseStoppedError
        disk.write(start, _pattern(noise, start, length))
    disk.sync()
    for start, length in _chunks(entry):
        if should_stop():
            raise EraseStoppedError
        if disk.read(start, length) != _pattern(noise, start, length):
            raise CameraUnreadableError(
                f"what was written at byte {start} does not read back: the card is worn out or a fake"
            )


def _chunks(entry: Entry) -> Iterator[tuple[int, int]]:
    """Yield the pieces of the disk around its partition table and the mark, as (start, length)."""
    behind_mark = (entry.volume_offset + BLOCK_BYTES, entry.disk_bytes)
    before = (BLOCK_BYTES, entry.volume_offset)
    for position, end in (before, behind_mark) if entry.volume_offset else (behind_mark,):
        start = position
        while start < end:
            length = min(_CHUNK_BYTES, end - start)
            yield start, length
            start += length


def _pattern(noise: bytes, start: int, length: int) -> bytes:
    """Return noise that says in each block where it belongs, so that no card can fake its size."""
    data = bytearray(noise[:length])
    for at in range(0, length - 7, BLOCK_BYTES):
        struct.pack_into("<Q", data, at, start + at)
    return bytes(data)


def _copy(disk: DirectDisk, image: Image, offset: int, first_bytes: int) -> None:
    """Copy the new file system and read it back, and only then write its beginning."""
    for start, piece in image.pieces(first_bytes):
        disk.write(offset + start, piece)
    disk.sync()
    for start, piece in image.pieces(first_bytes):
        _require_same(disk, offset + start, piece)
    beginning = image.beginning(first_bytes)
    disk.write(offset, beginning)
    disk.sync()
    _require_same(disk, offset, beginning)


def _require_same(disk: DirectDisk, start: int, data: bytes) -> None:
    if disk.read(start, len(data)) != data:
        raise CameraUnreadableError(f"what was written at byte {start} does not read back")


def _report(
    entry: Entry, finished_at: datetime, tool: str, verification: str, *, verified: bool
) -> WipeReport:
    return WipeReport(
        method=entry.method,
        level=LEVELS[entry.method],
        files_erased=entry.recordings,
        bytes_erased=entry.footage_bytes,
        verified=verified,
        verification=verification,
        finished_at=finished_at,
        preserved=tuple(file.path for file in entry.settings),
        tool="; ".join(part for part in (wiping.TOOL, tool) if part),
    )
