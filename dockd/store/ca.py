"""The store's own certificate authority (X.509, RFC 5280): it vouches for the store's names and for docks.

Its keys are P-256, which every TLS library takes; docks bring their own Ed25519 keys. The
authority lives as long as the store: docks pin it at their enrolment. Nothing here knows which docks are
welcome; :mod:`dockd.store.docks` does. Everything that touches files blocks.
"""

import hashlib
import ipaddress
import os
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dockd.core.errors import KeyFileError, StoreError
from dockd.evidence.keys import VerifyingKey
from dockd.journal import durable
from dockd.store.layout import Layout

AUTHORITY_LIFE = timedelta(days=40 * 365)
SERVER_LIFE = timedelta(days=397)
DOCK_LIFE = timedelta(days=90)
CLOCK_SLACK = timedelta(days=1)
"""Certificates begin so much in the past, for clocks that are behind."""

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME: OpenSSL has it, Python's ssl module has no name for it."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority of one store."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate that docks pin."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate's DER."""
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        return hashlib.sha256(der).digest()

    def certify_dock(self, dock: str, key: VerifyingKey, now: datetime) -> x509.Certificate:
        """Return a client certificate. Its subject is the key's id; the name is there for people."""
        name = x509.UniformResourceIdentifier(f"urn:dockd:dock:{quote(dock, safe='')}")
        return self._certify(
            key.key_id, key.public, [name], ExtendedKeyUsageOID.CLIENT_AUTH, now, DOCK_LIFE
        )

    def certify_server(
        self, names: Sequence[str], key: ec.EllipticCurvePublicKey, now: datetime
    ) -> x509.Certificate:
        """Return a server certificate for host names and IP addresses."""
        shown = [_general_name(name) for name in names]
        return self._certify(
            "dockd store", key, shown, ExtendedKeyUsageOID.SERVER_AUTH, now, SERVER_LIFE
        )

    def _certify(
        self,
        subject: str,
        key: CertificatePublicKeyTypes,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        now: datetime,
        life: timedelta,
    ) -> x509.Certificate:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            _builder(subject, self.certificate.subject, key, now, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )


def make_authority(layout: Layout, store_id: str, now: datetime) -> Authority:
    """Return the store's authority, made now if there is none. Raises KeyFileError, OSError."""
    existing = load_authority(layout)
    if existing is not None:
        return existing
    key = _load_or_create_key(layout.ca_key)
    subject = _name(store_id)
    certificate = (
        _builder(store_id, subject, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(certificate, key)
    durable.write_file(layout.ca, authority.pem, mode=0o644)
    return authority


def load_authority(layout: Layout) -> Authority | None:
    """Return the store's authority, None before it was made. Raises KeyFileError."""
    if not layout.ca.exists():
        return None
    if not layout.ca_key.exists():
        raise KeyFileError(f"{layout.ca_key}: missing, and {layout.ca} is there")
    certificate = _load_certificate(layout.ca)
    key = _load_or_create_key(layout.ca_key)
    if certificate.public_key() != key.public_key():
        raise KeyFileError(f"{layout.ca_key}: not the key of {layout.ca}")
    return Authority(certificate, key)


def certify_names(
    layout: Layout, authority: Authority, names: Sequence[str], now: datetime
) -> None:
    """Write a new server certificate for these names. Raises StoreError, KeyFileError, OSError."""
    key = _load_or_create_key(layout.tls_key)
    try:
        certificate = authority.certify_server(names, key.public_key(), now)
    except ValueError as error:
        raise StoreError(f"a name cannot be certified: {error}") from error
    chain = certificate.public_bytes(serialization.Encoding.PEM) + authority.pem
    durable.write_file(layout.tls_certificate, chain, mode=0o644)


def certified_names(layout: Layout) -> tuple[str, ...]:
    """Return the names of the server certificate. Raises KeyFileError."""
    certificate = _load_certificate(layout.tls_certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(
        [*names.get_values_for_type(x509.DNSName)]
        + [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    )


def renew_server_certificate(layout: Layout, authority: Authority, now: datetime) -> bool:
    """Renew the server certificate in the last third of its life; return whether that was done."""
    until = _load_certificate(layout.tls_certificate).not_valid_after_utc
    if now < until - SERVER_LIFE / 3:
        return False
    certify_names(layout, authority, certified_names(layout), now)
    return True


def server_context(layout: Layout) -> ssl.SSLContext:
    """Return the TLS side of the store, which asks for docks' certificates but takes callers without.

    OpenSSL is told not to look at dates: a dock whose certificate has ended is to hear so in words, and
    to be able to renew it. Whoever lets a dock in looks at them. Raises KeyFileError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= _NO_CHECK_TIME
    context.load_verify_locations(layout.ca)
    load_server_certificate(context, layout)
    return context


def load_server_certificate(context: ssl.SSLContext, layout: Layout) -> None:
    """Use the server certificate on disk for new connections. Raises KeyFileError."""
    try:
        context.load_cert_chain(layout.tls_certificate, layout.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise KeyFileError(f"{layout.tls_certificate}: cannot be used: {error}") from error


def _builder(
    subject: str,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise KeyFileError(f"{path}: not a certificate in PEM") from error


def _load_or_create_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        new = ec.generate_private_key(ec.SECP256R1())
        pem = new.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        durable.write_file(path, pem, mode=0o600)
        return new
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        pem = file.read()
    if mode & 0o077:
        raise KeyFileError(f"{path}: open to others (mode {mode:04o}, must be 0600)")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path}: not an unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError(f"{path}: not an elliptic curve key")
    return key
