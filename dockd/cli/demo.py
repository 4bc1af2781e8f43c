"""``dockd demo``: the whole job on this machine, with things broken on the way."""

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table

from dockd.core.errors import DockdError
from dockd.core.lifecycle import BayState
from dockd.demo.checks import Check, check, check_stopped
from dockd.demo.outcome import Outcome, gather
from dockd.demo.processes import DemoError
from dockd.demo.scenario import play
from dockd.demo.stage import Paths, Scale, Stage, Status, open_stage

FULL_SCALE = Scale(footage_bytes=300_000_000, rate_bytes_s=60_000_000, outage_s=2.0)

_SPARE_BYTES = 50_000_000
_INTERRUPTED = 130
"""The exit code of a program that was ended with Ctrl-C, as shells have it."""


async def run_demo(*, keep: bool) -> int:
    """Run the demo and return the exit code; ``keep`` leaves it running until Ctrl-C."""
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="dockd-demo-"))
    task = asyncio.current_task()
    if task is not None:
        _on_stop_signals(task.cancel)
    try:
        passed = await show_demo(console, folder, FULL_SCALE, keep=keep)
    except asyncio.CancelledError:
        console.print("[yellow]Ended before it was through; everything was stopped.[/]")
        await asyncio.to_thread(shutil.rmtree, folder)
        return _INTERRUPTED
    except DockdError as error:
        console.print(f"FAILED: {error}\n{error.advice}", style="red", markup=False, soft_wrap=True)
        passed = False
    if passed and not keep:
        await asyncio.to_thread(shutil.rmtree, folder)
    else:
        console.print(f"Everything is in {folder}", markup=False, soft_wrap=True)
    return 0 if passed else 1


async def show_demo(console: Console, folder: Path, scale: Scale, *, keep: bool = False) -> bool:
    """Run the demo in a folder and return whether every check passed.

    Raises DemoError when it could not be played to its end. Nothing that it started is left running.
    """
    _require_room(folder, scale)
    console.print("Making footage; starting a store, a network and a dock with four bays.")
    async with open_stage(folder, scale) as stage:
        with Screen(console, stage) as screen:
            played = await play(stage, screen)
        outcome = await gather(stage, played)
        checks = list(check(outcome))
        _print_checks(console, checks)
        console.print(_summary(outcome))
        if keep:
            _say_where_to_look(console, stage.paths)
            await _stop_signal()
        checks.append(check_stopped(await stage.stop_dock()))
        _print_checks(console, checks[-1:])
    failed = sum(not one.ok for one in checks)
    console.print(f"{failed} of {len(checks)} checks FAILED" if failed else "Every check passed.")
    return failed == 0


class Screen:
    """Shows the cameras' progress: as bars on a terminal, otherwise as a line for each change."""

    def __init__(self, console: Console, stage: Stage) -> None:
        """Build for the cameras of a stage."""
        self._console = console
        self._progress = Progress(
            TextColumn("bay {task.fields[bay]}  {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._states: dict[str, str] = {}
        self._bars: dict[str, TaskID] = {}
        for camera, bay in stage.bay_of.items():
            total = sum(item.size_bytes for item in stage.made if item.camera == camera)
            self._bars[bay] = self._progress.add_task(camera, total=total, bay=bay, state="")

    def __enter__(self) -> Self:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, style="bold")

    def show(self, status: Status) -> None:
        """Move the bars; without a terminal, print what has changed its state."""
        for bay in status["bays"]:
            name, state = bay["bay"], bay["state"]
            if name not in self._bars:
                continue
            sent_bytes = bay.get("bytes_sent", 0)
            self._progress.update(self._bars[name], completed=sent_bytes, state=state)
            if state != self._states.get(name, BayState.EMPTY) and not self._console.is_terminal:
                self._console.print(f"bay {name}  {bay['camera']}  {state}")
            self._states[name] = state


def _require_room(folder: Path, scale: Scale) -> None:
    needed = 2 * scale.footage_bytes + _SPARE_BYTES  # on the cameras, and in the store
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DemoError(
            f"{folder} has {free / 1e9:.1f} GB free and the demo needs {needed / 1e9:.1f} GB;"
            " set TMPDIR to a directory with more"
        )


def _print_checks(console: Console, checks: list[Check]) -> None:
    for one in checks:
        console.print(
            f"[{'green' if one.ok else 'red'}]{'ok    ' if one.ok else 'FAILED'}[/]", end="  "
        )
        console.print(one.what, markup=False, soft_wrap=True)
        for fault in one.faults:
            console.print(f"        {fault}", markup=False, style="red", soft_wrap=True)


def _summary(outcome: Outcome) -> Table:
    played = outcome.played
    footage_bytes = sum(item.size_bytes for item in outcome.made)
    broken = (f"{item.what} at {item.sent_bytes / 1e6:.1f} MB" for item in played.interruptions)
    table = Table(title="What happened", title_justify="left", show_header=False)
    table.add_row("cameras wiped, charged and ready", str(len(outcome.cameras)))
    table.add_row("recordings proved", f"{len(outcome.recordings)} of {len(outcome.made)}")
    table.add_row("bytes proved", f"{footage_bytes:,}")
    table.add_row("interruptions survived", "; ".join(broken))
    table.add_row(
        "bytes sent twice, with all protocol", f"{played.carried_bytes - outcome.needed_bytes:,}"
    )
    table.add_row("seconds from docking to ready", f"{played.seconds:.1f}")
    return table


def _say_where_to_look(console: Console, paths: Paths) -> None:
    dockd = f"{sys.executable} -m dockd"
    for what, where in (
        ("The store and the dock go on running in", paths.root),
        ("Put a directory with files into this bay", paths.bay("4")),
        ("See the bays", f"{dockd} status -c {paths.config} --watch"),
        ("See what the store holds", f"{dockd} store list --data {paths.store.root}"),
        ("Logs", f"{paths.dock_log} {paths.store_log}"),
        ("Stop", "Ctrl-C"),
    ):
        console.print(f"{what}: {where}", markup=False, soft_wrap=True)


async def _stop_signal() -> None:
    """Wait for Ctrl-C or SIGTERM, which until then ended the demo."""
    asked = asyncio.Event()
    _on_stop_signals(asked.set)
    await asked.wait()


def _on_stop_signals(call: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, call)
