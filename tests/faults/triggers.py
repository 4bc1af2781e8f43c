"""What happens to a daemon at its Nth commit, fsync, rename or unlink."""

import contextlib
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL right before, or right after, the ``number``-th step of a kind."""

    step: str
    number: int
    after: bool = False

    def arm(self) -> None:
        """Make it so in this process."""
        count = _Count(self)
        if self.step == "commit":
            connection = _connections(count)
            sqlite3.connect = partial(sqlite3.connect, factory=connection)  # type: ignore[assignment]
        else:
            setattr(os, self.step, count.counted(getattr(os, self.step)))


class _Count:
    def __init__(self, kill: Kill) -> None:
        self._kill = kill
        self._steps = 0

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        self._steps += 1
        here = self._steps == self._kill.number
        if here and not self._kill.after:
            os.kill(os.getpid(), signal.SIGKILL)
        yield
        if here:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self.one_step():
                return call(*args, **kwargs)

        return wrapper


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
