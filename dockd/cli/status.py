"""``dockd status``: what each bay is doing, as a table or as JSON."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dockd.config import load_dock_config
from dockd.daemon import StatePaths
from dockd.ops.status import ask_status

REFRESH_S = 1.0

_COLOURS = {"ready": "green", "attention": "red", "refused": "red", "empty": "dim"}


def show_status(config_file: Path, *, as_json: bool, watch: bool) -> None:
    """Print the status of the dock of a configuration file, once or until interrupted.

    Raises ConfigError and DaemonNotRunningError.
    """
    socket = StatePaths(load_dock_config(config_file).state_dir).socket
    status = asyncio.run(ask_status(socket))
    if as_json:
        print(json.dumps(status, indent=2))
        return
    console = Console()
    if not watch:
        console.print(status_table(status))
        return
    with Live(status_table(status), console=console) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(status_table(asyncio.run(ask_status(socket))))


def status_table(status: dict[str, Any]) -> Table:
    """Return the table for people."""
    title = f"dock {status['dock']}{_sending(status['sending'])}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    if (budget_ma := status.get("power_budget_ma")) is not None:
        drawn_ma = sum(bay["draw_ma"] for bay in status["bays"])
        table.caption = f"power: cameras may draw {drawn_ma} of {budget_ma} mA"
    for heading in ("bay", "camera", "state", "recordings", "sent", "what to know"):
        table.add_column(heading)
    for bay in status["bays"]:
        counts = bay.get("recordings", {})
        done = counts.get("confirmed", 0) + counts.get("erased", 0)
        total = bay.get("bytes", 0)
        sent = f"{100 * bay['bytes_sent'] // total} % of {_size(total)}" if total else ""
        if bay["seconds_left"]:
            sent += f", {_duration(bay['seconds_left'])} left"
        table.add_row(
            Text(bay["bay"]),
            Text(bay["camera"] or ""),
            Text(bay["state"], style=_COLOURS.get(bay["state"], "yellow")),
            f"{done} of {sum(counts.values())} proved" if counts else "",
            sent,
            Text(_to_know(bay)),
        )
    return table


def _sending(sending: dict[str, Any]) -> str:
    """Return what to say of the whole dock, while it has anything to send."""
    if not sending["bytes_left"]:
        return ""
    words = [f"{_size(sending['bytes_left'])} left"]
    if sending["mbit_s"] is not None:
        words.append(f"at {sending['mbit_s']:g} Mbit/s")
    if sending["limit_mbit_s"] is not None:
        words.append(f"of {sending['limit_mbit_s']:g} allowed")
    if sending["seconds_left"] is not None:
        words.append(f"done in {_duration(sending['seconds_left'])}")
    return ": " + ", ".join(words)


def _duration(seconds: int) -> str:
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


def _to_know(bay: dict[str, Any]) -> str:
    notes = [bay["reason"]] if bay["reason"] else []
    if bay["state"] == "charging" and bay["battery_percent"] is not None:
        notes.append(f"battery {bay['battery_percent']} %")
    if bay["state"] == "charging" and bay["power"] == "unknown":
        notes.append("power unknown")
    if bay["crowded_by"]:
        notes.append(f"waiting in the same bay: {', '.join(bay['crowded_by'])}")
    if bay["skipped"]:
        notes.append(f"{bay['skipped']} entries are no recordings")
    return "; ".join(notes)


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
