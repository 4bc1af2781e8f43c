"""The real ``dockd`` as a process, forked from one that has imported it already: ready in no time."""

import asyncio
import ctypes
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

from dockd.cli.main import main
from dockd.ops.events import Event
from tests.faults.triggers import Trigger

_LOOK_EVERY_S = 0.01
_PR_SET_PDEATHSIG = 1

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["dockd.cli.main"])


class Dockd:
    """A ``dockd`` command under way. Its lines are added to ``log``, its errors to ``log``.errors."""

    def __init__(self, *arguments: str, log: Path, triggers: Sequence[Trigger] = ()) -> None:
        """Start it, with these triggers in it."""
        self.log = log
        self._seen = log.stat().st_size if log.exists() else 0
        self._process: BaseProcess = _forks.Process(target=_run, args=(arguments, log, triggers))
        self._process.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        await self.ended()
        self._process.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def left_behind(self) -> bool:
        """Whether a process that it started outlives it."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self._process.is_alive():
            os.kill(self.pid, number)

    async def ended(self, within_s: float = 20.0) -> int:
        """Wait for its end and return its exit code; minus the number of the signal that killed it."""
        # The thread only waits. The exit status can be read once, and starting another process reads
        # those of all that have ended; so both happen on the loop.
        await asyncio.to_thread(multiprocessing.connection.wait, [self._process.sentinel], within_s)
        self._process.join(0)
        if self._process.exitcode is None:
            raise TimeoutError(f"it still runs after {within_s} s")
        return self._process.exitcode

    async def stop(self, within_s: float = 10.0) -> int:
        """Stop it with SIGTERM, in order and in time; return its exit code."""
        self.send(signal.SIGTERM)
        return await self.ended(within_s)

    async def said(self, event: Event, within_s: float = 20.0, **values: object) -> bool:
        """Wait until this run logs an event with these values; false when it ends without."""
        seen, wanted = self._seen, {"event": event.name, **values}
        async with asyncio.timeout(within_s):
            while True:
                ended = self._process.exitcode is not None
                new = read_whole_lines(self.log, seen)
                seen += len(new)
                if any(wanted.items() <= line.items() for line in parsed(new)):
                    return True
                if ended:
                    return False
                await asyncio.sleep(_LOOK_EVERY_S)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what this run has logged; a line cut off by SIGKILL is passed over."""
        return parsed(read_whole_lines(self.log, self._seen))

    def errors(self) -> str:
        """Return what was written to standard error, by all runs."""
        return errors_beside(self.log).read_text(encoding="utf-8", errors="backslashreplace")


def read_whole_lines(log: Path, offset: int = 0) -> bytes:
    """Return a log from a byte on, as far as it has whole lines."""
    if not log.exists():
        return b""
    with log.open("rb") as file:
        file.seek(offset)
        data = file.read()
    return data[: data.rfind(b"\n") + 1]


def parsed(lines: bytes) -> Iterator[dict[str, Any]]:
    """Yield the lines as what they say; one that SIGKILL cut off is passed over."""
    for line in lines.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def errors_beside(log: Path) -> Path:
    """Return where the standard error of a run is."""
    return log.with_suffix(".errors")


def _run(arguments: tuple[str, ...], log: Path, triggers: Sequence[Trigger]) -> None:
    """Be the process."""
    for number, path in ((1, log), (2, errors_beside(log))):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, number)
        os.close(fd)
    os.setpgid(0, 0)
    # Should the tests themselves be killed, nothing goes on without them (prctl(2)).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.argv = ["dockd", *arguments]
    for trigger in triggers:
        trigger.arm()
    main()
