"""Pages that are drawn from the code, so that they cannot disagree with it.

``make docs`` writes them; a test compares them with what the code says now.
"""

import logging
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from dockd.cameras.profiles import load_profiles
from dockd.cameras.udev_rules import udev_rules
from dockd.core.lifecycle import MEANING, TABLE, WORK, BayState, diagram
from dockd.ops.events import CATALOGUE, Event
from dockd.target.conformance.suite import CHECKS
from tests.evidence.receipt_vectors import receipt_vectors
from tests.target.openapi import openapi_page

ROOT = Path(__file__).parent.parent

_NOTE = "<!-- Drawn from the code by `make docs`; changes made here are lost. -->"


_TRYING_A_TARGET = f"""\
# Trying a target

{_NOTE}

    dockd target check https://store.example/files/
    dockd target check --config /etc/dockd/dockd.toml

tries the clauses of the [contract](upload-target.md) on a live server, one after the other, and prints
a table. The second form appears as the dock (certificate, name, key), trusts what the dock trusts, and
checks receipts against the pinned key; options set any of that by hand, see `--help`.

| outcome | means |
| --- | --- |
| `passed` | the server does as the clause says |
| `failed` | it does not, and the words say what it did instead |
| `not offered` | it does not claim to (`Tus-Extension`), so nothing relies on it |
| `not checked` | something is missing, such as the key that is pinned |
| `stated`, `not stated` | nobody can try it from outside; the server says that it does so, or says nothing |

Exit code 0: nothing failed. 1: something did, or the server does not answer. 2: the command or the
configuration is wrong. `--json` prints the same for scripts; there a check keeps its `name`, whatever
its number. `confirms_by` says by what docks could confirm footage there, as far as this can be seen.

It sends about 10 MB, as camera `dockd-target-check`. What is finished stays there, as footage does; what
is not is deleted again where the server allows it. Do not run it where that is in the way.
"""


def log_events() -> str:
    """Return docs/log-events.md: every line that dockd can log, by the part of it that does."""
    lines = [
        "# Log events",
        "",
        _NOTE,
        "",
        "dockd writes its log to standard output: laid out for people on a terminal, otherwise one JSON",
        "object on each line. Every line has `timestamp` (RFC 3339, UTC), `level` and `event`, and always",
        "all keys of its event. File names appear in a printable form in which bytes that are not UTF-8",
        "and control characters are escaped. A mistake in the code brings its traceback along under",
        "`exception`. Footage, secrets and tokens are never logged.",
        "",
        "To follow one camera: `journalctl -u dockd -o cat | jq 'select(.camera == \"BWC-7\")'`",
        "",
    ]
    for part in sorted({name.partition(".")[0] for name in CATALOGUE}):
        lines += [
            f"## {part}",
            "",
            "| event | level | meaning | keys |",
            "| --- | --- | --- | --- |",
        ]
        events = [event for name, event in CATALOGUE.items() if name.partition(".")[0] == part]
        lines += [_row(event) for event in sorted(events, key=lambda event: event.name)]
        lines.append("")
    return "\n".join(lines)


def _row(event: Event) -> str:
    keys = ", ".join(f"`{key}`" for key in event.keys)
    level = logging.getLevelName(event.level).lower()
    return f"| `{event.name}` | {level} | {event.meaning} | {keys} |"


def lifecycle() -> str:
    """Return docs/lifecycle.md: the states of a bay, what they mean to people, and the diagram."""
    verdicts = {
        transition.verdict: None for transition in TABLE.values() if transition.verdict is not None
    }
    lines = [
        "# The life of a bay",
        "",
        _NOTE,
        "",
        "A bay is always in exactly one of these states. In each it does one piece of work at most, and",
        "the work ends with an event that leads on. Pulling the camera is an ordinary event in every",
        "state that has one. Nothing is erased outside `wiping`.",
        "",
        "| state | work | what the officer is told |",
        "| --- | --- | --- |",
        *(f"| `{state}` | {WORK.get(state, 'none')} | {MEANING[state]} |" for state in BayState),
        "",
        "An arrow is labelled with the event and, where the visit is finished on the way, its verdict",
        f"({', '.join(f'`{verdict}`' for verdict in verdicts)}).",
        "",
        "```mermaid",
        diagram(),
        "```",
        "",
    ]
    return "\n".join(lines)


def target_check() -> str:
    """Return docs/target-check.md: how to try a server, every check, and what is known of servers."""
    lines = [
        _TRYING_A_TARGET,
        "## The checks",
        "",
        "| | clause | name | demands |",
        "| --- | --- | --- | --- |",
        *(
            f"| {number} | {check.clause} | `{check.name}` | {check.title} |"
            for number, check in enumerate(CHECKS, start=1)
        ),
        "",
        "## Servers of others",
        "",
        "What is known of them, and held against the real ones by tests. Checks that fail:",
        "",
        "| server | confirms by | fails | because |",
        "| --- | --- | --- | --- |",
    ]
    servers = tomllib.loads((ROOT / "docs/known-targets.toml").read_text(encoding="utf-8"))[
        "server"
    ]
    for server in servers:
        about = f"| {server['name']} | {', '.join(server['confirms_by'])} "
        found = {f"`{name}`": why for name, why in server["fails"].items()} | {
            f"{clause}, which no check sees": why for clause, why in server["beyond"].items()
        }
        lines += [f"{about}| {name} | {why} |" for name, why in found.items()]
    return "\n".join([*lines, ""])


PAGES: Mapping[Path, Callable[[], str]] = {
    Path("docs/log-events.md"): log_events,
    Path("docs/lifecycle.md"): lifecycle,
    Path("docs/receipt-vectors.json"): receipt_vectors,
    Path("docs/target-check.md"): target_check,
    Path("docs/upload-target.openapi.yaml"): openapi_page,
    Path("udev_rules/60-dockd.rules"): lambda: udev_rules(load_profiles([])),
}
"""What draws each page; paths start at the repository's root."""


def main() -> None:
    """Write all pages."""
    for path, draw in PAGES.items():
        (ROOT / path).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
