"""Runs ``dockd`` commands as the processes that they are in real life."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from dockd.core.errors import DockdError

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
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                return await self._process.wait()
        await self.kill()
        return None

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


async def run_command(*arguments: str) -> tuple[int, str]:
    """Run a ``dockd`` command to its end; return its exit code and what it printed to stdout.

    Raises DemoError when it takes too long; what it says on stderr becomes part of the text when it
    fails without printing anything else.
    """
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
    return process.returncode or 0, (output or errors).decode("utf-8", "backslashreplace")


def _dockd(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "dockd", *arguments]
