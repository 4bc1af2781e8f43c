"""What ``dockd doctor`` says of an enrolment."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dockd.cli.checks import Finding, Level
from dockd.cli.checks import enrolment as checks
from dockd.cli.checks.enrolment import check_enrolment
from dockd.config import TargetConfig, load_config
from dockd.enrolled import CERTIFICATE_NAME, KEY_NAME, EnrolledFiles, Pinned
from dockd.evidence.keys import load_or_create_key
from tests.enrolment.docks import initialised, new_key

NOW = datetime.now(UTC)
PINNED = Pinned(dock="dock-1", store_id="store-9", url="https://store.example/files/")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnrolledFiles:
    """An enrolment of NOW whose files root alone can change, as far as the check is told."""
    _, authority = initialised(tmp_path / "store")
    (tmp_path / "state").mkdir()
    key = load_or_create_key(tmp_path / "state" / KEY_NAME)
    certificate = authority.certify_dock("dock-1", key.public, NOW)
    (tmp_path / "state" / CERTIFICATE_NAME).write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "dockd.toml").write_text('[dock]\nname = "dock-1"\nstate_dir = "state"\n')
    made = EnrolledFiles.beside(tmp_path / "dockd.toml")
    made.write(PINNED, ca=authority.pem, receipt_key=new_key().public.pem())
    monkeypatch.setattr(checks, "others_can_change", lambda _: iter(()))
    return made


def target_of(files: EnrolledFiles) -> TargetConfig:
    target = load_config(files.directory.parent / "dockd.toml").target
    assert target is not None
    return target


def examined(files: EnrolledFiles, after: timedelta = timedelta()) -> Finding:
    (finding,) = check_enrolment(files, target_of(files), NOW + after)
    return finding


@pytest.mark.parametrize(
    ("after", "level", "words"),
    [
        (timedelta(days=0), Level.OK, "the store knows this dock until"),
        (timedelta(days=70), Level.OK, "the store knows this dock until"),
        (timedelta(days=80), Level.WARN, "should be renewed by now"),
        (timedelta(days=91), Level.FAIL, "its certificate ended"),
        (timedelta(days=-365), Level.FAIL, "begins only at"),
    ],
)
def test_time_is_told_before_it_is_over(
    files: EnrolledFiles, after: timedelta, level: Level, words: str
) -> None:
    finding = examined(files, after)
    assert finding.level is level
    assert words in finding.words


def test_another_store_in_the_configuration_is_noticed(files: EnrolledFiles) -> None:
    target = target_of(files).model_copy(update={"store_id": "store-1"})
    (finding,) = check_enrolment(files, target, NOW)
    assert finding.level is Level.WARN
    assert "store-9" in finding.words


def test_pins_that_others_can_change_are_a_failure(
    files: EnrolledFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-1: who changes the pinned key erases with it."""
    monkeypatch.undo()
    files.receipt_key.chmod(0o666)
    found = list(check_enrolment(files, target_of(files), NOW))
    assert {finding.level for finding in found} == {Level.FAIL}
    assert any(str(files.receipt_key) in finding.words for finding in found)


def test_a_dock_that_is_not_enrolled_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(new_key().public.pem())
    file = tmp_path / "dockd.toml"
    file.write_text(
        '[dock]\nname = "dock-1"\nstate_dir = "state"\n[target]\nstore_id = "s"\n'
        'url = "http://127.0.0.1:1/"\nreceipt_key = "key.pem"\n'
    )
    assert examined(EnrolledFiles.beside(file)).level is Level.OK


def test_the_daemon_can_read_what_root_pins_whatever_roots_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files = EnrolledFiles.beside(tmp_path / "dockd.toml")
        files.write(PINNED, ca=b"ca", receipt_key=b"key")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in files.directory.iterdir()}
    assert (files.directory.stat().st_mode & 0o777, modes) == (0o755, {0o644})
