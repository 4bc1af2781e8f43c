"""docs/wipe-gate.md says what the code says."""

import re
from pathlib import Path

from dockd.core import wipe_gate
from dockd.helper.erase import LEVELS

PAGE = Path(__file__).parents[2] / "docs/wipe-gate.md"


def checks(text: str) -> list[str]:
    return [
        " ".join(found.split())
        for found in re.findall(r"^\d+\. .*?[;.]$", text, re.MULTILINE | re.DOTALL)
    ]


def test_the_checks_are_those_of_the_gate() -> None:
    found = checks(wipe_gate.__doc__ or "")
    assert len(found) == 15
    assert checks(PAGE.read_text(encoding="utf-8")) == found


def test_every_method_is_explained_by_its_level() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for method, level in LEVELS.items():
        (row,) = re.findall(rf"^\| `{method}` \|.*$", page, re.MULTILINE)
        assert level.partition(" (NIST")[0] in row
