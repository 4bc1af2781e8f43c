"""Certificates and keys in files: sound ones load, all others are named."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from dockd.core.errors import KeyFileError
from dockd.evidence.certificates import check_identity, load_certificates, read_secret
from tests.certificates import DAY, Authority


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


def test_all_certificates_of_a_file_are_loaded(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(b"a comment\n" + authority.pem + Authority.new().pem)
    assert len(load_certificates(file)) == 2


@pytest.mark.parametrize(
    "content", [b"", b"text", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\xff\x00"]
)
def test_a_file_without_a_certificate_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(content)
    with pytest.raises(KeyFileError, match=r"ca\.pem: not a certificate"):
        load_certificates(file)


def test_a_file_that_is_not_there_or_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"none\.pem: No such file"):
        load_certificates(tmp_path / "none.pem")
    with pytest.raises(KeyFileError, match="Is a directory"):
        read_secret(tmp_path)


def test_an_expired_certificate_is_still_an_identity(authority: Authority, tmp_path: Path) -> None:
    """A dock with the wrong clock starts, and finds out from the store."""
    issued = authority.issue("dock-1", valid_from=-2 * DAY, valid_until=-DAY)
    check_identity(*issued.write(tmp_path, "dock"))


def test_the_first_certificate_of_a_chain_is_the_docks(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue("dock-1").write(tmp_path, "dock")
    own = certificate.read_bytes()
    certificate.write_bytes(own + authority.pem)
    check_identity(certificate, key)
    certificate.write_bytes(authority.pem + own)
    with pytest.raises(KeyFileError, match=r"dock\.key: not the key of the certificate in"):
        check_identity(certificate, key)


def test_an_encrypted_key_is_refused_without_asking(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("dock-1").write(tmp_path, "dock")
    secret = BestAvailableEncryption(b"secret")
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
    )
    with pytest.raises(KeyFileError, match=r"dock\.key: not an unencrypted private key"):
        check_identity(certificate, key)


@pytest.mark.parametrize(
    ("mode", "secret"), [(0o600, True), (0o640, True), (0o604, False), (0o666, False)]
)
def test_a_secret_is_closed_to_everyone_else(tmp_path: Path, mode: int, secret: bool) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"secret")
    file.chmod(mode)
    if secret:
        assert read_secret(file) == b"secret"
    else:
        with pytest.raises(KeyFileError, match=f"open to everyone .mode {mode:04o}"):
            read_secret(file)
