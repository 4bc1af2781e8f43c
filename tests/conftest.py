"""What all tests share."""

import pytest
import structlog

from dockd.ops.logs import configure_logs

# Before anything imports it: tests of several folders use it.
pytest.register_assert_rewrite("tests.faults.site")


@pytest.fixture(autouse=True)
def _plain_logs() -> None:
    """Log as a daemon does; tests that look at lines capture them."""
    structlog.reset_defaults()
    configure_logs("info")
