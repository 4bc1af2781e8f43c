"""Runs ``dockd`` commands as the processes that they are in real life."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockd.core.errors import DockdError
from dockd.ops.events import Event

_LAST_LINES = 15
_COMMAND_WITHIN_S = 60.0


class DemoError(DockdError):
    """Something that the demo starts did not come up, or did not do what it must."""

    advice = "Look into the log files in the demo's folder, which is left as it is."


class Process:
    """A ``dockd`` command that runs until it is stopped; what it prints is added to a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        """Build from a process; use :meth:`start`."""
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(cls, name: str, *arguments: str, log: Path) -> "Process":
        """Start ``dockd`` with these arguments."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *_dockd(arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A group of its own: Ctrl-C is for the demo, which then stops its processes in order.
                process_group=0,
            )
        return cls(name, process, log)

    def check_running(self) -> None:
        """Raise DemoError, with its last lines, when it has ended."""
        if self._process.returncode is not None:
            raise DemoError(
                f"{self.name} ended with exit code {self._process.returncode}; its last lines:\n"
                + "\n".join(self.last_lines())
            )

    def last_lines(self) -> list[str]:
        """Return the last lines that it printed."""
        lines = self.log.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
        return lines[-_LAST_LINES:]

    async def stop(self, within_s: float) -> int | None:
        """Send SIGTERM and return the exit code; None when it had to be killed after ``within_s``."""
        try:
            self._signal(signal.SIGTERM)
            async with asyncio.timeout(within_s):
                return await self.wait()
        except TimeoutError:
            return None
        finally:
            await self.kill()

    async def wait(self) -> int:
        """Wait until it ends, and return its exit code."""
        return await self._process.wait()

    async def kill(self) -> None:
        """Send SIGKILL, unless it has ended, and wait for the end."""
        self._signal(signal.SIGKILL)
        await self.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    exit_code: int
    output: str
    errors: str


async def run_command(*arguments: str) -> Said:
    """Run a ``dockd`` command to its end. Raises DemoError when it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *_dockd(arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        process_group=0,
    )
    try:
        async with asyncio.timeout(_COMMAND_WITHIN_S):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise DemoError(f"dockd {arguments[0]} took more than {_COMMAND_WITHIN_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    texts = (text.decode("utf-8", "backslashreplace").strip() for text in (output, errors))
    return Said(process.returncode or 0, *texts)


def read_events(log: Path, event: Event) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of a log that carry this event; a line cut off by SIGKILL is passed over."""
    with log.open(encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if fields["event"] == event.name:
                yield fields


def _dockd(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "dockd", *arguments]
