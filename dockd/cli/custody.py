"""``dockd custody``: verify, show and export the custody log of a dock, running or not."""

import json
import re
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from dockd.core.errors import CustodyBrokenError
from dockd.core.model import display_name
from dockd.evidence import jws
from dockd.evidence.custody import (
    ChainReport,
    SealedEntry,
    content,
    from_export_line,
    to_export_line,
    verify_chain,
)
from dockd.evidence.keys import load_verifying_key
from dockd.journal.journal import read_custody

app = typer.Typer(no_args_is_help=True)

_HEAD = re.compile(r"[0-9a-f]{64}")

StateOption = Annotated[
    Path, typer.Option("--state", help="The dock's state directory.", exists=True, file_okay=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def verify(
    state: Annotated[
        Path | None,
        typer.Option(help="The dock's state directory.", exists=True, file_okay=False),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="An export, instead of a state directory.", exists=True, dir_okay=False),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="The dock's public key, PEM. Left out, the one in the state directory is believed."
        ),
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            help="Receipts of this dock, or heads of its log, one a line: they show a cut end.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every entry of the log: content, signature, order, links, and heads known elsewhere."""
    if (state is None) == (file is None):
        raise typer.BadParameter("give either --state or --file")
    if state is not None:
        entries = read_custody(state / "journal.sqlite")
        key = key or state / "dock-key.pub.pem"
    elif file is not None:
        entries = _read_export(file)
    if key is None:
        raise typer.BadParameter("an export is verified with --key")
    heads = _read_anchors(anchors) if anchors is not None else set()
    report = verify_chain(entries, load_verifying_key(key), heads)
    _print_report(report, as_json=as_json)
    raise typer.Exit(0 if report.sound else 1)


@app.command()
def show(
    state: StateOption,
    visit: Annotated[str | None, typer.Option(help="Only entries of this visit.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1)] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show the newest entries of the log, oldest first, as they are: without verifying them."""
    newest = deque(
        (
            (sealed, said)
            for sealed in read_custody(state / "journal.sqlite")
            if _is_of_visit(said := content(sealed), visit)
        ),
        maxlen=limit,
    )
    if as_json:
        print(json.dumps([said for _, said in newest], indent=2))
        return
    for sealed, said in newest:
        print(_line(sealed, said))


@app.command()
def export(state: StateOption) -> None:
    """Write the whole log to stdout as lines of JSON, for anyone to verify."""
    for sealed in read_custody(state / "journal.sqlite"):
        sys.stdout.write(to_export_line(sealed) + "\n")


def _read_export(file: Path) -> Iterator[SealedEntry]:
    with file.open(encoding="utf-8", errors="backslashreplace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield from_export_line(line)
            except CustodyBrokenError as error:
                raise CustodyBrokenError(f"{file} line {number}: {error}") from error


def _read_anchors(file: Path) -> set[str]:
    heads: set[str] = set()
    with file.open(encoding="utf-8", errors="backslashreplace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                heads.update(_heads_in(line.strip()))
            except ValueError as error:
                raise typer.BadParameter(
                    f"{file} line {number} is neither a receipt nor a head: {error}"
                ) from error
    return heads


def _heads_in(line: str) -> Iterator[str]:
    if not line:
        return
    if _HEAD.fullmatch(line):
        yield line
        return
    claims = json.loads(jws.unverified_payload(line))
    head = claims.get("custody_head") if isinstance(claims, dict) else None
    if not isinstance(head, str):
        raise jws.JwsError("it has no custody_head")
    # A client that keeps no custody log leaves it empty.
    if head:
        yield head


def _print_report(report: ChainReport, *, as_json: bool) -> None:
    if as_json:
        fields = {
            "sound": report.sound,
            "entries": report.entries,
            "anchors": report.anchors,
            "head": report.head,
            "problem_count": report.problem_count,
            "problems": [{"seq": each.seq, "text": each.text} for each in report.problems],
        }
        print(json.dumps(fields, indent=2))
        return
    for problem in report.problems:
        print(problem)
    if report.problem_count > len(report.problems):
        print(f"and {report.problem_count - len(report.problems)} more")
    verdict = "sound" if report.sound else f"BROKEN, {report.problem_count} problems"
    print(f"{report.entries} entries, {report.anchors} heads known elsewhere: {verdict}")
    print(f"head {report.head}")


def _is_of_visit(said: object, visit: str | None) -> bool:
    return visit is None or (isinstance(said, dict) and said.get("visit") == visit)


def _line(sealed: SealedEntry, said: object) -> str:
    if not isinstance(said, dict):
        return f"{sealed.seq}  not readable"
    words = (said.get("at"), said.get("event"), said.get("visit"), said.get("camera"))
    text = "  ".join("-" if word is None else display_name(str(word).encode()) for word in words)
    return f"{sealed.seq}  {text}  {json.dumps(said.get('details'))}"
