"""The simulated USB devices that tests of cameras share."""

from collections.abc import Iterator

import pytest

from tests.simulated.udev import Mocked, missing, why_not


@pytest.fixture(scope="session")
def mocked() -> Iterator[Mocked]:
    """A process in which only simulated USB devices exist."""
    if (reason := why_not()) is not None:
        missing(reason)
    process = Mocked()
    yield process
    process.close()
