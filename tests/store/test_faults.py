"""The disk fails at the Nth step of an upload, for all N: what is signed is held, and it recovers."""

import errno
import os
from pathlib import Path

import pytest

from dockd.core.errors import JournalUnwritableError
from dockd.store.verify import verify
from tests.store.dock import deliver
from tests.store.steps import NthStep, interposed
from tests.store.tus import objects_in, running, sha256_hex


def _fail_with(number: int) -> NthStep:
    def fail(name: str) -> None:
        if name in ("transaction", "committed"):
            raise JournalUnwritableError(f"{name}: {os.strerror(number)}")
        raise OSError(number, os.strerror(number))

    return NthStep(fail)


def _content(number: int) -> bytes:
    return f"recording {number} ".encode() * 400


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
async def test_the_running_store_recovers_by_itself(data_dir: Path, number: int) -> None:
    """INV-1, INV-3: after each fault the same upload ends as one object with a receipt."""
    step = _fail_with(number)
    sent: dict[str, bytes] = {}
    async with running(data_dir) as tus:
        with interposed(step):
            for attempt in range(1, 500):
                content = _content(attempt)
                step.arm(attempt)
                claims = await deliver(tus, content, f"key-{attempt}")
                sent[claims.sha256] = content
                assert claims.sha256 == sha256_hex(content)
                assert objects_in(data_dir)[claims.sha256] == content
                if step.taken is None:
                    break
            else:
                raise AssertionError("the faults never came to an end")
    assert attempt > 15
    assert objects_in(data_dir) == sent
    count = verify(data_dir, _unexpected)
    assert (count.objects, count.orphan) == (len(sent), 0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
async def test_a_restart_after_a_fault_is_an_ordinary_start(data_dir: Path, number: int) -> None:
    """INV-3: whatever a fault left, the next start carries on from it."""
    step = _fail_with(number)
    for attempt in range(1, 500):
        content = _content(attempt)
        async with running(data_dir) as tus:
            url = (await tus.create(len(content), Idempotency_Key=f"key-{attempt}")).headers[
                "Location"
            ]
            with interposed(step):
                step.arm(attempt)
                await tus.patch(url, 0, content)
        verify(data_dir, _unexpected)
        async with running(data_dir) as tus:
            claims = await deliver(tus, content, f"key-{attempt}")
        assert objects_in(data_dir)[claims.sha256] == content
        # A store that is stopped just after it has signed clears away at its next start.
        async with running(data_dir):
            assert list((data_dir / "unfinished").iterdir()) == []
        if step.taken is None:
            break
    assert attempt > 8


def _unexpected(problem: object) -> None:
    raise AssertionError(problem)
