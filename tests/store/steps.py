"""Stands in the way of a store's Nth durable step: every call that changes the disk is one.

The functions of ``os`` are wrapped, because everything that writes (the store itself,
journal.durable, pathlib) goes through them, and so are the transactions of the database, before they
begin and after they are committed.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from dockd.journal.database import Database

CALLS = (
    "chmod",
    "copy_file_range",
    "fdatasync",
    "fsync",
    "ftruncate",
    "link",
    "mkdir",
    "pwritev",
    "readv",
    "rename",
    "replace",
    "unlink",
)


@contextlib.contextmanager
def interposed(before_step: Callable[[str], None]) -> Iterator[None]:
    """Call ``before_step`` with the name of each durable step just before it is taken."""
    originals = {name: getattr(os, name) for name in CALLS}
    transaction = Database._transaction

    def wrap(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before_step(name)
            return originals[name](*args, **kwargs)

        return call

    def commit(database: Database, writes: Any) -> Any:
        before_step("transaction")
        settled = transaction(database, writes)
        before_step("committed")
        return settled

    for name in CALLS:
        setattr(os, name, wrap(name))
    setattr(Database, "_transaction", commit)  # noqa: B010 (mypy knows it as a method)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
        setattr(Database, "_transaction", transaction)  # noqa: B010 (as above)


class NthStep:
    """Does something at the Nth step from now, once."""

    def __init__(self, action: Callable[[str], None]) -> None:
        self._action = action
        self._left = 0
        self._lock = threading.Lock()
        self.taken: str | None = None

    def arm(self, number: int) -> None:
        self._left, self.taken = number, None

    def __call__(self, name: str) -> None:
        with self._lock:
            self._left -= 1
            if self._left != 0:
                return
            self.taken = name
        self._action(name)
