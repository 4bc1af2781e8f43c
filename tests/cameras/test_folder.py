"""Bays that are folders, watched by the real inotify."""

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from watchdog.events import FileSystemEvent

from dockd.cameras import folder, watching
from dockd.cameras.directory import ListingLimits
from dockd.cameras.folder import FolderSource
from dockd.core.errors import CameraGoneError, CameraUnreadableError
from dockd.core.model import Presence
from tests.simulated.proofs import ManualClock, Proofs

PATIENCE_S = 5.0
"""How long a hint may take on a busy machine; none is waited for longer than it takes."""


class Folders:
    """Two bays."""

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock()
        self.one, self.two = root / "1", root / "2"
        self.one.mkdir()
        self.two.mkdir()
        self.source = FolderSource(
            {"1": self.one, "2": self.two},
            Proofs().authority,
            self.clock,
            settle_s=2,
            limits=ListingLimits(),
        )

    def cameras(self, bay: str = "1") -> list[str]:
        return [presence.camera.camera_id for presence in self.presences(bay)]

    def presences(self, bay: str = "1") -> list[Presence]:
        return list(self.source.enumerate_cameras()[bay])

    def unsettled(self) -> frozenset[bytes]:
        volume = self.source.open_camera(self.presences()[0])
        try:
            return volume.list_files().unsettled
        finally:
            volume.close()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_directories_are_cameras(folders: Folders) -> None:
    (folders.one / "BWC-7").mkdir()
    (folders.one / "BWC-8").mkdir()
    (presence, other) = folders.presences("1")
    assert (presence.bay, presence.camera.camera_id) == ("1", "BWC-7")
    assert presence.where == f"{folders.one}/BWC-7"
    assert other.camera.camera_id == "BWC-8"
    assert folders.presences("2") == []
    (folders.one / "BWC-7").rmdir()
    assert folders.cameras() == ["BWC-8"]


@pytest.mark.parametrize(
    ("name", "camera_id"),
    [
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"\\xff", "\\\\xff"),
        (b"new\nline", "new\\nline"),
        ("Müller".encode(), "Müller"),
        (b"c" * 255, "c" * 255),
    ],
)
def test_cameras_of_any_name(folders: Folders, name: bytes, camera_id: str) -> None:
    (folders.one / "another").mkdir()
    (folders.one / os.fsdecode(name)).mkdir()
    (folders.one / os.fsdecode(name) / "clip").write_bytes(b"x")
    found = {presence.camera.camera_id: presence for presence in folders.presences()}
    volume = folders.source.open_camera(found[camera_id])
    assert [file.path for file in volume.list_files().files] == [b"clip"]
    volume.close()


def test_what_is_no_camera_is_told_once(folders: Folders) -> None:
    """INV-2."""
    (folders.one / "stray.mp4").touch()
    (folders.one / ".hidden").mkdir()
    (folders.one / "link").symlink_to(folders.two)
    with capture_logs() as logs:
        assert folders.cameras() == []
        assert folders.cameras() == []
        (folders.one / "stray.mp4").unlink()
        folders.cameras()
        (folders.one / "stray.mp4").touch()
        folders.cameras()
    assert sorted((line["event"], line["bay"], line["name"]) for line in logs) == [
        ("bay.entry_ignored", "1", ".hidden"),
        ("bay.entry_ignored", "1", "link"),
        ("bay.entry_ignored", "1", "stray.mp4"),
        ("bay.entry_ignored", "1", "stray.mp4"),
    ]
    assert all(line["reason"] for line in logs)


def test_a_missing_folder_is_an_empty_bay_and_comes_back(folders: Folders) -> None:
    """INV-8: the other bay does not notice."""
    (folders.two / "BWC-8").mkdir()
    folders.one.rmdir()
    with capture_logs() as logs:
        for _ in range(3):
            assert (folders.cameras("1"), folders.cameras("2")) == ([], ["BWC-8"])
        (folders.one / "BWC-7").mkdir(parents=True)
        for _ in range(3):
            assert folders.cameras("1") == ["BWC-7"]
    assert [(line["event"], line["bay"]) for line in logs] == [
        ("bay.folder_missing", "1"),
        ("bay.folder_back", "1"),
    ]


def test_a_camera_that_left_cannot_be_opened(folders: Folders) -> None:
    (folders.one / "BWC-7").mkdir()
    (presence,) = folders.presences()
    (folders.one / "BWC-7").rmdir()
    with pytest.raises(CameraGoneError):
        folders.source.open_camera(presence)
    (folders.one / "BWC-7").symlink_to(folders.two)
    with pytest.raises(CameraUnreadableError):
        folders.source.open_camera(presence)
    (folders.one / "BWC-7").unlink()
    folders.one.rmdir()
    with pytest.raises(CameraGoneError):
        folders.source.open_camera(presence)


def test_fresh_files_are_unsettled_until_they_hold_still(folders: Folders) -> None:
    (folders.one / "BWC-7").mkdir()
    fresh = folders.one / "BWC-7" / "clip"
    fresh.touch()
    now_s = folders.clock.now().timestamp()
    os.utime(fresh, (now_s, now_s))
    assert folders.unsettled() == {b"clip"}
    folders.clock.pass_time(2)
    assert folders.unsettled() == frozenset()


# Hints


