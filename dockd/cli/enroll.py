"""``dockd enroll``: make this dock known to its store, and the store to this dock."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from dockd.enrolled import EnrolledFiles
from dockd.enrolment import Token, enrol

UrlArgument = Annotated[
    str, typer.Argument(metavar="URL", help="The store's address, such as https://store.example/.")
]
TokenArgument = Annotated[
    str,
    typer.Argument(metavar="TOKEN", help="From `dockd store token`; - reads it from the input."),
]
ForceOption = Annotated[
    str | None,
    typer.Option(
        metavar="REASON", help="Enrol at another store although recordings are not confirmed yet."
    ),
]


def enroll_dock(config_file: Path, url: str, token: str, *, force: str | None) -> None:
    """Enrol the dock of a configuration file, and say what to do next.

    Raises EnrolmentError, TargetError, ConfigError, KeyFileError, JournalError and OSError.
    """
    from_input = token == "-"  # noqa: S105 (no token, but where to read it)
    text = typer.get_text_stream("stdin").readline() if from_input else token
    pinned = asyncio.run(enrol(config_file, url, Token.parse(text), force=force))
    print(f"dock {pinned.dock} is enrolled at {pinned.store_id}, {pinned.url}")
    print(f"pinned in {EnrolledFiles.beside(config_file).directory}")
    print("Now: systemctl restart dockd dockd-helper; then look with: dockd doctor")
