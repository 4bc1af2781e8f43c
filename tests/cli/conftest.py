from pathlib import Path

import pytest

from dockd.store.layout import Layout, load_or_create_identity
from tests.faults.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A dock with one bay, whose store has an identity and does not run."""
    store = Layout(tmp_path / "store")
    store.root.mkdir()
    load_or_create_identity(store)
    site = Site(tmp_path / "dock-1", store)
    site.prepare("http://127.0.0.1:9/files/")
    return site
