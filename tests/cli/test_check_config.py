"""``dockd check-config``."""

import json
from pathlib import Path

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.cli.check_config import check_config
from dockd.evidence.keys import SigningKey


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "bay").mkdir()
    (tmp_path / "key.pem").write_bytes(SigningKey(Ed25519PrivateKey.generate()).public.pem())
    file = tmp_path / "dockd.toml"
    file.write_text(
        '[dock]\nname = "d"\nstate_dir = "s"\n'
        '[target]\nurl = "http://[::1]/"\nstore_id = "c"\nreceipt_key = "key.pem"\n'
        '[[bay]]\nname = "1"\nfolder = "bay"\n'
    )
    return file


def test_a_good_file_is_summed_up(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_config(file, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "ok: dock d sends to http://[::1]/",
        f"bay 1: {file.parent}/bay",
    ]
    check_config(file, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "dock": "d",
        "target": "http://[::1]/",
        "store_id": "c",
        "confirm": "receipt",
        "bays": [{"name": "1", "folder": f"{file.parent}/bay"}],
    }


def test_each_problem_has_its_line_and_the_exit_code_is_2(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text() + '"odd\\nkey" = 1\n[surprise]\n')
    with pytest.raises(typer.Exit) as caught:
        check_config(file, as_json=False)
    assert caught.value.exit_code == 2
    lines = capsys.readouterr().out.splitlines()
    assert set(lines[:2]) == {
        "bay[1].odd\\nkey: is not a key that dockd knows",
        "surprise: is not a key that dockd knows",
    }

    with pytest.raises(typer.Exit) as caught:
        check_config(file, as_json=True)
    assert caught.value.exit_code == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert len(found["problems"]) == 2