class Listener:
    """Takes hints in the background, and notes what the watcher saw."""

    def __init__(self, source: FolderSource) -> None:
        self.count = 0
        self.seen: list[FileSystemEvent] = []
        self._more = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._note = source._note
        source._note = self._see  # type: ignore[method-assign]
        self._hints = source.hints()
        self._task = asyncio.create_task(self._listen())

    def _see(self, event: FileSystemEvent) -> None:
        self._note(event)
        self.seen.append(event)
        self._loop.call_soon_threadsafe(self._more.set)

    async def _listen(self) -> None:
        async for _ in self._hints:
            self.count += 1
            self._more.set()

    async def after(self, act: Callable[[], object]) -> None:
        """Do something, and wait for a hint that comes after it."""
        before = self.count
        act()
        await self.until(lambda: self.count > before)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true that hints or events make true."""
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                await self._more.wait()
                self._more.clear()

    async def until_watched(self, folder: Path) -> None:
        """Wait until what happens in a folder is seen again."""
        number = 0
        while not any(str(event.src_path).startswith(f"{folder}/") for event in self.seen):
            number += 1
            await self.after((folder / f"BWC-{number}").mkdir)

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._hints.aclose()


Listen = Callable[[], Awaitable[Listener]]


@pytest.fixture
async def listen(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listen]:
    """Start listening; returns once the folders are watched."""
    monkeypatch.setattr(folder, "POLL_S", 0.02)
    monkeypatch.setattr(folder, "REFRESH_S", 0.05)
    monkeypatch.setattr(folder, "HINT_GAP_S", 0.001)
    listeners: list[Listener] = []

    async def start() -> Listener:
        listeners.append(Listener(folders.source))
        await listeners[-1].until(lambda: listeners[-1].count > 0)
        return listeners[-1]

    before = set(threading.enumerate())
    yield start
    for listener in listeners:
        await listener.close()
    left = {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}
    assert left <= before


async def test_plugging_and_pulling_give_hints(folders: Folders, listen: Listen) -> None:
    listener = await listen()
    await listener.after((folders.one / "BWC-7").mkdir)
    assert folders.cameras() == ["BWC-7"]
    await listener.after((folders.one / "BWC-7").rmdir)
    assert folders.cameras() == []


async def test_a_file_counts_when_its_writer_has_closed_it(
    folders: Folders, listen: Listen
) -> None:
    (folders.one / "BWC-7").mkdir()
    listener = await listen()
    clip = folders.one / "BWC-7" / "clip"
    now_s = folders.clock.now().timestamp()

    writer = clip.open("wb")
    writer.write(b"x" * 100)
    writer.flush()
    os.utime(clip, (now_s, now_s))
    assert folders.unsettled() == {b"clip"}
    writer.close()
    await listener.until(lambda: folders.unsettled() == frozenset())

    with clip.open("ab") as again:
        again.write(b"y")
        again.flush()
        await listener.until(lambda: folders.unsettled() == {b"clip"})
    await listener.until(lambda: folders.unsettled() == frozenset())


async def test_a_folder_that_vanishes_is_watched_again_when_it_is_back(
    folders: Folders, listen: Listen
) -> None:
    listener = await listen()
    await listener.after(folders.one.rmdir)
    await listener.after(folders.one.mkdir)
    await listener.until_watched(folders.one)
    assert "BWC-1" in folders.cameras()


async def test_a_folder_that_is_replaced_is_watched_anew(folders: Folders, listen: Listen) -> None:
    listener = await listen()

    def replace() -> None:
        folders.one.rename(folders.one.with_name("old"))
        folders.one.mkdir()

    await listener.after(replace)
    await listener.until_watched(folders.one)
    assert "BWC-1" in folders.cameras()


@pytest.mark.parametrize("where", ["instance", "watch"])
async def test_where_nothing_can_be_watched_it_is_polled(
    folders: Folders, listen: Listen, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The limits of inotify are the whole machine's; someone else may have used them up."""

    class Refused:
        def __init__(self) -> None:
            if where == "instance":
                raise OSError(errno.EMFILE, "inotify instance limit reached")

        def start(self) -> None: ...
        def stop(self) -> None: ...
        def join(self) -> None: ...
        def schedule(self, *_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(watching, "InotifyObserver", Refused)
        listener = await listen()
        for _ in range(5):
            await listener.after(lambda: None)
    told = [line for line in logs if line["event"] == "bay.folder_unwatched"]
    assert [line["folder"] for line in told] == [str(folders.one), str(folders.two)]
    assert "limit reached" in told[0]["reason"]


async def test_our_own_reading_gives_no_hint(folders: Folders, listen: Listen) -> None:
    (folders.one / "BWC-7").mkdir()
    (folders.one / "BWC-7" / "clip").write_bytes(b"x")
    listener = await listen()
    volume = folders.source.open_camera(folders.presences()[0])
    volume.list_files()
    file = volume.open_file(b"clip")
    file.read(10)
    file.close()
    volume.close()
    (folders.one / "BWC-7" / "marker").mkdir()
    await listener.until(lambda: any("marker" in str(event.src_path) for event in listener.seen))
    inside = [event.src_path for event in listener.seen if "BWC-7" in str(event.src_path)]
    assert set(inside) == {f"{folders.one}/BWC-7/marker"}
