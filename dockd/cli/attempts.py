"""``dockd attempts``: what became of each attempt to send a recording, from the dock's journal."""

import json
from collections import deque
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dockd.config import load_dock_config
from dockd.core.model import UploadAttempt, display_name
from dockd.core.timestamps import to_rfc3339
from dockd.daemon import StatePaths
from dockd.journal.journal import read_attempts

MAX_SHOWN = 1000


def show_attempts(config_file: Path, what: str, *, as_json: bool) -> None:
    """Print the newest attempts for a camera or a recording; end with exit code 1 if there are none.

    Raises ConfigError and JournalError.
    """
    journal = StatePaths(load_dock_config(config_file).state_dir).journal
    found = deque(
        (
            (camera, attempt)
            for camera, attempt in read_attempts(journal)
            if _is_meant(what, camera, attempt)
        ),
        MAX_SHOWN,
    )
    if as_json:
        print(json.dumps([_as_json(camera, attempt) for camera, attempt in found], indent=2))
    elif found:
        Console().print(_table(found))
    else:
        print("The journal has no attempt to send anything of this name.")
    raise typer.Exit(0 if found else 1)


def _is_meant(what: str, camera: str, attempt: UploadAttempt) -> bool:
    name = f"{camera}/{display_name(attempt.path)}"
    return what in (camera, name) or name.endswith(f"/{what}")


def _as_json(camera: str, attempt: UploadAttempt) -> dict[str, object]:
    return {
        "camera": camera,
        "visit": attempt.visit_id,
        "recording": display_name(attempt.path),
        "attempt": attempt.number,
        "begun_at": to_rfc3339(attempt.begun_at),
        "ended_at": to_rfc3339(attempt.ended_at) if attempt.ended_at is not None else None,
        "offset_from": attempt.offset_from,
        "offset_to": attempt.offset_to,
        "sent_bytes": attempt.sent_bytes,
        "resent_bytes": attempt.resent_bytes,
        "error": attempt.error,
    }


def _table(found: deque[tuple[str, UploadAttempt]]) -> Table:
    table = Table("recording", "no.", "begun", "from", "to", "again", "came of it")
    for camera, attempt in found:
        if attempt.error is not None:
            outcome = attempt.error
        else:
            outcome = "sent" if attempt.ended_at is not None else "under way, or cut short"
        table.add_row(
            Text(f"{display_name(camera.encode())}/{display_name(attempt.path)}", overflow="fold"),
            str(attempt.number),
            f"{attempt.begun_at.astimezone():%Y-%m-%d %H:%M:%S}",
            "" if attempt.offset_from is None else str(attempt.offset_from),
            str(attempt.offset_to),
            str(attempt.resent_bytes),
            Text(display_name(outcome.encode()), overflow="fold"),
        )
    return table
