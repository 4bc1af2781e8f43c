"""What is done to a daemon in its own process: a signal, or a call that hangs, at its Nth step."""

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dockd import daemon
from dockd.target.patience import RetryRules
from dockd.target.uploader import Uploader

CALLS = (
    "chmod",
    "close",
    "dup",
    "fstat",
    "fsync",
    "mkdir",
    "open",
    "posix_fadvise",
    "pread",
    "rename",
    "scandir",
    "stat",
    "unlink",
)
"""The functions of ``os`` by which dockd touches cameras and its own state directory."""


class Trigger(Protocol):
    """Something that is set up in a daemon's process before it begins."""

    def arm(self) -> None:
        """Set it up in this process."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A signal right before, or right after, the ``number``-th step of a kind.

    A step is a commit of the journal, or a call of a function of ``os``.
    """

    step: str
    number: int
    after: bool = False
    sends: signal.Signals = signal.SIGKILL

    def arm(self) -> None:
        """Count from now on."""
        _count(self.step, _Count(self))

    def strike(self) -> None:
        """Send it, to this process."""
        os.kill(os.getpid(), self.sends)


@dataclass(frozen=True, slots=True)
class Hang:
    """Every call of a function of ``os`` on something in a folder hangs for an hour, as on a dying
    card, from the moment on at which the file ``once`` exists.
    """

    step: str
    folder: Path
    once: Path

    def arm(self) -> None:
        """Look at each call from now on."""
        call = getattr(os, self.step)

        def hanging(*args: Any, **kwargs: Any) -> Any:
            if _is_in(self.folder, kwargs.get("dir_fd", args[0])) and self.once.exists():
                time.sleep(3600)
            return call(*args, **kwargs)

        setattr(os, self.step, hanging)


class FailingCalls:
    """Calls on anything in a folder fail: ``times`` of them, from the ``first`` on.

    ``failed`` names them, in the process in which they failed.
    """

    def __init__(self, folder: Path, error: int, *, first: int, times: int = 1) -> None:
        self._folder = folder
        self._error = error
        self._first = first
        self._last = first + times - 1
        self._count = 0
        self.failed: list[str] = []

    def arm(self) -> None:
        """Let them fail from now on."""
        for name in CALLS:
            setattr(os, name, self._failing(name, getattr(os, name)))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let them fail for a while."""
        originals = {name: getattr(os, name) for name in CALLS}
        self.arm()
        try:
            yield
        finally:
            for name, call in originals.items():
                setattr(os, name, call)

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any, **kwargs: Any) -> Any:
            if _is_in(self._folder, kwargs.get("dir_fd", args[0])):
                self._count += 1
                if self._first <= self._count <= self._last:
                    self.failed.append(name)
                    if name == "close":
                        call(*args, **kwargs)
                    where = args[0] if isinstance(args[0], str | bytes | Path) else None
                    raise OSError(self._error, os.strerror(self._error), where)
            return call(*args, **kwargs)

        return failing


def _is_in(folder: Path, where: object) -> bool:
    if isinstance(where, int):
        try:
            where = Path(f"/proc/self/fd/{where}").readlink()
        except OSError:
            return False
    return os.fsencode(where).startswith(os.fsencode(folder))  # type: ignore[arg-type]


class StopSoon:
    """Stopping in order may take half a second, and not the eight that are given in the field."""

    def arm(self) -> None:
        """Shorten it."""
        daemon.STOP_WITHIN_S = 0.5


class ShortPauses:
    """The uploader's pauses are short, so that a test need not wait for them."""

    def arm(self) -> None:
        """Change what an uploader is made with."""
        rules = RetryRules(first_pause_s=0.02, max_pause_s=0.1)
        defaults = Uploader.__init__.__kwdefaults__ or {}
        defaults["rules"] = rules


class _Count:
    def __init__(self, kill: Kill) -> None:
        self._kill = kill
        self._steps = 0

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        self._steps += 1
        here = self._steps == self._kill.number
        if here and not self._kill.after:
            self._kill.strike()
        yield
        if here and self._kill.after:
            self._kill.strike()


def _count(step: str, count: _Count) -> None:
    if step == "commit":
        counting = partial(sqlite3.connect, factory=_connections(count))
        sqlite3.connect = counting  # type: ignore[assignment]
        return
    call = getattr(os, step)

    def counted(*args: Any, **kwargs: Any) -> Any:
        with count.one_step():
            return call(*args, **kwargs)

    setattr(os, step, counted)


def _connections(count: _Count) -> type[sqlite3.Connection]:
    """Return connections that count each commit; a migration's script has one too."""

    class Counting(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql != "COMMIT":
                return super().execute(sql, *args)
            with count.one_step():
                return super().execute(sql, *args)

        def executescript(self, script: str, /) -> sqlite3.Cursor:
            with count.one_step():
                return super().executescript(script)

    return Counting
