"""Starting and stopping: addresses, identity, one process for each directory, signals, commands."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from dockd.cli.store import app
from dockd.core.errors import AlreadyRunningError, KeyFileError, ListenRefusedError, StoreError
from dockd.evidence.keys import load_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.store.receiving import PIECE_BYTES
from dockd.store.serve import Address, Store
from tests.store.tus import (
    CAMERA,
    DOCK,
    VISIT,
    Tus,
    never_ending,
    running,
    sha256_hex,
    until,
    upload_metadata,
)


@pytest.mark.parametrize("text", ["127.0.0.1:1080", "127.1.2.3:0", "[::1]:1080"])
def test_loopback_addresses(text: str) -> None:
    address = Address.parse(text)
    assert address.url() == f"http://{text}/files/"


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0:1080", "192.168.1.5:1080", "[::]:1080", "10.0.0.1:1", "8.8.8.8:80"],
)
def test_other_addresses_are_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ListenRefusedError, match="open to others"):
        Address.parse(text).require_loopback()


@pytest.mark.parametrize(
    "text", ["", "1080", "127.0.0.1", "127.0.0.1:x", "host:1", "127.0.0.1:99999"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ListenRefusedError):
        Address.parse(text)


async def test_the_gate_is_in_the_store_and_not_only_in_its_command(data_dir: Path) -> None:
    with pytest.raises(ListenRefusedError):
        async with Store.running(data_dir, host="0.0.0.0"):
            pass
    assert not data_dir.exists()


async def test_two_stores_never_share_a_directory(tus: Tus, data_dir: Path) -> None:
    with pytest.raises(AlreadyRunningError):
        async with Store.running(data_dir):
            pass


async def test_an_address_in_use_is_a_clear_error(tus: Tus, tmp_path: Path) -> None:
    port = int(tus.store.url.split(":")[2].split("/")[0])
    with pytest.raises(StoreError, match="cannot listen"):
        async with Store.running(tmp_path / "other", port=port):
            pass


async def test_identity_is_made_once_and_kept(data_dir: Path) -> None:
    async with running(data_dir) as tus:
        answer = await tus.send(b"clip")
        first = tus.store
    async with running(data_dir) as tus:
        assert tus.store.store_id == first.store_id
        assert tus.verifier.verify(answer.receipt).issuer == first.store_id
    assert (data_dir / "receipt-key.pem").stat().st_mode & 0o777 == 0o600
    assert load_verifying_key(data_dir / "receipt-key.pub.pem").key_id
    assert json.loads((data_dir / "store.json").read_bytes()) == {"store_id": first.store_id}


@pytest.mark.parametrize("name", ["receipt-key.pem", "store.json"])
async def test_a_lost_identity_is_not_made_anew(data_dir: Path, name: str) -> None:
    """INV-1: a new key would disown every receipt."""
    async with running(data_dir):
        pass
    (data_dir / name).unlink()
    with pytest.raises(StoreError, match=name):
        async with running(data_dir):
            pass


async def test_a_receipt_key_open_to_others_is_refused(data_dir: Path) -> None:
    async with running(data_dir):
        pass
    (data_dir / "receipt-key.pem").chmod(0o644)
    with pytest.raises(KeyFileError):
        async with running(data_dir):
            pass


async def test_a_stop_ends_requests_and_keeps_what_came(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-3: the client is told 503, and finds its bytes after the restart."""
    monkeypatch.setattr("dockd.store.receiving.PIECE_BYTES", 10)
    async with aiohttp.ClientSession() as session:
        async with Store.running(data_dir) as store:
            tus = Tus(store, session)
            url = (await tus.create(100)).headers["Location"]
            sending = asyncio.create_task(tus.patch(url, 0, never_ending(b"x" * 60)))

            async def arrived() -> bool:
                return (await tus.head(url)).offset == 60

            await until(arrived)
        answer = await sending
        assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    async with running(data_dir) as tus:
        assert (await tus.head(url)).offset == 60


# The commands


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from dockd.cli.store import app; app()", *arguments]


