import asyncio
import json
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dockd.cli.custody import app
from dockd.core.errors import CustodyBrokenError, JournalError, KeyFileError
from dockd.core.model import CustodyEvent, ReceiptClaims
from dockd.evidence.custody import seal
from dockd.evidence.keys import load_or_create_key
from dockd.evidence.receipts import sign_receipt
from dockd.journal.journal import SqliteJournal
from tests.journal.scripted_visit import KEY as STORE_KEY
from tests.journal.scripted_visit import NOW


@dataclass(frozen=True)
class Dock:
    state: Path
    heads: list[str]

    @property
    def key(self) -> Path:
        return self.state / "dock-key.pub.pem"

    def tamper(self, statement: str) -> None:
        connection = sqlite3.connect(self.state / "journal.sqlite")
        connection.executescript(
            "DROP TRIGGER custody_entries_stay; DROP TRIGGER custody_entries_stay_the_same;"
        )
        connection.execute(statement)
        connection.commit()
        connection.close()


@pytest.fixture
def dock(tmp_path: Path) -> Dock:
    """A dock's state directory with a log of five entries."""

    async def fill() -> list[str]:
        key = load_or_create_key(tmp_path / "dock-key.pem")
        journal = await SqliteJournal.open(
            tmp_path / "journal.sqlite",
            seal=lambda previous, seq, event: seal(key, "dock-1", previous, seq, NOW, event),
            key_id=key.key_id,
        )
        heads = [
            await journal.add_custody(CustodyEvent("looked", visit, "camera\n1", {"n": n}))
            for n, visit in enumerate(["visit-1", "visit-2", "visit-1", None])
        ]
        await journal.close()
        return heads

    return Dock(tmp_path, asyncio.run(fill()))


def run(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)])


verify, show, export = (partial(run, command) for command in ("verify", "show", "export"))


def exported(dock: Dock) -> Path:
    path = dock.state / "export.jsonl"
    path.write_text(export("--state", dock.state).stdout)
    return path


def anchors(dock: Dock, *lines: str) -> Path:
    path = dock.state / "anchors"
    path.write_text("\n".join([*lines, ""]))
    return path


def receipt(head: str) -> str:
    claims = ReceiptClaims(
        "store-1", NOW, "1", "1", "ab" * 32, 1, "dock-1", "camera-1", "visit-1", head
    )
    return sign_receipt(STORE_KEY, claims)


def test_sound_log(dock: Dock) -> None:
    result = verify("--state", dock.state)
    assert result.exit_code == 0
    assert result.stdout == f"5 entries, 0 heads known elsewhere: sound\nhead {dock.heads[-1]}\n"


def test_sound_log_in_json(dock: Dock) -> None:
    result = verify("--state", dock.state, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "sound": True,
        "entries": 5,
        "anchors": 0,
        "head": dock.heads[-1],
        "problem_count": 0,
        "problems": [],
    }


def test_changed_entry_is_named(dock: Dock) -> None:
    """INV-4."""
    dock.tamper(
        "UPDATE custody SET entry = CAST(replace(entry, 'looked', 'hooked') AS BLOB) WHERE seq = 3"
    )
    result = verify("--state", dock.state, "--json")
    assert result.exit_code == 1
    assert [problem["seq"] for problem in json.loads(result.stdout)["problems"]] == [3, 3, 4]
    plain = verify("--state", dock.state)
    assert plain.exit_code == 1
    assert plain.stdout.startswith("entry 3: ")
    assert "BROKEN, 3 problems" in plain.stdout


def test_many_problems_are_counted_and_not_all_printed(dock: Dock) -> None:
    many = exported(dock)
    many.write_text(many.read_text() * 60)
    result = verify("--file", many, "--key", dock.key)
    assert result.exit_code == 1
    assert "more\n" in result.stdout
    assert len(result.stdout.splitlines()) == 103


def test_cut_end_is_found_by_receipt_or_head(dock: Dock) -> None:
    """INV-4: what is left of the log is sound by itself."""
    lines = anchors(dock, receipt(dock.heads[-1]), "", receipt(""), dock.heads[1], "0" * 64)
    assert verify("--state", dock.state, "--anchors", lines).exit_code == 0
    dock.tamper("DELETE FROM custody WHERE seq > 3")
    assert verify("--state", dock.state).exit_code == 0
    result = verify("--state", dock.state, "--anchors", lines)
    assert result.exit_code == 1
    assert dock.heads[-1] in result.stdout
    assert dock.heads[1] not in result.stdout.splitlines()[0]


