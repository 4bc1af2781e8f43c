from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.store.tus import Tus, running


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def tus(data_dir: Path) -> AsyncIterator[Tus]:
    async with running(data_dir) as client:
        yield client
