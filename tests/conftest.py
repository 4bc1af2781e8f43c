"""What all tests share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from dockd.ops.logs import configure_logs

# Before anything imports it: tests of several folders use it.
pytest.register_assert_rewrite("tests.faults.site")

_MEMORY = Path("/dev/shm")


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """A directory in memory where there is one: a kill spares it, and an fsync costs nothing."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def _plain_logs() -> None:
    """Log as a daemon does; tests that look at lines capture them."""
    structlog.reset_defaults()
    configure_logs("info")
