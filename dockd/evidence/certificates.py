"""X.509 certificates (RFC 5280) in PEM files, as far as they must be sound before they are used."""

import os
import stat
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dockd.core.errors import KeyFileError

_LARGEST_FILE_BYTES = 1 << 20


def load_certificates(path: Path) -> list[x509.Certificate]:
    """Load all certificates of a file, at least one. Raises :class:`KeyFileError`. Blocking."""
    try:
        return x509.load_pem_x509_certificates(_read(path)[0])
    except ValueError as error:
        raise KeyFileError(f"{path}: not a certificate in PEM") from error


def check_identity(certificate: Path, private_key: Path) -> None:
    """Check that a key is unencrypted, closed to everyone else, and the certificate's own. Blocking.

    The first certificate of the file counts; the others are its chain. Dates are not looked at: an
    expired certificate is the store's to refuse. Raises :class:`KeyFileError`.
    """
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        own = load_certificates(certificate)[0].public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{certificate}: has a key that cannot be used") from error
    try:
        key = serialization.load_pem_private_key(read_secret(private_key), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{private_key}: not an unencrypted private key in PEM") from error
    if key.public_key().public_bytes(*form) != own:
        raise KeyFileError(f"{private_key}: not the key of the certificate in {certificate}")


def read_secret(path: Path) -> bytes:
    """Read a file that only its owner and group may read. Raises :class:`KeyFileError`. Blocking."""
    secret, mode = _read(path)
    if mode & 0o007:
        raise KeyFileError(f"{path}: open to everyone (mode {mode:04o}, must be 0640 or less)")
    return secret


def _read(path: Path) -> tuple[bytes, int]:
    """Return content and permissions."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            return file.read(_LARGEST_FILE_BYTES), mode
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
