import base64
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from dockd.core.errors import KeyFileError
from dockd.evidence.keys import (
    SigningKey,
    VerifyingKey,
    load_or_create_key,
    load_verifying_key,
    public_key_path,
    verifying_key_from_jwk,
)


def private_pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_thumbprint_is_that_of_rfc_8037_appendix_a3() -> None:
    raw = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    key = VerifyingKey(ed25519.Ed25519PublicKey.from_public_bytes(raw))
    assert key.key_id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_new_key_is_kept_private_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "dock-key.pem"
    created = load_or_create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key(path).key_id == created.key_id
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dock-key.pem", "dock-key.pub.pem"]


def test_public_half_verifies_what_the_private_half_signs(tmp_path: Path) -> None:
    path = tmp_path / "dock-key.pem"
    key = load_or_create_key(path)
    public = load_verifying_key(public_key_path(path))
    signature = key.sign(b"footage")
    assert public.key_id == key.key_id
    assert public.verifies(signature, b"footage")
    assert not public.verifies(signature, b"other footage")
    assert not public.verifies(signature[:-1], b"footage")


def test_lost_or_wrong_public_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "dock-key.pem"
    key = load_or_create_key(path)
    public_key_path(path).write_bytes(b"something else")
    load_or_create_key(path)
    assert public_key_path(path).read_bytes() == key.public.pem()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "dock-key.pem"
    load_or_create_key(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="open to others"):
        load_or_create_key(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"no key", private_pem(ec.generate_private_key(ec.SECP256R1()))],
    ids=["empty", "text", "another kind of key"],
)
def test_damaged_key_is_refused_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dock-key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"dock-key\.pem"):
        load_or_create_key(path)
    assert path.read_bytes() == content


def test_encrypted_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dock-key.pem"
    key = ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="unencrypted"):
        load_or_create_key(path)


def test_key_in_a_missing_directory_is_a_key_file_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        load_or_create_key(tmp_path / "missing" / "dock-key.pem")


@pytest.mark.parametrize(
    "content",
    [
        b"no key",
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        private_pem(ed25519.Ed25519PrivateKey.generate()),
    ],
    ids=["text", "another kind of key", "a private key"],
)
def test_what_is_no_public_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.pub.pem"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=r"store\.pub\.pem"):
        load_verifying_key(path)


def test_missing_public_key_is_a_key_file_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        load_verifying_key(tmp_path / "store.pub.pem")


def test_jwk_comes_back() -> None:
    key = SigningKey(ed25519.Ed25519PrivateKey.generate()).public
    assert verifying_key_from_jwk(key.jwk()).key_id == key.key_id


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        [],
        {"kty": "EC", "crv": "P-256", "x": "AA"},
        {"kty": "OKP", "crv": "Ed25519"},
        {"kty": "OKP", "crv": "Ed25519", "x": 5},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43 + "="},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 42 + "B"},
        {"kty": "OKP", "crv": "Ed25519", "x": "!" * 43},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "d": "A" * 43},
    ],
)
def test_what_is_no_public_ed25519_jwk_is_refused(jwk: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        verifying_key_from_jwk(jwk)


def test_private_key_is_not_in_its_repr() -> None:
    key = SigningKey(ed25519.Ed25519PrivateKey.generate())
    assert "private" not in repr(key)
