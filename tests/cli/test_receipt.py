import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dockd.cli.receipt import app
from dockd.core.errors import KeyFileError, ReceiptInvalidError

VECTORS = json.loads((Path(__file__).parents[2] / "docs/receipt-vectors.json").read_text())
CASES = {case["name"]: case for case in VECTORS["cases"]}


@pytest.fixture(autouse=True)
def key_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go where the keys of the vectors are."""
    for name, key in VECTORS["keys"].items():
        (tmp_path / f"{name}.pem").write_text(key["public_pem"])
    monkeypatch.chdir(tmp_path)


KEY = Path("store.pem")


@pytest.fixture
def receipt(tmp_path: Path) -> Path:
    return write(tmp_path, "valid")


def write(directory: Path, name: str) -> Path:
    path = directory / "receipt.jws"
    path.write_text(CASES[name]["jws"] + "\n")
    return path


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_sound_receipt_says_what_it_proves(receipt: Path) -> None:
    result = verify(receipt, "--key", KEY)
    assert result.exit_code == 0
    assert result.stdout.startswith("valid\n")
    assert '"camera-1"' in result.stdout


def test_json_has_every_claim(receipt: Path) -> None:
    result = verify(receipt, "--key", KEY, "--store-id", "store-1", "--json")
    fields: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == 0
    assert fields["valid"] is True
    assert fields["issued_at"] == "2026-01-01T00:00:00.000000Z"
    assert (fields["store"], fields["size_bytes"], fields["camera"]) == ("store-1", 7, "camera-1")
    assert fields["confirmed_by"] == "receipt"


def test_a_docks_own_receipt_says_what_it_is(tmp_path: Path) -> None:
    """INV-1: nobody takes it for the store's word."""
    receipt = write(tmp_path, "valid, by readback")
    assert verify(receipt, "--key", KEY).exit_code != 0
    fields = json.loads(verify(receipt, "--key", "dock.pem", "--json").stdout)
    assert fields["confirmed_by"] == "readback"


def test_recording_and_digest_that_fit(tmp_path: Path, receipt: Path) -> None:
    recording = tmp_path / "recording"
    recording.write_bytes(b"footage")
    digest = json.loads(verify(receipt, "--key", KEY, "--json").stdout)["sha256"]
    assert verify(receipt, "--key", KEY, "--file", recording).exit_code == 0
    assert verify(receipt, "--key", KEY, "--sha256", digest.upper()).exit_code == 0


@pytest.mark.parametrize("content", [b"other ??", b"Footage"])
def test_recording_that_differs_is_refused(tmp_path: Path, receipt: Path, content: bytes) -> None:
    """INV-1."""
    recording = tmp_path / "recording"
    recording.write_bytes(content)
    result = verify(receipt, "--key", KEY, "--file", recording)
    assert isinstance(result.exception, ReceiptInvalidError)
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments", [["--store-id", "store-2"], ["--sha256", "ab" * 32], ["--sha256", ""]]
)
def test_other_store_or_digest_is_refused(receipt: Path, arguments: list[str]) -> None:
    """INV-1."""
    result = verify(receipt, "--key", KEY, *arguments)
    assert isinstance(result.exception, ReceiptInvalidError)


def test_invalid_receipt_in_json(tmp_path: Path) -> None:
    result = verify(write(tmp_path, "altered digest"), "--key", KEY, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "valid": False,
        "error": "the receipt does not verify: its signature is wrong",
    }


def test_file_that_is_no_receipt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "receipt.jws"
    path.write_bytes(b"\xff" * 1_000_000)
    assert isinstance(verify(path, "--key", KEY).exception, ReceiptInvalidError)


def test_key_that_is_none_is_named(receipt: Path) -> None:
    result = verify(receipt, "--key", receipt)
    assert isinstance(result.exception, KeyFileError)


def test_wrong_use_is_exit_code_2(tmp_path: Path, receipt: Path) -> None:
    assert verify(tmp_path / "missing", "--key", KEY).exit_code == 2
    assert verify(receipt).exit_code == 2
