"""Cameras in memory: files of any size, every kind of trouble, and a wipe through the real gate.

A readable second opinion of what ``dockd.cameras`` must do. Nothing here starts a thread or waits,
and everything may be called from any thread.

    camera = SimulatedCamera("BWC-7")
    camera.record(b"DCIM/MOV_0001.MP4", Generated(size_bytes=5_000_000, seed=1), fails_at=70_000)
    source = SimulatedSource(["1", "2"], authority, clock)
    source.plug("1", camera)
"""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dockd.cameras.wiping import WipeAuthority
from dockd.core.errors import CameraGoneError, CameraUnreadableError
from dockd.core.interfaces import Clock, ShouldStop
from dockd.core.model import (
    Camera,
    ChargeStatus,
    EndedWipe,
    FileStat,
    IdentifiedBy,
    ListedFile,
    Listing,
    Power,
    Presence,
    SkippedEntry,
    WipeReport,
    WipeRequest,
    display_name,
)
from dockd.core.wipe_gate import (
    Expected,
    FreshFile,
    FreshReading,
    SealedManifest,
    WipeRefused,
    examine,
)
from dockd.evidence.manifests import read_manifest

FIRST_MTIME_NS = 1_900_000_000_000_000_000
"""When the first file of a simulation was made, unless the test says otherwise."""

_BLOCK_BYTES = 65_521


