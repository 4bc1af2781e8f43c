"""docs/operations.md says of each state what the code says."""

import re
from pathlib import Path

from dockd.core.lifecycle import MEANING

PAGE = Path(__file__).parent.parent / "docs/operations.md"


def test_every_state_is_explained_in_the_words_that_officers_see() -> None:
    rows = re.findall(r"(?m)^\| `([a-z]+)` \| (.+?) \| .+ \|$", PAGE.read_text(encoding="utf-8"))
    assert dict(rows) == {state.value: words for state, words in MEANING.items()}


def test_its_links_lead_somewhere() -> None:
    for page in re.findall(r"\]\(([a-z-]+\.md)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / page).exists(), page
