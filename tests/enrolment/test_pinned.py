"""What enrolment pins is what daemon and helper go by, where their files name no store themselves."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dockd.config import load_config
from dockd.core.errors import ConfigError, EnrolmentError
from dockd.enrolled import CERTIFICATE_NAME, KEY_NAME, EnrolledFiles, Pinned
from dockd.enrolment import Token, enrol
from dockd.evidence.keys import load_or_create_key
from dockd.helper.config import load_helper_config
from tests.enrolment.docks import initialised, new_key

PINNED = Pinned(dock="dock-1", store_id="store-9", url="https://store.example:1443/files/")
DOCK = '[dock]\nname = "dock-1"\nstate_dir = "state"\n'
TOKEN = Token("c2VjcmV0", b"0" * 32)


@pytest.fixture
def files(tmp_path: Path) -> EnrolledFiles:
    """An enrolled dock, whose configuration is ``dockd.toml`` in the same directory."""
    _, authority = initialised(tmp_path / "store")
    state = tmp_path / "state"
    state.mkdir()
    key = load_or_create_key(state / KEY_NAME)
    certificate = authority.certify_dock("dock-1", key.public, datetime.now(UTC))
    (state / CERTIFICATE_NAME).write_bytes(certificate.public_bytes(Encoding.PEM))
    made = EnrolledFiles.beside(tmp_path / "dockd.toml")
    made.write(PINNED, ca=authority.pem, receipt_key=new_key().public.pem())
    return made


def dock_file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "dockd.toml"
    file.write_text(text)
    return file


def test_a_dock_needs_no_word_about_its_store(tmp_path: Path, files: EnrolledFiles) -> None:
    target = load_config(dock_file(tmp_path, DOCK)).target
    assert target is not None
    assert (target.url, target.store_id) == (PINNED.url, PINNED.store_id)
    assert (target.receipt_key, target.ca_file) == (files.receipt_key, files.ca)
    assert target.certificate == tmp_path / "state" / CERTIFICATE_NAME
    assert target.private_key == tmp_path / "state" / KEY_NAME


def test_the_way_to_the_store_can_still_be_named(tmp_path: Path, files: EnrolledFiles) -> None:
    text = DOCK + '[target]\nurl = "https://other.example/files/"\nproxy = "http://proxy:3128"\n'
    target = load_config(dock_file(tmp_path, text)).target
    assert target is not None
    assert (target.url, target.store_id) == ("https://other.example/files/", PINNED.store_id)
    assert target.proxy == "http://proxy:3128"


@pytest.mark.parametrize("key", ["store_id = 's'", "confirm = 'readback'", "receipt_key = 'k'"])
def test_a_file_that_names_a_store_gets_nothing_of_another(
    tmp_path: Path, files: EnrolledFiles, key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(dock_file(tmp_path, f"{DOCK}[target]\n{key}\n"))
    assert "target.url: is missing" in caught.value.problems


def test_a_dock_is_not_renamed_behind_the_stores_back(tmp_path: Path, files: EnrolledFiles) -> None:
    with pytest.raises(ConfigError, match="enrolled as 'dock-1'"):
        load_config(dock_file(tmp_path, DOCK.replace("dock-1", "dock-2")))


def test_a_damaged_enrolment_is_a_problem_of_the_configuration(
    tmp_path: Path, files: EnrolledFiles
) -> None:
    files.store.write_text("{}")
    with pytest.raises(ConfigError, match="is not what an enrolment writes"):
        load_config(dock_file(tmp_path, DOCK))


@pytest.mark.skipif(os.getuid() != 0, reason="the helper trusts root's files only")
def test_the_helper_takes_the_same_pins_from_root_alone(files: EnrolledFiles) -> None:
    """INV-1, INV-6."""
    file = files.directory.parent / "helper.toml"
    file.write_text('user = "root"\n')
    with pytest.raises(ConfigError) as caught:
        load_helper_config(file)
    # Below /tmp others can put files in place of these, which is all that is wrong here.
    assert all("writable by others" in problem for problem in caught.value.problems)
    files.store.chmod(0o666)
    with pytest.raises(ConfigError, match=f"{files.store} is writable"):
        load_helper_config(file)


@pytest.mark.parametrize(
    "text", ["", "dockd-", "dockd-AAAA", "x" * 64 + "é", "a" * 100, "dockd-\n"]
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(EnrolmentError, match="not a token"):
        Token.parse(text)


async def test_what_cannot_be_pinned_uses_no_token_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked: the address would refuse a connection."""
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(EnrolmentError, match="say this as root"):
        await enrol(dock_file(tmp_path, DOCK), "https://127.0.0.1:9/", TOKEN, force=None)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("url", ["http://store/", "store.example", "https:///files/", "ftp://s/"])
async def test_a_store_is_enrolled_at_over_https_only(tmp_path: Path, url: str) -> None:
    with pytest.raises(EnrolmentError, match="https:// address"):
        await enrol(dock_file(tmp_path, DOCK), url, TOKEN, force=None)


async def test_a_file_that_names_a_store_is_not_enrolled(tmp_path: Path) -> None:
    """The pins would have no effect, and the dock would seem enrolled."""
    file = dock_file(tmp_path, DOCK + '[target]\nstore_id = "store-1"\n')
    with pytest.raises(EnrolmentError, match="names a store itself"):
        await enrol(file, "https://127.0.0.1:9/", TOKEN, force=None)
