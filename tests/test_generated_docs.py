"""The pages under docs/ that are drawn from the code say what the code says."""

from pathlib import Path

import pytest

from dockd.core.lifecycle import MEANING, BayState
from tests.generated_docs import PAGES, ROOT


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_the_page_is_what_the_code_says(path: Path) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == PAGES[path](), "run: make docs"


def test_every_state_has_words_for_officers() -> None:
    assert set(MEANING) == set(BayState)
