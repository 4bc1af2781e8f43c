"""``dockd store`` for docks: make the store known to them, enrol them, turn them away."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dockd.core.errors import StoreError
from dockd.core.timestamps import to_rfc3339
from dockd.store.ca import (
    Authority,
    certified_names,
    certify_names,
    load_authority,
    make_authority,
)
from dockd.store.docks import EnrolledDock, open_docks
from dockd.store.enrolling import make_token
from dockd.store.layout import Layout, load_or_create_identity, read_store_id
from dockd.store.receipt_keys import rotate_receipt_key

DataOption = Annotated[Path, typer.Option("--data", help="The store's directory.")]
DockOption = Annotated[str, typer.Option("--dock", help="The dock's name, as in its dockd.toml.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_commands(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (init, token, docks, revoke):
        app.command()(command)
    app.command("rotate-receipt-key")(rotate)


def init(
    data: DataOption,
    name: Annotated[
        list[str],
        typer.Option(help="Host name or IP address by which docks reach it; may be repeated."),
    ],
) -> None:
    """Give the store its identity, certificate authority, TLS certificate and receipt key.

    Said again, it only gives the store a TLS certificate for other names.
    """
    now = datetime.now(UTC)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    layout = Layout(data)
    identity = load_or_create_identity(layout)
    authority = make_authority(layout, identity.store_id, now)
    certify_names(layout, authority, name, now)
    print(f"store id         {identity.store_id}")
    print(f"names            {', '.join(certified_names(layout))}")
    print(f"CA fingerprint   {authority.fingerprint.hex()}")
    print(f"receipt key      {identity.key.key_id}")
    print("Restart the store if it is running; then enrol docks with: dockd store token")


def token(
    data: DataOption,
    dock: DockOption,
    minutes: Annotated[
        int, typer.Option(min=1, max=7 * 24 * 60, help="How long it can be used.")
    ] = 60,
    again: Annotated[
        bool, typer.Option("--again", help="The dock was enrolled before, and this is meant.")
    ] = False,
) -> None:
    """Print a token with which one dock can enrol, once."""
    layout, authority = _initialised(data)
    if not dock or not dock.isprintable() or dock != dock.strip() or len(dock) > 100:
        raise StoreError(f"{dock!r} cannot be the name of a dock")
    now = datetime.now(UTC)
    secret, text = make_token(authority)
    until = now + timedelta(minutes=minutes)

    async def add() -> None:
        async with open_docks(layout.docks) as known:
            await known.add_token(secret, dock, again=again, now=now, expires_at=until)

    asyncio.run(add())
    print(text)


def docks(data: DataOption, as_json: JsonOption = False) -> None:
    """Show the docks that were enrolled."""
    layout, _ = _initialised(data)

    async def read() -> list[EnrolledDock]:
        async with open_docks(layout.docks) as known:
            return list(await known.all())

    found, now = asyncio.run(read()), datetime.now(UTC)
    if as_json:
        print(json.dumps([_as_json(dock, now) for dock in found], indent=2))
        return
    table = Table("dock", "state", "enrolled", "certified until", "key")
    for dock in found:
        row = _as_json(dock, now)
        table.add_row(
            *(
                Text(str(row[key]))
                for key in ("dock", "state", "enrolled_at", "certified_until", "key")
            )
        )
    Console().print(table)


def revoke(data: DataOption, dock: Annotated[str, typer.Argument(help="The dock's name.")]) -> None:
    """Turn a dock away, from its next request on. What it has sent stays."""
    layout, _ = _initialised(data)

    async def change() -> bool:
        async with open_docks(layout.docks) as known:
            return await known.revoke(dock, datetime.now(UTC))

    if not asyncio.run(change()):
        raise StoreError(f"no dock {dock!r} is enrolled")
    print(f"{dock} is turned away from now on")


def rotate(data: DataOption) -> None:
    """Let a new receipt key take over; docks and their helpers follow by themselves."""
    layout = Layout(data)
    key = rotate_receipt_key(layout, read_store_id(layout), datetime.now(UTC))
    print(f"receipts are signed with {key.key_id} from now on; back up the store's directory")


def _initialised(data: Path) -> tuple[Layout, Authority]:
    layout = Layout(data)
    authority = load_authority(layout)
    if authority is None:
        raise StoreError(f"{data} has no certificates yet; make them with: dockd store init")
    return layout, authority


def _as_json(dock: EnrolledDock, now: datetime) -> dict[str, str | None]:
    state = "expired" if dock.certified_until <= now else "enrolled"
    return {
        "dock": dock.name,
        "state": "revoked" if dock.revoked_at else state,
        "enrolled_at": to_rfc3339(dock.enrolled_at),
        "certified_until": to_rfc3339(dock.certified_until),
        "revoked_at": to_rfc3339(dock.revoked_at) if dock.revoked_at else None,
        "key": dock.key.key_id,
    }
