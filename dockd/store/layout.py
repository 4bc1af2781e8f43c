"""What is where in the store's directory, and the store's identity."""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from dockd.core.errors import StoreError
from dockd.evidence.keys import SigningKey, load_or_create_key, public_key_path
from dockd.journal import durable


@dataclass(frozen=True, slots=True)
class Layout:
    """The names inside the store's directory; docs/store.md explains them."""

    root: Path

    @property
    def identity(self) -> Path:
        """Who the store is, as JSON."""
        return self.root / "store.json"

    @property
    def receipt_key(self) -> Path:
        """The private key that signs receipts."""
        return self.root / "receipt-key.pem"

    @property
    def receipt_public_key(self) -> Path:
        """The public key that docks pin."""
        return public_key_path(self.receipt_key)

    @property
    def next_receipt_key(self) -> Path:
        """The private key that is about to take over, while it does."""
        return self.root / "receipt-key-next.pem"

    @property
    def receipt_key_statements(self) -> Path:
        """How each receipt key named its successor, one statement a line."""
        return self.root / "receipt-key-statements.txt"

    @property
    def ca_key(self) -> Path:
        """The private key of the store's certificate authority."""
        return self.root / "ca-key.pem"

    @property
    def ca(self) -> Path:
        """The certificate of that authority, which docks pin."""
        return self.root / "ca.pem"

    @property
    def tls_key(self) -> Path:
        """The private key with which the store proves its name to docks."""
        return self.root / "tls-key.pem"

    @property
    def tls_certificate(self) -> Path:
        """The certificate of the store's names, followed by that of the authority."""
        return self.root / "tls.pem"

    @property
    def docks(self) -> Path:
        """The database of enrolled docks and tokens."""
        return self.root / "docks.db"

    @property
    def catalogue(self) -> Path:
        """The database of uploads and receipts."""
        return self.root / "catalogue.db"

    @property
    def unfinished(self) -> Path:
        """Bytes of uploads that are not finished or not checked."""
        return self.root / "unfinished"

    @property
    def objects(self) -> Path:
        """The recordings that are held, by digest."""
        return self.root / "objects"

    @property
    def quarantine(self) -> Path:
        """Bytes that could not be accepted, each with a note that says why."""
        return self.root / "quarantine"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signs receipts: the id that is their issuer, and the key."""

    store_id: str
    key: SigningKey


def load_or_create_identity(layout: Layout) -> Identity:
    """Return the store's identity, made at the first start. Blocking.

    A store that has a catalogue already must have its identity too: a new one would disown every
    receipt given so far. Raises StoreError, KeyFileError and OSError.
    """
    for path in (layout.identity, layout.receipt_key):
        if layout.catalogue.exists() and not path.exists():
            raise StoreError(
                f"{path} is missing; restore it from the backup, the catalogue needs it"
            )
    if not layout.identity.exists():
        text = json.dumps({"store_id": f"store-{uuid.uuid4()}"}) + "\n"
        durable.write_file(layout.identity, text.encode(), mode=0o644)
    return Identity(read_store_id(layout), load_or_create_key(layout.receipt_key))


def read_store_id(layout: Layout) -> str:
    """Return the id of the store in this directory. Blocking. Raises StoreError."""
    try:
        store_id = json.loads(layout.identity.read_bytes())["store_id"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{layout.identity} does not name a store: {error}") from error
    if not isinstance(store_id, str) or not store_id:
        raise StoreError(f"{layout.identity} does not name a store")
    return store_id
