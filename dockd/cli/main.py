"""The ``dockd`` command: puts the groups of commands together and turns errors into exit codes.

Exit codes: 0 done; 1 the answer is bad news, or the work could not be done; 2 the command or the
configuration is wrong.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dockd import __version__
from dockd.cli import bays, custody, receipt, store, target
from dockd.cli import check_config as checking
from dockd.cli import send_now as sending
from dockd.cli.attempts import show_attempts
from dockd.cli.demo import run_demo
from dockd.cli.doctor import run_doctor
from dockd.cli.enroll import ForceOption, TokenArgument, UrlArgument, enroll_dock
from dockd.cli.status import show_status
from dockd.core.errors import ConfigError, DockdError, FileAccessError, ListenRefusedError
from dockd.core.model import display_name
from dockd.daemon import end_in_time, run_daemon

app = typer.Typer(
    help="Docking-station ingest for body-worn cameras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bays.app, name="bays", help="The bays that are USB ports.")
app.add_typer(store.app, name="store", help="The central store.")
app.add_typer(custody.app, name="custody", help="The custody log of a dock.")
app.add_typer(receipt.app, name="receipt", help="Receipts of a store.")
app.add_typer(target.app, name="target", help="Where recordings are sent.")

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The dock's TOML file.")]
INSTALLED_CONFIG = Path("/etc/dockd/dockd.toml")
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(config: ConfigOption) -> None:
    """Run the dock until SIGTERM; SIGHUP loads the file again."""
    asyncio.run(run_daemon(config, told_to_stop=end_in_time))


@app.command("check-config")
def check_config(
    file: Annotated[Path, typer.Argument(help="The dock's TOML file.")], as_json: JsonOption = False
) -> None:
    """Check a configuration file and name everything that is wrong with it."""
    checking.check_config(file, as_json=as_json)


@app.command()
def status(
    config: ConfigOption,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every second.")] = False,
) -> None:
    """Show what each bay of a running dock is doing."""
    show_status(config, as_json=as_json, watch=watch)


@app.command()
def enroll(
    url: UrlArgument,
    token: TokenArgument,
    config: ConfigOption = INSTALLED_CONFIG,
    force: ForceOption = None,
) -> None:
    """Make this dock known to its store, and the store to this dock. Needs root."""
    enroll_dock(config, url, token, force=force)


@app.command("send-now")
def send_now(
    what: Annotated[str, typer.Argument(metavar="CAMERA|RECORDING", help="Its id, or its path.")],
    config: ConfigOption = INSTALLED_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Send a docked camera, or one recording of it, before all others."""
    sending.send_now(config, what, as_json=as_json)


@app.command()
def attempts(
    what: Annotated[
        str,
        typer.Argument(metavar="CAMERA|RECORDING", help="A camera's id, or a recording's path."),
    ],
    config: ConfigOption = INSTALLED_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show each attempt to send a recording: when, how far it came, what it cost, why it failed."""
    show_attempts(config, what, as_json=as_json)


@app.command()
def doctor(config: ConfigOption = INSTALLED_CONFIG, as_json: JsonOption = False) -> None:
    """Look at everything that the dock needs; exit 1 if anything is wrong."""
    raise typer.Exit(0 if run_doctor(config, as_json=as_json) else 1)


@app.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running, and say where to look.")
    ] = False,
) -> None:
    """Show the whole job: dock three cameras, break things, and prove that nothing was lost."""
    raise typer.Exit(asyncio.run(run_demo(keep=keep)))


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """Run the command line; every error that dockd can explain is one line and an exit code."""
    try:
        app(standalone_mode=True)
    except BaseExceptionGroup as group:
        known, unknown = group.split(DockdError)
        if unknown is not None or known is None:
            raise
        _exit(_first(known))
    except DockdError as error:
        _exit(error)
    except OSError as error:
        where = [display_name(os.fsencode(error.filename))] if error.filename is not None else []
        _exit(FileAccessError(": ".join([*where, error.strerror or str(error)])))


def _first(group: BaseExceptionGroup[DockdError]) -> DockdError:
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    if not isinstance(inner, DockdError):
        raise TypeError(f"not an error of ours: {inner!r}")
    return inner


def _exit(error: DockdError) -> None:
    if isinstance(error, ConfigError):
        for problem in error.problems:
            print(_one_line(f"{error.file}: {problem}"), file=sys.stderr)
    else:
        print(f"dockd: {_one_line(str(error))}\n       {error.advice}", file=sys.stderr)
    sys.exit(2 if isinstance(error, ConfigError | ListenRefusedError) else 1)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
