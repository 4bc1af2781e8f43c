"""Watches bay folders with inotify, as far as the system lets us. What it tells are hints only."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.inotify import InotifyObserver

from dockd.ops import events

_KINDS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
"""Changes only: our own opening and reading must not wake us."""


class _Handler(FileSystemEventHandler):
    def __init__(self, notice: Callable[[FileSystemEvent], None]) -> None:
        self._notice = notice

    def dispatch(self, event: FileSystemEvent) -> None:
        self._notice(event)


class FolderWatcher:
    """Keeps an inotify watch on each folder and all below it.

    ``refresh`` (blocking) brings the watches up to date: a folder that was replaced is watched anew.
    A folder newly watched counts as changed, because what happened in it before was not seen. One
    that cannot be watched is logged once, and tried again by each ``refresh``.
    """

    def __init__(self, folders: Iterable[Path], notice: Callable[[FileSystemEvent], None]) -> None:
        """Build without watching yet; ``notice`` will be called in a thread of the watcher's own."""
        self._folders = tuple(folders)
        self._handler = _Handler(notice)
        self._observer: BaseObserver | None = None
        self._watches: dict[Path, tuple[ObservedWatch, tuple[int, int]]] = {}
        self._unwatched: set[Path] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def refresh(self) -> bool:
        """Watch every folder that is there; return whether none is left unwatched."""
        with self._lock:
            if self._stopped:
                return False
            results = [self._refresh_one(folder) for folder in self._folders]
            return all(results)

    def stop(self) -> None:
        """End the watching and its threads. Blocking; may be called twice."""
        with self._lock:
            self._stopped = True
            observer, self._observer = self._observer, None
            if observer is not None:
                observer.stop()
                observer.join()

    def _refresh_one(self, folder: Path) -> bool:
        try:
            found = folder.stat()
            identity = (found.st_dev, found.st_ino)
            watch = self._watches.get(folder)
            if watch is not None and watch[1] == identity:
                return True
            self._unwatch(folder)
            self._watches[folder] = (self._watch(folder), identity)
            self._handler.dispatch(DirModifiedEvent(str(folder)))
        except FileNotFoundError:
            self._unwatch(folder)  # the source says that it is missing
            return False
        except OSError as error:
            self._unwatch(folder)
            if folder not in self._unwatched:
                self._unwatched.add(folder)
                events.BAY_FOLDER_UNWATCHED.log(folder=str(folder), reason=str(error.strerror))
            return False
        self._unwatched.discard(folder)
        return True

    def _watch(self, folder: Path) -> ObservedWatch:
        if self._observer is None:
            self._observer = InotifyObserver()
            self._observer.start()
        return self._observer.schedule(
            self._handler, str(folder), recursive=True, event_filter=_KINDS
        )

    def _unwatch(self, folder: Path) -> None:
        watch = self._watches.pop(folder, None)
        if watch is not None and self._observer is not None:
            self._observer.unschedule(watch[0])
