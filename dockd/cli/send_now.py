"""``dockd send-now``: have a camera, or a recording, sent before all others."""

import asyncio
import json
from pathlib import Path
from typing import Any

import typer

from dockd.config import load_dock_config
from dockd.core.model import display_name
from dockd.daemon import StatePaths
from dockd.ops.status import ask_daemon


def send_now(config_file: Path, what: str, *, as_json: bool) -> None:
    """Ask the running dock; print what it does, and end with exit code 1 when it does nothing.

    Raises ConfigError and DaemonNotRunningError.
    """
    socket = StatePaths(load_dock_config(config_file).state_dir).socket
    answer = asyncio.run(ask_daemon(socket, "send-now", {"what": what}))
    print(json.dumps(answer, indent=2) if as_json else in_words(answer))
    if answer["found"] is None:
        raise typer.Exit(1)


def in_words(answer: dict[str, Any]) -> str:
    """Return the answer for people."""
    what = display_name(answer["what"].encode("utf-8", "surrogateescape"))
    if answer["found"] is not None:
        where = f"{answer['found']} (bay {answer['bay']}, {answer['state']})"
        if answer["waiting"]:
            return f"{where}: goes first now, with {answer['waiting']} still to be sent and proved."
        return f"{where}: nothing waits to be sent now; what still turns up there goes first."
    if not answer["candidates_in_all"]:
        return f"{what}: no bay has a camera or a recording of this name."
    more = answer["candidates_in_all"] - len(answer["candidates"])
    names = [*answer["candidates"], *([f"and {more} more"] if more else [])]
    return "\n  ".join([f"{what}: several have this name; choose one of:", *names])