@pytest.mark.parametrize("line", ["x", "ab" * 31, "AB" * 32, "a.b.c", "bnVsbA.bnVsbA.bnVsbA"])
def test_line_that_is_no_anchor_is_named(dock: Dock, line: str) -> None:
    result = verify("--state", dock.state, "--anchors", anchors(dock, dock.heads[0], line))
    assert result.exit_code == 2
    assert "line 2" in " ".join(result.output.replace("│", "").split())  # a box, wrapped anywhere


def test_export_can_be_verified_elsewhere(dock: Dock) -> None:
    path = exported(dock)
    assert len(path.read_text().splitlines()) == 5
    result = verify("--file", path, "--key", dock.key, "--anchors", anchors(dock, dock.heads[-1]))
    assert result.exit_code == 0


def run_recipe(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the Python program that docs/custody-log.md gives to third parties."""
    page = (Path(__file__).parents[2] / "docs" / "custody-log.md").read_text()
    program = page.split("```python\n")[1].split("```")[0]
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_documented_recipe_finds_the_same(dock: Dock) -> None:
    """INV-4: nobody needs this program to verify a log."""
    path = exported(dock)
    sound = run_recipe(path, dock.key, dock.heads[0], dock.heads[-1])
    assert sound.stdout == f"5 entries, sound; head {dock.heads[-1]}\n", sound.stderr
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert "cut or changed" in run_recipe(path, dock.key, dock.heads[-1]).stderr
    path.write_text(path.read_text().replace("visit-2", "visit-3"))
    assert "InvalidSignature" in run_recipe(path, dock.key).stderr


def test_changed_export_is_found(dock: Dock) -> None:
    """INV-4."""
    path = exported(dock)
    path.write_text(path.read_text().replace("visit-2", "visit-3"))
    assert verify("--file", path, "--key", dock.key).exit_code == 1


def test_line_of_an_export_that_cannot_be_read_is_named(dock: Dock) -> None:
    path = exported(dock)
    path.write_text(path.read_text() + "{")
    result = verify("--file", path, "--key", dock.key)
    assert isinstance(result.exception, CustodyBrokenError)
    assert "line 6" in str(result.exception)


def test_entry_that_is_no_longer_json_is_exported_and_shown_all_the_same(dock: Dock) -> None:
    """INV-2: damage is shown, not dropped."""
    dock.tamper("UPDATE custody SET entry = x'ff00' WHERE seq = 3")
    path = exported(dock)
    assert len(path.read_text().splitlines()) == 5
    assert verify("--file", path, "--key", dock.key).exit_code == 1
    assert "3  not readable" in show("--state", dock.state).stdout


def test_show_is_one_line_an_entry_and_harmless_to_a_terminal(dock: Dock) -> None:
    result = show("--state", dock.state)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert len(lines) == 5
    assert lines[1] == r'2  2026-01-01T00:00:00.000000Z  looked  visit-1  camera\n1  {"n": 0}'
    assert lines[4].split()[3] == "-"


def test_show_the_newest_of_one_visit(dock: Dock) -> None:
    result = show("--state", dock.state, "--visit", "visit-1", "--limit", 1, "--json")
    said: list[dict[str, Any]] = json.loads(result.stdout)
    assert [each["details"] for each in said] == [{"n": 2}]
    assert json.loads(show("--state", dock.state, "--visit", "no", "--json").stdout) == []


def test_commands_read_beside_a_running_dock(dock: Dock) -> None:
    """INV-8: while a write is under way, the commands see the last commit and do not wait."""
    writer = sqlite3.connect(dock.state / "journal.sqlite", isolation_level=None)
    try:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO custody VALUES (6, '', x'00', x'00')")
        assert verify("--state", dock.state).exit_code == 0
    finally:
        writer.close()


def test_state_without_journal_or_key_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    load_or_create_key(tmp_path / "dock-key.pem")
    result = verify("--state", tmp_path)
    assert isinstance(result.exception, JournalError)
    assert "journal.sqlite" in str(result.exception)
    (tmp_path / "dock-key.pub.pem").unlink()
    assert isinstance(verify("--state", tmp_path).exception, KeyFileError)


def test_wrong_use_is_exit_code_2(dock: Dock) -> None:
    assert verify().exit_code == 2
    assert verify("--state", dock.state, "--file", dock.key).exit_code == 2
    assert verify("--file", exported(dock)).exit_code == 2
    assert verify("--state", dock.state / "missing").exit_code == 2
    assert show("--state", dock.state, "--limit", 0).exit_code == 2
    assert export().exit_code == 2
