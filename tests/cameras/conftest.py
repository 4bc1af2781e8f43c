"""The simulated USB devices that tests of cameras share."""

import os
from collections.abc import Iterator

import pytest

from tests.simulated.udev import Mocked, why_not


@pytest.fixture(scope="session")
def mocked() -> Iterator[Mocked]:
    """A process in which only simulated USB devices exist."""
    if (reason := why_not()) is not None:
        if os.environ.get("DOCKD_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    process = Mocked()
    yield process
    process.close()
