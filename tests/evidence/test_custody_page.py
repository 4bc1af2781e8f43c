"""The page about the custody log names every event that dockd puts into it."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_IN_CODE = re.compile(
    r"(?:CustodyEvent|custody|_event)\(\s*(?:\w+, )?\"([a-z]+\.[a-z]+)\"", re.ASCII
)


def test_every_event_of_the_code_is_on_the_page_and_no_other() -> None:
    sources = (file.read_text() for file in (REPOSITORY / "dockd").rglob("*.py"))
    written = {event for source in sources for event in _IN_CODE.findall(source)}
    page = (REPOSITORY / "docs" / "custody-log.md").read_text()
    table = page.partition("## Events")[2].partition("## Commands")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {event for row in rows for event in re.findall(r"`([^`]+)`", row)} == written
