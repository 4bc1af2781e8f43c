"""Each call on a camera fails in turn, in a visit of a real folder: nothing is lost, and it recovers."""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from dockd.cameras.directory import ListingLimits
from dockd.cameras.folder import FolderSource
from dockd.cameras.wiping import WipeAuthority
from dockd.config import AttentionConfig
from dockd.core.lifecycle import BayState
from tests.faults.site import footage
from tests.faults.triggers import CALLS, FailingCalls
from tests.simulated.clock import run_virtual
from tests.simulated.dock import DOCK, SimulatedDock

SIZES_BYTES = (10, 9_000, 0)


class UnwatchedFolders(FolderSource):
    """Without inotify, whose threads know nothing of virtual time; the dock looks every few seconds."""

    async def hints(self) -> AsyncGenerator[None, None]:
        await asyncio.Event().wait()
        yield


async def visit(folder: Path, calls: FailingCalls) -> None:
    """Go through a visit while calls fail; check that all of it ends well."""
    dock = SimulatedDock()
    camera = folder / "cam-1"
    docked = footage(str(folder), SIZES_BYTES)
    for path, data in docked.items():
        file = camera / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    dock.source = UnwatchedFolders(  # type: ignore[assignment]
        {"1": folder},
        WipeAuthority(DOCK, dock.key.public, dock.store.verifier),
        dock.clock,
        settle_s=0,
        limits=ListingLimits(),
    )
    retry_soon = AttentionConfig(retry_s=60)
    dock.config = dock.config.model_copy(update={"attention": retry_soon})
    async with dock:
        with calls.in_place():
            await dock.until_state("1", BayState.READY, within_s=40_000, every_s=5)
    assert {spec.path: data for spec, data in dock.store.held()} == docked
    assert len(dock.store.held()) == len(docked)
    assert [path for path in camera.rglob("*") if path.is_file()] == []
    assert open_in(folder) == [], calls.failed


def open_in(folder: Path) -> list[str]:
    """Return what of a folder is still open."""
    open_files = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of this listing itself
            open_files.append(str(link.readlink()))
    return [name for name in open_files if name.startswith(str(folder))]


@pytest.mark.parametrize("times", [1, 4, 25])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV], ids=errno.errorcode.get)
def test_each_call_fails_in_turn(fast_path: Path, number: int, times: int) -> None:
    """INV-1, INV-2, INV-3: whatever fails, the visit ends by itself, and every byte is at the store."""
    first, failed = 1, True
    names = set()
    while failed:
        folder = fast_path / str(first)
        folder.mkdir()
        calls = FailingCalls(folder, number, first=first, times=times)
        run_virtual(visit(folder, calls))
        failed = bool(calls.failed)
        names.update(calls.failed)
        first += times
    assert names == set(CALLS) - {"chmod", "mkdir", "rename"} or times > 1
