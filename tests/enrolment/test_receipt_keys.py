"""Changing the store's receipt key, with a stop at every step, and beside a running store."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockd.core.errors import ReceiptInvalidError, StoreError
from dockd.evidence.keys import load_verifying_key, parse_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.evidence.succession import MAX_STATEMENTS
from dockd.journal import durable
from dockd.store.layout import Layout, load_or_create_identity
from dockd.store.receipt_keys import (
    ReceiptKeys,
    load_receipt_key,
    read_statements,
    rotate_receipt_key,
)
from tests.store.tus import running

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class StoppedHereError(Exception):
    """Stands for SIGKILL."""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    load_or_create_identity(made)
    return made


def store_id(layout: Layout) -> str:
    return load_or_create_identity(layout).store_id


def stops(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Stop before the nth durable step, for each n, until none is left."""
    write, publish = durable.write_file, durable.publish
    for at in range(1, 10):
        steps: list[int] = []

        def step(at: int = at, steps: list[int] = steps) -> None:
            steps.append(1)
            if len(steps) == at:
                raise StoppedHereError

        def stopping_write(path: Path, data: bytes, mode: int = 0o600, step=step) -> None:  # type: ignore[no-untyped-def]
            step()
            write(path, data, mode)

        def stopping_publish(one: Path, other: Path, step=step) -> None:  # type: ignore[no-untyped-def]
            step()
            publish(one, other)

        with monkeypatch.context() as patch:
            patch.setattr(durable, "write_file", stopping_write)
            patch.setattr(durable, "publish", stopping_publish)
            yield steps
        if len(steps) < at:
            return


def test_a_change_that_is_cut_off_anywhere_is_finished_or_never_was(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-3: at each moment there is one key that signs, and the first one vouches for it."""
    store = store_id(layout)
    first = load_verifying_key(layout.receipt_public_key)
    stopped = 0
    for _ in stops(monkeypatch):
        try:
            rotate_receipt_key(layout, store, NOW)
        except StoppedHereError:
            stopped += 1
        monkeypatch.undo()
        key = load_receipt_key(layout, store)
        verifier = ReceiptVerifier(store, first, statements=read_statements(layout))
        assert verifier.newest == key.public
        assert load_verifying_key(layout.receipt_public_key) == key.public
        assert ReceiptKeys(layout, store).signing().key_id == key.key_id
    assert stopped >= 4
    assert verifier.newest != first


def test_the_number_of_changes_is_bounded_by_what_docks_follow(layout: Layout) -> None:
    store = store_id(layout)
    for _ in range(MAX_STATEMENTS):
        rotate_receipt_key(layout, store, NOW)
    with pytest.raises(StoreError, match="docks follow no further"):
        rotate_receipt_key(layout, store, NOW)


def test_a_key_from_an_old_backup_is_noticed(layout: Layout) -> None:
    """The store must not sign with a key that has handed over already."""
    store, old = store_id(layout), layout.receipt_key.read_bytes()
    rotate_receipt_key(layout, store, NOW)
    layout.receipt_key.write_bytes(old)
    with pytest.raises(StoreError, match="the newest receipt key is"):
        load_receipt_key(layout, store)


def test_damaged_statements_are_an_error(layout: Layout) -> None:
    rotate_receipt_key(layout, store_id(layout), NOW)
    text = layout.receipt_key_statements.read_text()
    layout.receipt_key_statements.write_text(text[:-10] + "AAAAAAAAA\n")
    with pytest.raises((StoreError, ReceiptInvalidError)):
        ReceiptKeys(layout, store_id(layout))


async def test_a_running_store_signs_with_the_new_key_at_once(tmp_path: Path) -> None:
    data_dir = tmp_path / "store"
    async with running(data_dir) as tus:
        pinned = tus.verifier
        old = (await tus.send(b"old")).receipt
        layout = Layout(data_dir)
        rotate_receipt_key(layout, tus.store.store_id, NOW)
        new = (await tus.send(b"new")).receipt
        answer = await tus.ask("GET", f"{tus.store.url}receipt-keys", {})
    assert pinned.verify(old).sha256
    with pytest.raises(ReceiptInvalidError):
        pinned.verify(new)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert pinned.learn(read_statements(layout))
    assert pinned.verify(new).sha256
    assert parse_verifying_key(layout.receipt_public_key.read_bytes()) == pinned.newest
