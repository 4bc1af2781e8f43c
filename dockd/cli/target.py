"""``dockd target``: find out whether a server keeps the contract of docs/upload-target.md."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table
from rich.text import Text
from yarl import URL

from dockd.config import load_config
from dockd.core.errors import ConfigError
from dockd.core.model import Confirm
from dockd.daemon import StatePaths, receipt_verifier
from dockd.evidence.keys import SigningKey, load_signing_key, load_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.ops.logs import configure_logs
from dockd.target.conformance.probe import CAMERA, Subject
from dockd.target.conformance.suite import Outcome, Report, check_target
from dockd.target.connection import Connection

app = typer.Typer(no_args_is_help=True)

_COLOURS = {Outcome.PASSED: "green", Outcome.STATED: "green", Outcome.FAILED: "red"}
_File = Annotated[Path | None, typer.Option(exists=True, dir_okay=False)]


@app.callback()
def target() -> None:
    """Where recordings are sent."""


@app.command()
def check(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]", help="Where uploads are created; else the configuration's."
        ),
    ] = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Appear as this dock, and trust what it trusts."),
    ] = None,
    receipt_key: _File = None,
    store_id: str | None = None,
    ca_file: _File = None,
    certificate: _File = None,
    private_key: _File = None,
    proxy: Annotated[str | None, typer.Option(help="Like http://user@proxy:3128.")] = None,
    proxy_password_file: _File = None,
    dock: Annotated[str | None, typer.Option(help="Appear under this name.")] = None,
    patience: Annotated[float, typer.Option(min=1, help="Seconds to wait for anything.")] = 90,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try each clause of the upload contract; exit 1 if one is broken. Small recordings stay there."""
    subject = _of_config(config) if config is not None else None
    if (url := url or (subject.url if subject else None)) is None:
        raise typer.BadParameter("name a URL, or a --config that has one")
    if URL(url).scheme not in ("http", "https") or not URL(url).host:
        raise typer.BadParameter(f"{url} is not a whole http:// or https:// URL")
    if (receipt_key is None) != (store_id is None):
        raise typer.BadParameter("--receipt-key and --store-id are needed together")
    if (certificate is None) != (private_key is None):
        raise typer.BadParameter("--certificate and --private-key are needed together")
    subject = subject or Subject(url, SigningKey(Ed25519PrivateKey.generate()), CAMERA)
    files = {
        "ca_file": ca_file,
        "certificate": certificate,
        "private_key": private_key,
        "proxy": proxy,
        "proxy_password_file": proxy_password_file,
    }
    subject = replace(
        subject,
        url=url,
        dock=dock or subject.dock,
        connection=replace(subject.connection, **_given(files)),
        patience_s=patience,
    )
    if receipt_key is not None and store_id is not None:
        verifier = ReceiptVerifier(store_id, load_verifying_key(receipt_key))
        subject = replace(subject, verifier=verifier)
    configure_logs("error")  # the report says it all
    report = asyncio.run(check_target(subject))
    if as_json:
        print(json.dumps(_as_json(report), indent=2))
    else:
        _print(report)
    raise typer.Exit(0 if report.conforms else 1)


def _of_config(file: Path) -> Subject:
    """Return the target of a dock, as the dock sees it and is seen."""
    config = load_config(file)
    if config.target is None:
        raise ConfigError(str(file), ("target: is missing",))
    key = load_signing_key(StatePaths(config.dock.state_dir).key)
    key = key or SigningKey(Ed25519PrivateKey.generate())
    return Subject(
        url=config.target.url,
        key=key,
        dock=config.dock.name,
        connection=replace(Connection.of(config.target), fallback_urls=()),
        verifier=receipt_verifier(config.target, key.public)
        if config.target.confirm is Confirm.RECEIPT
        else None,
    )


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _as_json(report: Report) -> dict[str, object]:
    uploads, size_bytes = report.left
    return {
        "url": report.url,
        "conforms": report.conforms,
        "confirms_by": report.confirms_by,
        "left": {"uploads": uploads, "bytes": size_bytes},
        "checks": [
            {
                "number": result.number,
                "clause": result.check.clause,
                "name": result.check.name,
                "demands": result.check.title,
                "outcome": result.outcome.value,
                "why": result.words or None,
            }
            for result in report.results
        ],
    }


def _print(report: Report) -> None:
    table = Table("", "clause", "demands", "outcome")
    for result in report.results:
        colour = _COLOURS.get(result.outcome, "yellow")
        why = Text(f"\n{result.words}") if result.outcome is Outcome.FAILED else Text()
        table.add_row(
            str(result.number),
            result.check.clause,
            Text(result.check.title) + why,
            Text(result.outcome.value, style=colour),
        )
    console = Console()
    console.print(table)
    for line in _verdict(report):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _verdict(report: Report) -> list[str]:
    failed = sum(result.outcome is Outcome.FAILED for result in report.results)
    lines = [
        f"{failed} of {len(report.results)} checks failed"
        if failed
        else "every check of what it offers passed"
    ]
    ways = " or by ".join(report.confirms_by)
    lines.append(f"docks can confirm footage there by {ways}" if ways else "it confirms nothing")
    if report.outcome("states_durability") is Outcome.NOT_STATED:
        lines.append("it does not state what survives a power cut (§2.2): ask whoever runs it")
    uploads, size_bytes = report.left
    lines.append(f"{uploads} recordings ({size_bytes} bytes) of camera {CAMERA} stay there")
    return lines