@contextmanager
def process(data_dir: Path) -> "Iterator[tuple[subprocess.Popen[str], Store]]":
    with subprocess.Popen(
        command("serve", "--data", str(data_dir), "--listen", "127.0.0.1:0"),
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            line = json.loads(server.stdout.readline())
            assert line["event"] == "store.started"
            yield server, Store(line["url"], line["store"], Path(line["receipt_key"]))
        finally:
            server.kill()


async def test_the_real_process_serves_and_stops_in_order(data_dir: Path) -> None:
    """INV-3: on SIGTERM it exits 0 within ten seconds, with a request under way."""
    with process(data_dir) as (server, store):
        async with aiohttp.ClientSession() as session:
            tus = Tus(store, session)
            assert (await tus.send(b"clip")).receipt
            size = 2 * PIECE_BYTES
            url = (await tus.create(size)).headers["Location"]
            sending = asyncio.create_task(tus.patch(url, 0, never_ending(bytes(size - 1))))

            async def arrived() -> bool:
                return (await tus.head(url)).offset > 0

            await until(arrived)
            server.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.wait, 10) == 0
            assert (await sending).status == 503
        assert server.stdout is not None
        events = [json.loads(line)["event"] for line in server.stdout]
    assert events == ["store.held", "store.stopped"]


def test_serve_refuses_to_be_open_to_others(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--data", str(tmp_path), "--listen", "0.0.0.0:1080"])
    assert isinstance(result.exception, ListenRefusedError)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
async def filled(data_dir: Path) -> dict[str, str]:
    """A stopped store with two recordings; returns their receipts by dock."""
    async with running(data_dir) as tus:
        one = await tus.send(b"one", upload_metadata(filename=b"a\n\xff.mp4", flagged=True))
        two = await tus.send(b"two", upload_metadata(dock="dock-2"))
        await tus.create(10, b"half")
        return {DOCK: one.receipt, "dock-2": two.receipt}


def test_verify_command(filled: dict[str, str], data_dir: Path) -> None:
    result = CliRunner().invoke(app, ["verify", "--data", str(data_dir), "--json"])
    assert result.exit_code == 0
    count = json.loads(result.stdout)
    assert (count["objects"], count["ok"], count["unfinished"], count["problems"]) == (2, 2, 1, [])
    digest = sha256_hex(b"one")
    next((data_dir / "objects").glob(f"*/*/{digest}")).unlink()
    result = CliRunner().invoke(app, ["verify", "--data", str(data_dir)])
    assert result.exit_code == 1
    assert f"missing: object {digest}" in result.stdout


def test_receipts_command(filled: dict[str, str], data_dir: Path) -> None:
    """INV-4: the anchors of the custody log can be had from the store."""
    every = CliRunner().invoke(app, ["receipts", "--data", str(data_dir)])
    assert every.stdout.splitlines() == list(filled.values())
    one = CliRunner().invoke(app, ["receipts", "--data", str(data_dir), "--dock", "dock-2"])
    assert one.stdout.splitlines() == [filled["dock-2"]]
    store_id = json.loads((data_dir / "store.json").read_bytes())["store_id"]
    key = load_verifying_key(data_dir / "receipt-key.pub.pem")
    assert ReceiptVerifier(store_id, key).verify(filled["dock-2"]).dock == "dock-2"


def test_list_command(filled: dict[str, str], data_dir: Path) -> None:
    result = CliRunner().invoke(app, ["list", "--data", str(data_dir), "--json"])
    first, _, third = json.loads(result.stdout)
    assert (first["dock"], first["camera"], first["visit"]) == (DOCK, CAMERA, VISIT)
    assert bytes.fromhex(first["name_hex"]) == b"a\n\xff.mp4"
    assert (first["name"], first["size_bytes"], first["flagged"]) == (r"a\n\xff.mp4", 3, True)
    assert (first["sha256"], first["state"]) == (sha256_hex(b"one"), "held")
    assert (third["sha256"], third["state"]) == (None, "receiving")
    table = CliRunner().invoke(app, ["list", "--data", str(data_dir)], env={"COLUMNS": "200"})
    assert table.exit_code == 0
    assert r"a\n\xff.mp4" in table.stdout


def test_list_command_on_an_empty_store(tmp_path: Path) -> None:
    async def start_and_stop() -> None:
        async with running(tmp_path):
            pass

    asyncio.run(start_and_stop())
    result = CliRunner().invoke(app, ["list", "--data", str(tmp_path), "--json"])
    assert json.loads(result.stdout) == []


@pytest.mark.parametrize("name", ["verify", "list", "receipts"])
def test_no_store_here_is_a_clear_error(tmp_path: Path, name: str) -> None:
    result = CliRunner().invoke(app, [name, "--data", str(tmp_path)])
    assert str(tmp_path) in str(result.exception)
    assert list(tmp_path.iterdir()) == []
