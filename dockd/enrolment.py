"""Enrolling a dock at its store.

The dock's key is made on the dock and never leaves it. Whom to trust is decided once, by the
fingerprint in the token that a person has carried over; from then on only what follows from that counts.
"""

import base64
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from yarl import URL

from dockd.config import DockConfig, load_dock_config, read_target
from dockd.core.errors import EnrolmentError, JournalError
from dockd.core.model import CustodyEvent
from dockd.enrolled import CERTIFICATE_NAME, KEY_NAME, EnrolledFiles, Pinned, names_a_store
from dockd.evidence.certificates import load_certificates
from dockd.evidence.custody import seal
from dockd.evidence.keys import SigningKey, VerifyingKey, load_or_create_key, parse_verifying_key
from dockd.journal import durable
from dockd.journal.journal import SqliteJournal, count_unconfirmed
from dockd.target.connection import Connection
from dockd.target.enrolment import EnrolmentClient, asking, check_certificate, signing_request

TOKEN_PREFIX = "dockd-"  # noqa: S105 (marks tokens, is none)
JOURNAL_NAME = "journal.sqlite"

_SECRET_BYTES, _FINGERPRINT_BYTES = 16, 32


@dataclass(frozen=True, slots=True)
class Token:
    """A one-time token: the secret that the store will ask for, and how the dock knows the store."""

    secret: str
    fingerprint: bytes

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Read a token as ``dockd store token`` prints it. Raises EnrolmentError."""
        try:
            raw = base64.urlsafe_b64decode(text.strip().removeprefix(TOKEN_PREFIX).encode("ascii"))
        except ValueError:
            raw = b""
        if len(raw) != _SECRET_BYTES + _FINGERPRINT_BYTES:
            raise EnrolmentError("this is not a token, or not all of it")
        secret, fingerprint = raw[:_SECRET_BYTES], raw[_SECRET_BYTES:]
        return cls(base64.urlsafe_b64encode(secret).decode(), fingerprint)


async def enrol(config_file: Path, url: str, token: Token, *, force: str | None) -> Pinned:
    """Enrol the dock of a configuration file and pin its store; return what was pinned.

    Works beside a running daemon, which must be restarted afterwards. Another store than before is
    refused while recordings are not confirmed, unless ``force`` gives the reason, which goes into the
    custody log. Raises EnrolmentError, TargetError, ConfigError, KeyFileError, JournalError, OSError.
    """
    dock = load_dock_config(config_file)
    connection = _way_to_store(config_file)
    files = EnrolledFiles.beside(config_file)
    unconfirmed = _require_leave(dock, files, token, force)
    _require_https(url)
    _require_writable(files)
    dock.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = load_or_create_key(dock.state_dir / KEY_NAME)
    async with asking(url, connection) as client:
        agreed = await _exchange(client, dock, url, token, key)
    details: dict[str, object] = {
        "store": agreed.pinned.store_id,
        "url": agreed.pinned.url,
        "receipt_key": agreed.receipt_key.key_id,
        "authority_sha256": token.fingerprint.hex(),
        "unconfirmed_elsewhere": unconfirmed,
        "forced": force,
    }
    await _note(dock, key, CustodyEvent("dock.enrolled", details=details))
    certificate = dock.state_dir / CERTIFICATE_NAME
    durable.write_file(certificate, agreed.certificate.encode(), mode=0o644)
    files.write(agreed.pinned, ca=agreed.ca, receipt_key=agreed.receipt_key.pem())
    return agreed.pinned


@dataclass(frozen=True, slots=True)
class _Agreed:
    """All that an enrolment yields."""

    pinned: Pinned
    ca: bytes
    receipt_key: VerifyingKey
    certificate: str


async def _exchange(
    client: EnrolmentClient, dock: DockConfig, url: str, token: Token, key: SigningKey
) -> _Agreed:
    ca = await client.authority()
    authority = _authority(ca, token)
    answer = await client.enrol(token.secret, dock.name, signing_request(key), ca)
    check_certificate(answer.certificate, key, authority)
    try:
        receipt_key = parse_verifying_key(answer.receipt_key.encode())
    except ValueError as error:
        raise EnrolmentError(f"the store's receipt key is {error}") from error
    origin = URL(url).origin()
    collection = origin.join(URL(answer.collection))
    if collection.origin() != origin:
        raise EnrolmentError(f"the store sends its docks elsewhere, to {collection}")
    pinned = Pinned(dock=dock.name, store_id=answer.store_id, url=str(collection))
    return _Agreed(pinned, ca, receipt_key, answer.certificate)


def _authority(pem: bytes, token: Token) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise EnrolmentError("this address has no store that enrols docks") from error
    found = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    if found != token.fingerprint:
        raise EnrolmentError(
            "this is not the store that the token is from: its authority is"
            f" {found.hex()}, and the token names {token.fingerprint.hex()}"
        )
    return certificate


def _require_https(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise EnrolmentError(f"{url!r} must be the store's whole https:// address")


def _require_writable(files: EnrolledFiles) -> None:
    """Notice before the token is used up that what it is for cannot be done."""
    place = files.directory if files.directory.exists() else files.directory.parent
    if not os.access(place, os.W_OK):
        raise EnrolmentError(f"{place} cannot be written: say this as root")


def _way_to_store(config_file: Path) -> Connection:
    """Return the proxy that ``[target]`` names. Raises EnrolmentError where it names a store itself."""
    target = read_target(config_file)
    if names_a_store(target):
        raise EnrolmentError(
            f"{config_file} names a store itself, which would stay in force: take store_id,"
            " receipt_key and confirm out of [target]"
        )
    proxy, password_file = target.get("proxy"), target.get("proxy_password_file")
    return Connection(
        proxy=proxy if isinstance(proxy, str) else None,
        proxy_password_file=config_file.resolve().parent / password_file
        if isinstance(password_file, str)
        else None,
    )


def _require_leave(dock: DockConfig, files: EnrolledFiles, token: Token, force: str | None) -> int:
    """Return how many recordings another store has not confirmed; refuse if any, unless forced."""
    pinned = files.read()
    if pinned is None:
        return 0
    authority = load_certificates(files.ca)[0].public_bytes(Encoding.DER)
    if hashlib.sha256(authority).digest() == token.fingerprint:
        return 0
    journal = dock.state_dir / JOURNAL_NAME
    try:
        count = count_unconfirmed(journal) if journal.exists() else 0
    except JournalError as error:
        if force is None:
            raise EnrolmentError(f"it is not known whether all is confirmed: {error}") from error
        return 0
    if count and force is None:
        raise EnrolmentError(
            f"{count} recordings are not confirmed by {pinned.store_id} yet; let the dock finish, or"
            " say why not with --force REASON: they are then sent to the other store"
        )
    return count


async def _note(dock: DockConfig, key: SigningKey, event: CustodyEvent) -> None:
    journal = await SqliteJournal.open(
        dock.state_dir / JOURNAL_NAME,
        seal=lambda previous, seq, event: seal(
            key, dock.name, previous, seq, datetime.now(UTC), event
        ),
        key_id=key.key_id,
    )
    try:
        await journal.add_custody(event)
    finally:
        await journal.close()
