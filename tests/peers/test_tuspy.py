"""An independent client, tuspy, uploads to a real store process and gets a receipt that verifies."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from tusclient.client import TusClient

from dockd.evidence.keys import load_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.store.serve import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    data = str(tmp_path / "store")
    serve = ["serve", "--data", data, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, "-c", "from dockd.cli.store import app; app()", *serve],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        yield Store(line["url"], line["store"], Path(line["receipt_key"]))
        process.terminate()


def test_an_independent_client_gets_a_receipt(store: Store, tmp_path: Path) -> None:
    """INV-1, INV-7: one that knows nothing of docks, and sends in chunks with a break between."""
    content = os.urandom(300_000)
    uploader = TusClient(store.url).uploader(
        file_stream=io.BytesIO(content), chunk_size=100_000, metadata={"filename": "clip.mp4"}
    )
    uploader.upload_chunk()  # type: ignore[no-untyped-call]
    assert uploader.offset == 100_000
    resumed = TusClient(store.url).uploader(
        file_stream=io.BytesIO(content), chunk_size=100_000, url=uploader.url
    )
    assert resumed.offset == 100_000
    resumed.upload()
    with urlopen(f"{uploader.url}/receipt", timeout=10) as response:
        receipt = response.read().decode()
    claims = ReceiptVerifier(store.store_id, load_verifying_key(store.receipt_key)).verify(receipt)
    assert claims.size_bytes == len(content)
    [held] = (tmp_path / "store" / "objects").glob("*/*/*")
    assert held.name == claims.sha256
    assert held.read_bytes() == content
