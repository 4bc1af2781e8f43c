"""``dockd bays``: what is plugged in where, which ports are the bays, and the udev rules for them."""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dockd.cameras.discovery import HIGH_SPEED_MBPS, UsbBus, UsbDevice
from dockd.cameras.identify import Identified, Refused, identify_all
from dockd.cameras.profiles import load_profiles
from dockd.cameras.udev_rules import udev_rules
from dockd.config import BayConfig, Config, load_config
from dockd.core.errors import ConfigError

app = typer.Typer(no_args_is_help=True)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The dock's TOML file.")]
_CONFIG = Path("/etc/dockd/dockd.toml")

Look = Callable[[], Sequence[UsbDevice]]


@app.command("list")
def list_bays(
    config: ConfigOption = _CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show who is in each bay, and what is plugged in elsewhere."""
    rows = bay_rows(load_config(config), UsbBus().devices())
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        Console().print(_table(rows))


@app.command()
def learn(
    write: Annotated[
        list[Path] | None,
        typer.Option(help="Append the entries to this file; may be given again for another."),
    ] = None,
) -> None:
    """Find the USB port of each bay: put a camera into bay 1, then 2, and so on."""
    files = write or []
    for file in files:
        require_without_bays(file)
    entries = bay_entries(learn_ports(UsbBus().devices, input, print))
    for file in files:
        with file.open("a", encoding="utf-8") as end:
            end.write("\n" + entries)
        print(f"written to {file}")
    if not files:
        print("\n" + entries)


@app.command()
def rules(config: ConfigOption = _CONFIG) -> None:
    """Print the udev rules for the profiles that are switched on; see docs/profiles.md."""
    print(udev_rules(load_profiles([load_config(config).cameras.profiles_dir])), end="")


Row = Mapping[str, str | float | None]


def bay_rows(config: Config, devices: Sequence[UsbDevice]) -> list[Row]:
    """Return a row for each bay, then one for each storage device that is in no bay.

    Raises ConfigError for a faulty profile.
    """
    found = identify_all(devices, load_profiles([config.cameras.profiles_dir]))
    at = {device.port: device for device in devices}
    rows = [_bay_row(bay, at.get(bay.port or ""), found) for bay in config.bays]
    ports = {bay.port for bay in config.bays}
    elsewhere = [device for device in devices if device.port not in ports and device.stores]
    return rows + [_device_row(None, device, found[device.port]) for device in elsewhere]


def _bay_row(
    bay: BayConfig, device: UsbDevice | None, found: Mapping[str, Identified | Refused]
) -> Row:
    if device is not None:
        return _device_row(bay.name, device, found[device.port])
    place = f"folder {bay.folder}" if bay.port is None else None
    return {
        "bay": bay.name, "port": bay.port, "device": None, "model": None, "speed_mbps": None,
        "camera": None, "what_to_know": place,
    }  # fmt: skip


def _device_row(bay: str | None, device: UsbDevice, found: Identified | Refused) -> Row:
    if bay is None:
        what = "this port is no bay: left alone"
    elif isinstance(found, Refused):
        what = found.words
    elif device.speed_mbps < HIGH_SPEED_MBPS:
        what = f"slow ({device.speed_mbps:g} Mbit/s): replace the cable"
    else:
        what = f"profile {found.profile.name}"
    return {
        "bay": bay,
        "port": device.port,
        "device": f"{device.vendor}:{device.product}",
        "model": device.model,
        "speed_mbps": device.speed_mbps,
        "camera": found.camera.camera_id if isinstance(found, Identified) else None,
        "what_to_know": what,
    }


def _table(rows: Sequence[Row]) -> Table:
    table = Table()
    for heading in ("bay", "port", "device", "model", "Mbit/s", "camera", "what to know"):
        table.add_column(heading)
    for row in rows:
        cells = [
            f"{value:g}" if isinstance(value, float) else value or "" for value in row.values()
        ]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def learn_ports(
    look: Look, ask: Callable[[str], str], tell: Callable[[str], None]
) -> dict[str, str]:
    """Ask for a camera in one bay after the other; return the port of each bay by its name.

    ``ask`` shows a line and returns the answer, ``tell`` shows a line. Cameras may stay where they
    are, or one camera may go from bay to bay.
    """
    ports: dict[str, str] = {}
    known = _plugged(look())
    while True:
        name = str(len(ports) + 1)
        answer = ask(f"Put a camera into bay {name} and press Enter; or type q if there is none: ")
        if answer.strip().lower() == "q":
            return ports
        now = _plugged(look())
        new = sorted(now - known)
        known = now
        if len(new) != 1:
            tell(
                "More than one device is new: leave only one in, and try again."
                if new
                else "No new device: wait a few seconds, check cable and camera, and try again."
            )
            continue
        port = new[0][0]
        if port in ports.values():
            other = next(bay for bay, at in ports.items() if at == port)
            tell(f"That is the port of bay {other} ({port}): choose another bay.")
            continue
        ports[name] = port
        tell(f"Bay {name} is USB port {port}.")


def _plugged(devices: Sequence[UsbDevice]) -> set[tuple[str, int]]:
    return {(device.port, device.devnum) for device in devices}


def bay_entries(ports: Mapping[str, str]) -> str:
    """Return the ``[[bay]]`` entries for a configuration file."""
    return "\n".join(f'[[bay]]\nname = "{name}"\nport = "{port}"\n' for name, port in ports.items())


def require_without_bays(file: Path) -> None:
    """Raise ConfigError unless entries can be appended to this file."""
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(file), (f"cannot be read: {error.strerror}",)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), (f"is not TOML: {error}",)) from error
    if "bay" in raw:
        problem = "bay: there are bays already; take them out before they are learnt anew"
        raise ConfigError(str(file), (problem,))
