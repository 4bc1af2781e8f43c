"""``dockd check-config``: name everything that is wrong with a configuration file."""

import json
from pathlib import Path

import typer

from dockd.config import BayConfig, Config, load_config
from dockd.core.errors import ConfigError
from dockd.core.model import display_name


def check_config(file: Path, *, as_json: bool) -> None:
    """Print every problem on a line of its own and end with exit code 2, or what the file sets up."""
    try:
        config = load_config(file)
    except ConfigError as error:
        if as_json:
            print(json.dumps({"ok": False, "problems": error.problems}))
        else:
            for problem in error.problems:
                print(display_name(problem.encode("utf-8", "surrogateescape")))
            print(error.advice)
        raise typer.Exit(2) from None
    if as_json:
        print(json.dumps({"ok": True, **_summary(config)}))
    else:
        where = f"sends to {config.target.url}" if config.target else "has no target yet"
        print(f"ok: dock {config.dock.name} {where}")
        for bay in config.bays:
            print(f"bay {bay.name}: {bay.folder or f'USB port {bay.port}'}")


def _summary(config: Config) -> dict[str, object]:
    return {
        "dock": config.dock.name,
        "target": config.target.url if config.target else None,
        "store_id": config.target.store_id if config.target else None,
        "confirm": config.target.confirm.value if config.target else None,
        "bays": [_bay(bay) for bay in config.bays],
    }


def _bay(bay: BayConfig) -> dict[str, str]:
    place = {"port": bay.port} if bay.port is not None else {"folder": str(bay.folder)}
    return {"name": bay.name, **place}