@dataclass(frozen=True, slots=True)
class Generated:
    """Bytes that follow from a seed, at any size without memory for them."""

    size_bytes: int
    seed: int = 0

    def read(self, offset: int, size_bytes: int) -> bytes:
        block = random.Random(self.seed).randbytes(_BLOCK_BYTES)
        end = min(self.size_bytes, offset + size_bytes)
        first = offset // _BLOCK_BYTES
        blocks = block * (end // _BLOCK_BYTES - first + 1)
        return blocks[offset - first * _BLOCK_BYTES : end - first * _BLOCK_BYTES]


@dataclass(slots=True)
class SimulatedFile:
    """A file and the troubles that a reading of it runs into, each at a byte of the file.

    At ``fails_at`` reading gives EIO; at ``vanishes_at`` the whole camera goes; at ``changes_at`` the
    file gets a new time and ``changed_content``, once.
    """

    content: bytes | Generated
    mtime_ns: int
    inode: int
    ctime_ns: int
    settled: bool = True
    fails_at: int | None = None
    vanishes_at: int | None = None
    changes_at: int | None = None
    changed_content: bytes | Generated = b""

    @property
    def stat(self) -> FileStat:
        return FileStat(self.size_bytes, self.mtime_ns, self.ctime_ns, self.inode)

    @property
    def size_bytes(self) -> int:
        if isinstance(self.content, Generated):
            return self.content.size_bytes
        return len(self.content)

    def read(self, offset: int, size_bytes: int) -> bytes:
        if isinstance(self.content, Generated):
            return self.content.read(offset, size_bytes)
        return self.content[offset : offset + size_bytes]

    def chunks(self) -> Iterator[bytes]:
        """Yield the whole content, without any trouble."""
        for offset in range(0, self.size_bytes, 1 << 20):
            yield self.read(offset, 1 << 20)


@dataclass(slots=True)
class SimulatedCamera:
    """A camera that can be plugged into a :class:`SimulatedSource`, with its files by path.

    ``erased`` keeps path and digest of everything a wipe took away, for checks of INV-1.
    ``vanishes_after_erasing`` pulls it in mid-wipe, after so many files. ``breaks_off`` pulls it in the
    middle of a formatting, which the next opening finishes: meanwhile ``half_erased`` is its report.
    """

    camera_id: str
    files: dict[bytes, SimulatedFile] = field(default_factory=dict)
    skipped: list[SkippedEntry] = field(default_factory=list)
    erased: list[tuple[bytes, str]] = field(default_factory=list)
    unreadable: bool = False
    vanishes_after_erasing: int | None = None
    breaks_off: bool = False
    half_erased: EndedWipe | None = None
    draw_ma: int = 500
    _ticks: int = 0

    def record(
        self,
        path: bytes,
        content: bytes | Generated,
        *,
        mtime_ns: int | None = None,
        settled: bool = True,
        fails_at: int | None = None,
        vanishes_at: int | None = None,
        changes_at: int | None = None,
        changed_content: bytes | Generated = b"",
    ) -> SimulatedFile:
        """Write a file, or write over one: it gets a new inode and new times."""
        tick = self.tick()
        self.files[path] = SimulatedFile(
            content,
            mtime_ns=tick if mtime_ns is None else mtime_ns,
            inode=tick - FIRST_MTIME_NS,
            ctime_ns=tick,
            settled=settled,
            fails_at=fails_at,
            vanishes_at=vanishes_at,
            changes_at=changes_at,
            changed_content=changed_content,
        )
        return self.files[path]

    def tick(self) -> int:
        """Return a time, in ns, that no file of this camera has had before."""
        self._ticks += 1
        return FIRST_MTIME_NS + self._ticks


class SimulatedOpenFile:
    """Implements core.interfaces.OpenFile over a file in memory."""

    def __init__(self, volume: "SimulatedVolume", path: bytes, file: SimulatedFile) -> None:
        self._volume = volume
        self._path = path
        self._file = file
        self._position = 0

    def read(self, size_bytes: int) -> bytes:
        file, begin = self._file, self._position
        end = begin + size_bytes
        self._volume.source.on_read(self._volume.presence, size_bytes)
        self._volume.check_present()
        if file.vanishes_at is not None and end > file.vanishes_at:
            file.vanishes_at = None
            self._volume.source.unplug(self._volume.presence.bay)
            self._volume.check_present()
        if file.changes_at is not None and end > file.changes_at:
            file.changes_at = None
            file.content = file.changed_content
            file.mtime_ns = file.ctime_ns = self._volume.camera.tick()
        if file.fails_at is not None and end > file.fails_at:
            if begin >= file.fails_at:
                raise CameraUnreadableError(f"{display_name(self._path)}: Input/output error")
            size_bytes = file.fails_at - begin
        data = file.read(begin, size_bytes)
        self._position += len(data)
        return data

    def seek(self, offset: int) -> None:
        self._position = offset

    def stat(self) -> FileStat:
        self._volume.check_present()
        return self._file.stat

    def close(self) -> None:
        self._volume.open_files.discard(self)


class SimulatedVolume:
    """Implements core.interfaces.Volume. Pulling the camera ends it for good, even if it comes back."""

    def __init__(self, source: "SimulatedSource", presence: Presence, docked: "_Docked") -> None:
        self.source = source
        self.presence = presence
        self.camera = docked.camera
        self.open_files: set[SimulatedOpenFile] = set()
        self._docked = docked

    def check_present(self) -> None:
        """Raise CameraGoneError when the camera was pulled or let go since this was opened."""
        if self not in self.source.open_volumes or not self._docked.present:
            raise CameraGoneError(f"{self.camera.camera_id}: the camera is gone")

    def list_files(self) -> Listing:
        self.check_present()
        if self.camera.unreadable:
            raise CameraUnreadableError(f"{self.camera.camera_id}: Input/output error")
        files = sorted(self.camera.files.items())
        return Listing(
            tuple(ListedFile(path, file.stat) for path, file in files),
            tuple(self.camera.skipped),
            frozenset(path for path, file in files if not file.settled),
        )

    def open_file(self, path: bytes) -> SimulatedOpenFile:
        self.check_present()
        if path not in self.camera.files:
            raise CameraUnreadableError(f"{display_name(path)}: No such file or directory")
        file = SimulatedOpenFile(self, path, self.camera.files[path])
        self.open_files.add(file)
        return file

    def close(self) -> None:
        self.open_files.clear()
        self.source.open_volumes.discard(self)


@dataclass(slots=True, eq=False)
class _Docked:
    """One stay of a camera in a bay. While it is ``dark`` nobody can see whether it is ``present``."""

    camera: SimulatedCamera
    present: bool = True
    dark: bool = False
    returns: int = 0


class SimulatedSource:
    """Implements core.interfaces.CameraSource over simulated cameras.

    ``on_read`` is called before each read with who is read and how much; it can make a card slow or
    hang, or do mischief at just that moment; ``on_open`` before each opening. ``open_volumes`` shows
    what was not closed, ``ended`` the reports of wipes that were not acknowledged.
    """

    def __init__(
        self,
        bays: Sequence[str],
        authority: WipeAuthority,
        clock: Clock,
        *,
        watches_when_ready: bool = False,
    ) -> None:
        self.bays: Sequence[str] = tuple(bays)
        self.watches_when_ready = watches_when_ready
        self.on_read: Callable[[Presence, int], None] = lambda _presence, _size_bytes: None
        self.open_volumes: set[SimulatedVolume] = set()
        self.charging: dict[str, ChargeStatus] = {}
        self.ended: dict[str, EndedWipe] = {}
        self.switchable: set[str] = set()
        self.on_open: Callable[[Presence], None] = lambda _presence: None
        self.authority = authority
        self._clock = clock
        self._docked: dict[str, list[_Docked]] = {bay: [] for bay in bays}
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    # What a test does

    def plug(self, bay: str, camera: SimulatedCamera) -> None:
        """Put a camera into a bay, beside whatever is there, and hint."""
        self._docked[bay].append(_Docked(camera))
        self.hint()

    def unplug(self, bay: str) -> None:
        """Pull everything out of a bay, and hint; open volumes are gone from now on."""
        for docked in self._docked[bay]:
            docked.present = False
        self._docked[bay] = [docked for docked in self._docked[bay] if docked.dark]
        self.hint()

    def drawn_ma(self, bay: str) -> int:
        """What the cameras in a bay draw now."""
        powered = (docked for docked in self._docked[bay] if docked.present and not docked.dark)
        return sum(docked.camera.draw_ma for docked in powered)

    def hint(self) -> None:
        """Say that something may have changed."""
        for loop, event in tuple(self._listeners):
            loop.call_soon_threadsafe(event.set)

    # What a dock does

    def enumerate_cameras(self) -> Mapping[str, Sequence[Presence]]:
        return {
            bay: [_presence(bay, docked) for docked in cameras]
            for bay, cameras in self._docked.items()
        }

    async def hints(self) -> AsyncGenerator[None, None]:
        listener = (asyncio.get_running_loop(), asyncio.Event())
        self._listeners.add(listener)
        try:
            while True:
                await listener[1].wait()
                listener[1].clear()
                yield
        finally:
            self._listeners.discard(listener)

    def open_camera(self, presence: Presence) -> SimulatedVolume:
        for docked in self._docked[presence.bay]:
            if _presence(presence.bay, docked) == presence:
                self.on_open(presence)
                self._finish(docked.camera)
                volume = SimulatedVolume(self, presence, docked)
                self.open_volumes.add(volume)
                return volume
        raise CameraGoneError(f"{presence.camera.camera_id}: the camera is gone")

    def wipe(self, request: WipeRequest, should_stop: ShouldStop) -> WipeReport | WipeRefused:
        with contextlib.closing(self.open_camera(request.presence)) as volume:
            permit = examine(
                self._seal(request),
                _read_afresh(volume),
                expected=Expected(
                    self.authority.dock,
                    volume.camera.camera_id,
                    request.visit_id,
                    self.authority.verifier.store_id,
                ),
                hold_until=request.hold_until,
                now=self._clock.now(),
                verify_receipt=self.authority.verifier.verify,
            )
            if isinstance(permit, WipeRefused):
                return permit
            files = permit.redeem()
            if volume.camera.breaks_off:
                self._break_off(volume, files, request.visit_id)
            report = self._erase(volume, files, should_stop)
            if report.verified:
                ended = EndedWipe(request.visit_id, volume.camera.camera_id, report)
                self.ended.setdefault(request.visit_id, ended)
            return report

    def is_half_erased(self, presence: Presence) -> bool:
        return any(docked.camera.half_erased for docked in self._docked[presence.bay])

    def ended_wipes(self) -> Sequence[EndedWipe]:
        return list(self.ended.values())

    def acknowledge(self, visit_id: str) -> None:
        self.ended.pop(visit_id, None)

    def charge(self, presence: Presence) -> ChargeStatus:
        for docked in tuple(self._docked[presence.bay]):
            if docked.dark:
                docked.dark = False
                docked.returns += 1
                if not docked.present:
                    self._docked[presence.bay].remove(docked)
                self.hint()
        return self.charging.get(presence.bay, ChargeStatus())

    def rest(self, presence: Presence) -> Power:
        if presence.bay not in self.switchable:
            return Power.UNKNOWN
        for docked in self._docked[presence.bay]:
            docked.dark = True
        return Power.OFF

    def _break_off(self, volume: SimulatedVolume, files: Sequence[FreshFile], visit: str) -> None:
        camera = volume.camera
        camera.breaks_off = False
        report = WipeReport(
            "format", "simulated", len(files), 0, True, "finished", self._clock.now(), resumed=True
        )
        camera.half_erased = EndedWipe(visit, camera.camera_id, report)
        self.unplug(volume.presence.bay)
        volume.check_present()

    def _finish(self, camera: SimulatedCamera) -> None:
        ended, camera.half_erased = camera.half_erased, None
        if ended is not None:
            for path, file in camera.files.items():
                digest = hashlib.sha256(b"".join(file.chunks())).hexdigest()
                camera.erased.append((path, digest))
            camera.files.clear()
            report = replace(ended.report, finished_at=self._clock.now())
            self.ended[ended.visit_id] = replace(ended, report=report)

    def _seal(self, request: WipeRequest) -> SealedManifest:
        body = request.manifest.encode()
        return SealedManifest(
            read_manifest(request.manifest, self.authority.manifest_key),
            hashlib.sha256(body).hexdigest(),
            len(body),
            request.manifest_receipt,
        )

    def _erase(
        self, volume: SimulatedVolume, files: Sequence[FreshFile], should_stop: ShouldStop
    ) -> WipeReport:
        camera = volume.camera
        erased: list[FreshFile] = []
        for file in files:
            if should_stop():
                break
            if camera.vanishes_after_erasing == len(erased):
                camera.vanishes_after_erasing = None
                self.unplug(volume.presence.bay)
            volume.check_present()
            found = camera.files.get(file.path)
            if found is not None and found.stat == file.stat:
                del camera.files[file.path]
                camera.erased.append((file.path, file.sha256 or ""))
                erased.append(file)
        return WipeReport(
            method="delete",
            level="simulated",
            files_erased=len(erased),
            bytes_erased=sum(file.stat.size_bytes for file in erased),
            verified=len(erased) == len(files),
            verification="looked into the dictionary",
            finished_at=self._clock.now(),
        )


def _presence(bay: str, docked: _Docked) -> Presence:
    camera = docked.camera
    identity = Camera(camera.camera_id, IdentifiedBy.SERIAL)
    where = f"simulated:{bay}/{camera.camera_id}" + docked.returns * "/again"
    return Presence(bay, identity, where, draw_ma=camera.draw_ma)


def _read_afresh(volume: SimulatedVolume) -> FreshReading:
    listing = volume.list_files()
    return FreshReading(
        tuple(_read(volume, listed) for listed in listing.files),
        listing.skipped,
        listing.unsettled,
    )


def _read(volume: SimulatedVolume, listed: ListedFile) -> FreshFile:
    digest = hashlib.sha256()
    try:
        with contextlib.closing(volume.open_file(listed.path)) as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            stat = file.stat()
    except CameraUnreadableError:
        return FreshFile(listed.path, listed.stat, None, held_still=True)
    return FreshFile(listed.path, stat, digest.hexdigest(), stat == listed.stat)
