"""The real store process is killed at its Nth durable step, for all N, and started again."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from dockd.core.errors import JournalError, StoreError
from dockd.store.serve import Store
from dockd.store.verify import verify
from tests.store.dock import StoreGoneError, deliver
from tests.store.tus import Tus, objects_in, sha256_hex

CONTENT = b"a recording that must not be lost " * 300


class Killable:
    """Store processes to order; see tests/store/killable.py."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def start(self, data_dir: Path, step: int = 0) -> Store | None:
        """Start a store that dies at its Nth step; None when it died before it listened."""
        started = self._order({"data": str(data_dir), "step": step})
        if started is None:
            return None
        return Store(started["url"], started["store"], Path(started["receipt_key"]))

    def stop(self) -> int:
        """End the store if it lives, and return its exit code."""
        return int(self._order(None))

    def _order(self, order: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@contextmanager
def _killable() -> Iterator[Killable]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.store.killable"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Killable(process)


async def test_killed_at_every_step_of_an_upload(tmp_path: Path) -> None:
    """INV-1, INV-3: one object, whole, and a receipt that verifies, wherever the store was killed."""
    with _killable() as killable:
        for step in range(1, 300):
            data_dir = tmp_path / str(step)
            await _deliver(killable, data_dir, step)
            killed = killable.stop() == -signal.SIGKILL
            with contextlib.suppress(StoreError, JournalError):  # before it had a catalogue
                verify(data_dir, _unexpected)
            await _deliver(killable, data_dir)
            assert killable.stop() == 0
            _check(data_dir)
            if not killed:
                break
    assert not killed
    assert step > 30


async def _deliver(killable: Killable, data_dir: Path, step: int = 0) -> None:
    """Upload to a store that dies at this step, as far as that goes."""
    store = killable.start(data_dir, step)
    if store is None:
        assert step != 0
        return
    async with aiohttp.ClientSession() as session:
        try:
            claims = await deliver(Tus(store, session), CONTENT, "key")
        except StoreGoneError:
            assert step != 0
        else:
            assert claims.sha256 == sha256_hex(CONTENT)
            assert objects_in(data_dir) == {claims.sha256: CONTENT}


def _check(data_dir: Path) -> None:
    assert objects_in(data_dir) == {sha256_hex(CONTENT): CONTENT}
    count = verify(data_dir, _unexpected)
    assert (count.uploads, count.ok, count.unfinished, count.quarantined) == (1, 1, 0, 0)
    assert list((data_dir / "unfinished").iterdir()) == []


def _unexpected(problem: object) -> None:
    # An object that was kept, but not yet signed for when the store was killed, is no fault.
    assert getattr(problem, "kind", "") == "orphan"
