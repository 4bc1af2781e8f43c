"""When a file in a watched folder counts as finished: its writer closed it, or it holds still."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from dockd.core.interfaces import Clock
from dockd.core.model import ListedFile


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it last looked, and since when (monotonic seconds)."""

    size_bytes: int
    mtime_ns: int
    since_s: float


class Settling:
    """Remembers how files looked, and who closed them. Paths are absolute, as bytes.

    What it says is a courtesy that saves reading half-written files. It proves nothing: every reading
    checks for changes, and the wipe gate reads everything again.

    A file that nobody was seen closing is settled when its size and time have held still for
    ``settle_s``. At first sight its own modification time says how long that has been.
    """

    def __init__(self, settle_s: float, clock: Clock, max_files: int) -> None:
        """Build with bounds; ``max_files`` is how many closed files are remembered."""
        self._settle_s = settle_s
        self._clock = clock
        self._max_files = max_files
        self._seen: dict[bytes, dict[bytes, _Seen]] = {}
        self._closed: set[bytes] = set()
        self._lock = threading.Lock()

    def closed(self, path: bytes) -> None:
        """Note that a writer has closed a file."""
        with self._lock:
            if len(self._closed) < self._max_files:
                self._closed.add(path)

    def changed(self, path: bytes) -> None:
        """Note that a file was written to, created or removed."""
        with self._lock:
            self._closed.discard(path)

    def moved(self, source: bytes, destination: bytes) -> None:
        """Note that a file was renamed; a finished one stays finished."""
        with self._lock:
            if source in self._closed:
                self._closed.discard(source)
                self._closed.add(destination)
            else:
                self._closed.discard(destination)

    def unsettled(self, camera: bytes, files: Iterable[ListedFile]) -> frozenset[bytes]:
        """Return the paths of a fresh listing that something may still be writing.

        ``camera`` is the camera's directory, which the paths of ``files`` start from.
        """
        with self._lock:
            before = self._seen.get(camera, {})
            now_s, wall_s = self._clock.monotonic_s(), self._clock.now().timestamp()
            seen: dict[bytes, _Seen] = {}
            for file in files:
                known = before.get(file.path)
                if known is None:
                    age_s = wall_s - file.stat.mtime_ns / 1e9
                    known = _Seen(file.stat.size_bytes, file.stat.mtime_ns, now_s - max(0.0, age_s))
                elif (known.size_bytes, known.mtime_ns) != (
                    file.stat.size_bytes,
                    file.stat.mtime_ns,
                ):
                    known = _Seen(file.stat.size_bytes, file.stat.mtime_ns, now_s)
                seen[file.path] = known
            self._seen[camera] = seen
            return frozenset(
                path
                for path, known in seen.items()
                if now_s - known.since_s < self._settle_s
                and camera + b"/" + path not in self._closed
            )

    def keep_only(self, cameras: Iterable[bytes]) -> None:
        """Forget everything about cameras that are not there any more."""
        present = set(cameras)
        with self._lock:
            self._seen = {path: seen for path, seen in self._seen.items() if path in present}
            roots = tuple(path + b"/" for path in present)
            self._closed = {path for path in self._closed if path.startswith(roots)}
