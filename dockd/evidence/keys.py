"""Ed25519 keys (RFC 8032), their files and their names.

A key is named by its JWK thumbprint (RFC 7638, RFC 8037 section 2), so that everyone who holds the
public key computes the same name.
"""

import base64
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dockd.core.errors import KeyFileError
from dockd.journal import durable

_LARGEST_KEY_FILE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key. ``key_id`` is its thumbprint, base64url."""

    public: Ed25519PublicKey
    key_id: str = field(init=False)

    def __post_init__(self) -> None:
        """Compute the thumbprint (RFC 7638 section 3: SHA-256 of the canonical required members)."""
        digest = hashlib.sha256(rfc8785.dumps(self.jwk())).digest()
        object.__setattr__(self, "key_id", _base64url(digest))

    def jwk(self) -> dict[str, str]:
        """Return the key as a JWK with its required members only (RFC 8037 section 2)."""
        return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(self.public.public_bytes_raw())}

    def pem(self) -> bytes:
        """Return the key as a SubjectPublicKeyInfo in PEM (RFC 8410)."""
        return self.public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether this key's owner signed exactly these bytes."""
        try:
            self.public.verify(signature, data)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key. ``public`` is its other half, ``key_id`` the name of both."""

    private: Ed25519PrivateKey = field(repr=False)
    public: VerifyingKey = field(init=False)

    def __post_init__(self) -> None:
        """Derive the public key once."""
        object.__setattr__(self, "public", VerifyingKey(self.private.public_key()))

    @property
    def key_id(self) -> str:
        """The thumbprint of the public key."""
        return self.public.key_id

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature of these bytes."""
        return self.private.sign(data)


def load_or_create_key(path: Path) -> SigningKey:
    """Load the key in ``path``, or make a new one there (PKCS#8 PEM, mode 0600) if there is no file.

    The public key is kept beside it, for others to copy (:func:`public_key_path`). Blocking.
    Raises :class:`KeyFileError` for a file that is unreadable, not an Ed25519 key, or open to
    others; a damaged key is never replaced, because what it signed could no longer be checked.
    """
    try:
        key = _read_signing_key(path)
        if key is None:
            key = SigningKey(Ed25519PrivateKey.generate())
            durable.write_file(path, _private_pem(key), mode=0o600)
        _keep_public_key(public_key_path(path), key.public)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    return key


def load_signing_key(path: Path) -> SigningKey | None:
    """Load the key in ``path``, None if there is no file; raises as :func:`load_or_create_key`."""
    try:
        return _read_signing_key(path)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error


def load_verifying_key(path: Path) -> VerifyingKey:
    """Load a public key (SubjectPublicKeyInfo PEM). Raises :class:`KeyFileError`. Blocking."""
    try:
        with path.open("rb") as file:
            pem = file.read(_LARGEST_KEY_FILE_BYTES)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    try:
        return parse_verifying_key(pem)
    except ValueError as error:
        raise KeyFileError(f"{path}: {error}") from error


def parse_verifying_key(pem: bytes) -> VerifyingKey:
    """Read a public key (SubjectPublicKeyInfo PEM). Raises ValueError."""
    try:
        public = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise ValueError("not a public key in PEM") from error
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 (a fault of the data)
    return VerifyingKey(public)


def verifying_key_from_jwk(jwk: object) -> VerifyingKey:
    """Read a public Ed25519 JWK (RFC 8037). Raises ValueError when it is anything else."""
    if not isinstance(jwk, dict) or (jwk.get("kty"), jwk.get("crv")) != ("OKP", "Ed25519"):
        raise ValueError("not an Ed25519 JWK")
    if "d" in jwk or not isinstance(jwk.get("x"), str):
        raise ValueError("not a public Ed25519 JWK")
    x = cast("str", jwk["x"])
    raw = base64.b64decode(x + "=" * (-len(x) % 4), altchars=b"-_", validate=True)
    key = VerifyingKey(Ed25519PublicKey.from_public_bytes(raw))
    if key.jwk()["x"] != x:
        raise ValueError("not canonical base64url")
    return key


def public_key_path(path: Path) -> Path:
    """Return where the public half of the key in ``path`` is kept: ``x.pem`` → ``x.pub.pem``."""
    return path.with_suffix(".pub.pem")


def _read_signing_key(path: Path) -> SigningKey | None:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(_LARGEST_KEY_FILE_BYTES)
    except FileNotFoundError:
        return None
    if stat.S_IMODE(mode) & 0o077:
        raise KeyFileError(f"{path}: open to others (mode {stat.S_IMODE(mode):04o}, must be 0600)")
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path}: not an unencrypted private key in PEM") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: not an Ed25519 key")
    return SigningKey(private)


def _private_pem(key: SigningKey) -> bytes:
    return key.private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _keep_public_key(path: Path, key: VerifyingKey) -> None:
    if not path.exists() or path.read_bytes() != key.pem():
        durable.write_file(path, key.pem(), mode=0o644)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
