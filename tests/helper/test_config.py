"""The helper's configuration: every problem named at once, and nobody but root may have a say in it.

Guards INV-6: what dockd's own user could write would be a way to erase without proof.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.errors import ConfigError
from dockd.core.model import Confirm
from dockd.evidence.keys import SigningKey, load_verifying_key
from dockd.helper.__main__ import wipe_authority
from dockd.helper.config import load_helper_config, others_can_change


@pytest.fixture
def root_only() -> Iterator[Path]:
    """A directory on a way that nobody but root can change; /tmp is none."""
    if os.geteuid() != 0:
        pytest.skip("needs root: only root has files that are root's")
    with tempfile.TemporaryDirectory(prefix="dockd-test-", dir="/run") as path:
        yield Path(path)


def write(directory: Path, **changes: str) -> Path:
    """Write a configuration that is right, but for the changes."""
    key = SigningKey(Ed25519PrivateKey.generate())
    (directory / "store.pem").write_bytes(key.public.pem())
    (directory / "profiles.d").mkdir()
    lines = {
        "dock": '"dock-1"',
        "store_id": '"store-1"',
        "user": '"nobody"',
        "receipt_key": f'"{directory}/store.pem"',
        "profiles_dir": f'"{directory}/profiles.d"',
        "state_dir": f'"{directory}/state"',
        **changes,
    }
    path = directory / "helper.toml"
    text = "".join(f"{key} = {value}\n" for key, value in lines.items() if value)
    path.write_text(
        text + '[[bay]]\nname = "1"\nport = "1-1.4"\n[[bay]]\nname = "2"\nport = "1-2"\n'
    )
    return path


def problems(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_helper_config(path)
    return "\n".join(error.value.problems)


def test_a_right_file_is_taken(root_only: Path) -> None:
    config = load_helper_config(write(root_only))
    assert [(bay.name, bay.port) for bay in config.bays] == [("1", "1-1.4"), ("2", "1-2")]
    assert (config.dock, config.store_id, config.user) == ("dock-1", "store-1", "nobody")


def test_every_problem_is_named_at_once(root_only: Path) -> None:
    path = write(root_only, dock="7", user='"nobody-of-that-name"', store_id="", extra="1")
    path.write_text(path.read_text() + '[[bay]]\nname = "3"\nport = "/dev/sda"\n')
    found = problems(path)
    for words in (
        "dock:",
        "store_id: is missing",
        "user: there is no user",
        "extra:",
        "bay[3].port",
    ):
        assert words in found


def write_readback(directory: Path) -> Path:
    key = f'"{directory}/store.pem"'
    return write(directory, confirm='"readback"', receipt_key="", dock_key=key)


def test_readback_is_chosen_with_the_docks_key(root_only: Path) -> None:
    path = write_readback(root_only)
    config = load_helper_config(path)
    assert (config.confirm, config.proof_key) == (Confirm.READBACK, root_only / "store.pem")
    authority = wipe_authority(config)
    assert authority.manifest_key == authority.verifier.key == load_verifying_key(config.proof_key)
    assert authority.verifier.confirm is Confirm.READBACK


def test_by_default_only_the_stores_receipts_count(root_only: Path) -> None:
    """INV-1."""
    authority = wipe_authority(load_helper_config(write(root_only)))
    assert (authority.dock, authority.manifest_key) == ("dock-1", None)
    assert authority.verifier.key == load_verifying_key(root_only / "store.pem")
    assert (authority.verifier.store_id, authority.verifier.confirm) == (
        "store-1",
        Confirm.RECEIPT,
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confirm": '"readback"'}, 'receipt_key: confirm = "readback" never uses it'),
        ({"confirm": '"readback"', "receipt_key": ""}, "dock_key: is missing"),
        ({"receipt_key": ""}, "receipt_key: is missing"),
        ({"dock_key": '"/etc/hostname"'}, "dock_key: "),
        ({"confirm": '"checksum"'}, 'confirm: must be "receipt"'),
    ],
)
def test_one_key_decides_and_it_fits_what_confirms(
    root_only: Path, changes: dict[str, str], words: str
) -> None:
    """INV-1: nobody can take a key for the proof that is none."""
    assert words in problems(write(root_only, **changes))


def test_the_docks_key_is_roots_too(root_only: Path) -> None:
    """INV-6: who could change it could erase."""
    path = write_readback(root_only)
    (root_only / "store.pem").chmod(0o664)
    assert "store.pem is writable" in problems(path)


def test_two_bays_cannot_share_a_port_or_a_name(root_only: Path) -> None:
    path = write(root_only)
    path.write_text(path.read_text() + '[[bay]]\nname = "1"\nport = "1-2"\n')
    assert problems(path) == (
        "bay.name: '1' is given to more than one bay\nbay.port: '1-2' is given to more than one bay"
    )


@pytest.mark.parametrize(
    "what", ["helper.toml", "store.pem", "profiles.d", "profiles.d/x.toml", "."]
)
@pytest.mark.parametrize("how", ["group", "others", "owner"])
def test_what_others_could_change_is_refused(root_only: Path, what: str, how: str) -> None:
    path = write(root_only)
    (root_only / "profiles.d/x.toml").write_text("")
    target = root_only / what
    if how == "owner":
        os.chown(target, 65534, 65534)
    else:
        target.chmod(0o775 if how == "group" else 0o757)
    words = "belongs to user 65534" if how == "owner" else "writable by others"
    assert f"{target.resolve()} {words}" in problems(path).replace("is writable", "writable")


def test_a_link_is_as_safe_as_both_of_its_ends(root_only: Path, tmp_path: Path) -> None:
    """A file in /tmp may be root's own; but somebody else could have put it there."""
    real = tmp_path / "helper.toml"
    real.write_bytes(write(root_only).read_bytes())
    link = root_only / "link.toml"
    link.symlink_to(real)
    assert any("/tmp is writable" in problem for problem in others_can_change(link))


def test_the_command_exits_with_2_and_says_why(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    done = subprocess.run(
        [sys.executable, "-m", "dockd.helper", "--config", str(missing)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot be read: No such file or directory" in done.stderr
