"""The store's receipt keys: the one that signs now, and how it came after those before.

A key is changed in steps, each of which a crash may cut off: the new key is written, the old key's statement
about it, and then the new key takes the old one's name. The next start, or the next attempt, goes on where
the last one stopped. The old private key is gone then; what it has signed stays valid.
"""

import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from dockd.core.errors import ReceiptInvalidError, StoreError
from dockd.evidence.keys import SigningKey, load_or_create_key, load_signing_key, public_key_path
from dockd.evidence.receipts import ReceiptVerifier
from dockd.evidence.succession import MAX_STATEMENTS, first_key, follow, name_successor
from dockd.journal import durable
from dockd.ops import events
from dockd.store.layout import Layout


def read_statements(layout: Layout) -> tuple[str, ...]:
    """Return the statements of all keys so far, the oldest first. Blocking. Raises OSError."""
    if not layout.receipt_key_statements.exists():
        return ()
    return tuple(layout.receipt_key_statements.read_text(encoding="ascii").split())


def rotate_receipt_key(layout: Layout, store_id: str, now: datetime) -> SigningKey:
    """Let a new key take over, beside a running store, and return it. Blocking.

    Raises StoreError, KeyFileError and OSError.
    """
    key = load_receipt_key(layout, store_id)
    statements = read_statements(layout)
    if len(statements) >= MAX_STATEMENTS:
        raise StoreError(
            f"the receipt key was changed {len(statements)} times already; docks follow no further"
        )
    successor = load_or_create_key(layout.next_receipt_key)
    statement = name_successor(key, store_id, successor.public, now)
    _write_statements(layout, [*statements, statement])
    _take_over(layout)
    return successor


def load_receipt_key(layout: Layout, store_id: str) -> SigningKey:
    """Return the key that signs now; finish a change that was cut off. Blocking.

    Raises StoreError, KeyFileError and OSError.
    """
    key = load_or_create_key(layout.receipt_key)
    newest = _newest_key_id(layout, store_id)
    if newest in (None, key.key_id):
        return key
    successor = load_signing_key(layout.next_receipt_key)
    if successor is None or successor.key_id != newest:
        raise StoreError(
            f"{layout.receipt_key} is {key.key_id}, and the newest receipt key is {newest}: restore it"
        )
    _take_over(layout)
    return successor


class ReceiptKeys:
    """The keys of a running store. A change by ``dockd store rotate-receipt-key`` is noticed at once."""

    def __init__(self, layout: Layout, store_id: str) -> None:
        """Load the keys. Blocking. Raises StoreError, KeyFileError and OSError."""
        self.store_id = store_id
        self._layout = layout
        self._lock = threading.Lock()
        load_receipt_key(layout, store_id)
        self._seen = _state_of(layout.receipt_key)
        self._key, self._verifier = self._load()

    def signing(self) -> SigningKey:
        """Return the key that signs now. Blocking; raises as the constructor does."""
        self._look()
        return self._key

    def verifier(self) -> ReceiptVerifier:
        """Return what verifies every receipt that this store ever gave. Blocking."""
        self._look()
        return self._verifier

    def statements(self) -> tuple[str, ...]:
        """Return how each key named its successor, the oldest first. Blocking."""
        self._look()
        return self._verifier.statements

    def _look(self) -> None:
        with self._lock:
            seen = _state_of(self._layout.receipt_key)
            if seen != self._seen:
                self._key, self._verifier = self._load()
                self._seen = seen
                events.STORE_RECEIPT_KEY.log(key=self._key.key_id)

    def _load(self) -> tuple[SigningKey, ReceiptVerifier]:
        key = load_signing_key(self._layout.receipt_key)
        if key is None:
            raise StoreError(f"{self._layout.receipt_key} is missing; restore it from the backup")
        statements = read_statements(self._layout)
        first = first_key(statements[0]) if statements else key.public
        return key, ReceiptVerifier(self.store_id, first, statements=statements)


def _state_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _newest_key_id(layout: Layout, store_id: str) -> str | None:
    statements = read_statements(layout)
    if not statements:
        return None
    try:
        return follow(statements, store_id, first_key(statements[0]))[-1].key_id
    except (ReceiptInvalidError, ValueError) as error:
        raise StoreError(f"{layout.receipt_key_statements}: {error}") from error


def _write_statements(layout: Layout, statements: Sequence[str]) -> None:
    text = "".join(f"{statement}\n" for statement in statements)
    durable.write_file(layout.receipt_key_statements, text.encode(), mode=0o644)


def _take_over(layout: Layout) -> None:
    durable.publish(layout.next_receipt_key, layout.receipt_key)
    public_key_path(layout.next_receipt_key).unlink(missing_ok=True)
    load_or_create_key(layout.receipt_key)  # writes the public half
