"""``dockd store``: run the central store, and ask what it holds."""

import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dockd.cli import store_docks
from dockd.core.model import display_name
from dockd.core.timestamps import to_rfc3339
from dockd.ops.logs import configure_logs
from dockd.store import serve as running
from dockd.store.catalogue import Upload
from dockd.store.settings import StoreSettings
from dockd.store.verify import Count, Problem, held, recordings
from dockd.store.verify import verify as verify_store

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
store_docks.add_commands(app)

DataOption = Annotated[Path, typer.Option("--data", help="The store's directory.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_MIB = 1024**2


@app.command()
def serve(
    data: DataOption,
    listen: Annotated[
        str, typer.Option(help="ADDRESS:PORT; only loopback before `dockd store init`.")
    ] = running.DEFAULT_LISTEN,
    reserve_mib: Annotated[
        int, typer.Option(min=0, help="Disk space that footage never takes, in MiB.")
    ] = running.FIELD_SETTINGS.reserve_bytes // _MIB,
) -> None:
    """Run the store until SIGTERM."""
    configure_logs("info")
    address = running.Address.parse(listen)
    settings = StoreSettings(reserve_bytes=reserve_mib * _MIB)
    asyncio.run(running.serve(data, address, settings))


@app.command()
def verify(data: DataOption, as_json: JsonOption = False) -> None:
    """Hash again everything that the store holds; exit 1 if anything is damaged or missing."""
    problems: list[Problem] = []
    count = verify_store(data, problems.append)
    if as_json:
        print(json.dumps({**asdict(count), "problems": [asdict(p) for p in problems]}, indent=2))
    else:
        for problem in problems:
            print(f"{problem.kind}: object {problem.sha256} {' '.join(problem.uploads)}".rstrip())
        _print_count(count)
    raise typer.Exit(0 if count.sound else 1)


@app.command()
def receipts(
    data: DataOption,
    dock: Annotated[str | None, typer.Option(help="Only receipts given to this dock.")] = None,
) -> None:
    """Print the receipts, one JWS a line: the anchors for `dockd custody verify`."""
    for upload in held(data):
        if upload.receipt is not None and dock in (None, upload.dock):
            print(upload.receipt)


@app.command("list")
def list_uploads(data: DataOption, as_json: JsonOption = False) -> None:
    """Show every upload, with its state."""
    if as_json:
        _print_json(recordings(data))
        return
    table = Table("dock", "camera", "visit", "name", "size", "sha256", "flagged", "state")
    for upload in recordings(data):
        table.add_row(
            *map(Text, (_shown(upload.dock), _shown(upload.camera), _shown(upload.visit))),
            Text(display_name(upload.path)),
            str(upload.size_bytes),
            (upload.sha256 or "")[:12],
            "flagged" if upload.flagged else "",
            upload.state.value,
        )
    Console().print(table)


def _print_count(count: Count) -> None:
    table = Table("what", "count", show_header=False)
    for what, number in asdict(count).items():
        table.add_row(what, str(number))
    Console().print(table)


def _print_json(uploads: Iterable[Upload]) -> None:
    """Print a JSON array, one upload a line, without holding them all in memory."""
    separator = "["
    for upload in uploads:
        sys.stdout.write(f"{separator}\n{json.dumps(_as_json(upload))}")
        separator = ","
    print("[]" if separator == "[" else "\n]")


def _as_json(upload: Upload) -> dict[str, object]:
    return {
        "upload": upload.upload_id,
        "state": upload.state.value,
        "kind": upload.kind.value,
        "dock": upload.dock,
        "camera": upload.camera,
        "visit": upload.visit,
        "name": display_name(upload.path),
        "name_hex": upload.path.hex(),
        "size_bytes": upload.size_bytes,
        "mtime_ns": upload.mtime_ns,
        "sha256": upload.sha256,
        "flagged": upload.flagged,
        "created_at": to_rfc3339(upload.created_at),
        "error": upload.refusal.error if upload.refusal else None,
    }


def _shown(text: str) -> str:
    return display_name(text.encode())
