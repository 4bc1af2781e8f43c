"""Bays that are folders: a directory that appears in a bay's folder is a docked camera.

Its name is the camera's id. Removing it, or moving it away, is pulling the camera. Network docks and
vendors' software drop footage into such folders, so a file counts only when it is settled.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from watchdog.events import (
    FileClosedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
)

from dockd.cameras.directory import DirectoryVolume, ListingLimits
from dockd.cameras.settling import Settling
from dockd.cameras.watching import FolderWatcher
from dockd.cameras.wiping import WipeAuthority, prove_and_erase
from dockd.core.errors import CameraGoneError, CameraUnreadableError
from dockd.core.interfaces import Clock, ShouldStop
from dockd.core.model import (
    Camera,
    ChargeStatus,
    EndedWipe,
    IdentifiedBy,
    Listing,
    Power,
    Presence,
    SkipReason,
    WipeReport,
    WipeRequest,
    display_name,
)
from dockd.core.recording import flagged_paths
from dockd.core.wipe_gate import WipeRefused
from dockd.ops import events

POLL_S = 2.0
"""How often to hint while a folder cannot be watched."""

REFRESH_S = 5.0
"""How often to look whether a watched folder was replaced behind our back."""

HINT_GAP_S = 0.1
"""The least time between two hints, so that a busy writer costs no more than a slow one."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderVolume(DirectoryVolume):
    """A camera's directory, which others may still be writing to."""

    def __init__(
        self,
        root_fd: int,
        limits: ListingLimits,
        name: str,
        root: bytes,
        settling: Settling,
        flagged: Sequence[str],
    ) -> None:
        """Take over an open directory; ``root`` is its absolute path, by which writers know it."""
        super().__init__(root_fd, limits, name)
        self._root_path = root
        self._settling = settling
        self._flagged = flagged

    def list_files(self) -> Listing:
        """List everything; files that something may still be writing are unsettled."""
        listing = super().list_files()
        return replace(
            listing,
            unsettled=self._settling.unsettled(self._root_path, listing.files),
            flagged=flagged_paths((file.path for file in listing.files), self._flagged),
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """Something in a bay's folder; ``ignored`` is why it is no camera."""

    name: bytes
    ignored: str | None


class FolderSource:
    """Implements core.interfaces.CameraSource over folders."""

    watches_when_ready = True

    def __init__(
        self,
        folders: Mapping[str, Path],
        authority: WipeAuthority,
        clock: Clock,
        *,
        settle_s: float,
        limits: ListingLimits,
        flagged: Sequence[str] = (),
    ) -> None:
        """Build over the folder of each bay, by the bay's name. Paths must be absolute.

        ``flagged`` are glob patterns of the paths that cameras use for flagged recordings.
        """
        self.bays: Sequence[str] = tuple(folders)
        self._folders = dict(folders)
        self._authority = authority
        self._clock = clock
        self._limits = limits
        self._flagged = flagged
        self._settling = Settling(settle_s, clock, limits.max_files)
        self._missing: set[str] = set()
        self._ignored: dict[str, frozenset[_Entry]] = {}

    def enumerate_cameras(self) -> Mapping[str, Sequence[Presence]]:
        """Return the directories in each bay's folder; blocking, never raises for one bad bay.

        What is in the folder and is no camera is logged, once for as long as it is there.
        """
        seen: dict[str, list[Presence]] = {bay: [] for bay in self.bays}
        cameras: list[bytes] = []
        for bay, folder in self._folders.items():
            entries = self._entries(bay, folder)
            self._log_ignored(bay, frozenset(entry for entry in entries if entry.ignored))
            for entry in entries:
                if entry.ignored is None:
                    path = os.fsencode(folder) + b"/" + entry.name
                    cameras.append(path)
                    camera = Camera(display_name(entry.name), IdentifiedBy.FOLDER_NAME)
                    seen[bay].append(Presence(bay, camera, display_name(path)))
        self._settling.keep_only(cameras)
        return seen

    async def hints(self) -> AsyncGenerator[None, None]:
        """Yield when something may have changed, and every POLL_S while a folder is unwatched."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def notice(event: FileSystemEvent) -> None:
            self._note(event)
            if not isinstance(event, FileModifiedEvent) and not changed.is_set():
                # The loop may have ended; then nobody is left to tell.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(changed.set)

        watcher = FolderWatcher(self._folders.values(), notice)
        try:
            while True:
                all_watched = await asyncio.to_thread(watcher.refresh)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REFRESH_S if all_watched else POLL_S):
                        await changed.wait()
                if changed.is_set() or not all_watched:
                    changed.clear()
                    yield
                    await asyncio.sleep(HINT_GAP_S)
        finally:
            await asyncio.to_thread(watcher.stop)

    def open_camera(self, presence: Presence) -> FolderVolume:
        """Open the camera's directory read-only. Raises CameraGoneError, CameraUnreadableError."""
        camera = presence.camera.camera_id
        folder = self._folders[presence.bay]
        try:
            with _opened(os.fsencode(folder)) as folder_fd:
                name = _find(folder_fd, camera)
                root_fd = os.open(name, _DIRECTORY, dir_fd=folder_fd)
        except FileNotFoundError as error:
            raise CameraGoneError(f"{camera}: the camera is gone") from error
        except OSError as error:
            raise CameraUnreadableError(f"{camera}: {error.strerror}") from error
        root = os.fsencode(folder) + b"/" + name
        return FolderVolume(root_fd, self._limits, camera, root, self._settling, self._flagged)

    def wipe(self, request: WipeRequest, should_stop: ShouldStop) -> WipeReport | WipeRefused:
        """Erase the camera's recordings, with proof; see core.interfaces.CameraSource."""
        volume = self.open_camera(request.presence)
        try:
            return prove_and_erase(
                volume,
                request,
                authority=self._authority,
                camera=request.presence.camera.camera_id,
                now=self._clock.now,
                should_stop=should_stop,
            )
        finally:
            volume.close()

    def is_half_erased(self, presence: Presence) -> bool:
        """Never: what deleting leaves is whole, and is proved anew."""
        return False

    def ended_wipes(self) -> Sequence[EndedWipe]:
        """None: who erases here also writes the journal, and proves anew what it did not get to."""
        return ()

    def acknowledge(self, visit_id: str) -> None:
        """Nothing is kept here."""

    def charge(self, presence: Presence) -> ChargeStatus:
        """Return what is known of a folder's power: nothing."""
        return ChargeStatus()

    def rest(self, presence: Presence) -> Power:
        """Return that a folder's power cannot be switched."""
        return Power.UNKNOWN

    def _entries(self, bay: str, folder: Path) -> list[_Entry]:
        try:
            with _opened(os.fsencode(folder)) as fd:
                entries = sorted(_look(fd, self._limits.max_files), key=lambda entry: entry.name)
        except OSError as error:
            if bay not in self._missing:
                self._missing.add(bay)
                events.BAY_FOLDER_MISSING.log(bay=bay, folder=str(folder), reason=error.strerror)
            return []
        if bay in self._missing:
            self._missing.discard(bay)
            events.BAY_FOLDER_BACK.log(bay=bay, folder=str(folder))
        return entries

    def _log_ignored(self, bay: str, ignored: frozenset[_Entry]) -> None:
        for entry in ignored - self._ignored.get(bay, frozenset()):
            events.BAY_ENTRY_IGNORED.log(
                bay=bay, name=display_name(entry.name), reason=entry.ignored
            )
        self._ignored[bay] = ignored

    def _note(self, event: FileSystemEvent) -> None:
        path = os.fsencode(event.src_path)
        if isinstance(event, FileClosedEvent):
            self._settling.closed(path)
        elif isinstance(event, FileMovedEvent):
            self._settling.moved(path, os.fsencode(event.dest_path))
        else:
            self._settling.changed(path)


@contextlib.contextmanager
def _opened(folder: bytes) -> Iterator[int]:
    """Open a bay's folder; a link to it is fine, because the configuration names it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def _look(folder_fd: int, at_most: int) -> Iterator[_Entry]:
    with os.scandir(folder_fd) as entries:
        for entry in islice(entries, at_most):
            name = os.fsencode(entry.name)
            try:
                mode = os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISLNK(mode):
                yield _Entry(name, SkipReason.SYMLINK.value)
            elif not stat.S_ISDIR(mode):
                yield _Entry(name, "not a directory: put it into the camera's own directory")
            elif name.startswith(b"."):
                yield _Entry(name, "its name begins with a dot")
            else:
                yield _Entry(name, None)


def _find(folder_fd: int, camera_id: str) -> bytes:
    """Return the directory name whose display form is the camera's id; no two names share one."""
    with os.scandir(folder_fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if display_name(name) == camera_id and not name.startswith(b"."):
                return name
    raise FileNotFoundError
