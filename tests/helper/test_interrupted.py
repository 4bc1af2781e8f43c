"""A wipe that is cut short anywhere is finished, or proved anew, at the next docking. Guards INV-3.

The helper is killed with SIGKILL in a process of its own, at each of the steps that change anything.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dockd.cameras import wiping
from dockd.cameras.footage import FootageVolume
from dockd.cameras.helper_client import HelperClient
from dockd.core.errors import CameraGoneError, DeviceRefusedError, HelperUnavailableError
from dockd.core.interfaces import ShouldStop
from dockd.core.model import Camera, IdentifiedBy, WipeReport
from dockd.helper import erase, keeping
from dockd.helper.actions import Actions, Asked
from dockd.helper.block import DirectDisk
from dockd.helper.ledger import Ledger
from tests.helper import loops
from tests.helper.conftest import BAY, PRESENCE, Rig

Serve = Callable[[Any], HelperClient]


def never() -> bool:
    return False


def wipe(rig: Rig, should_stop: ShouldStop = never, actions: Actions | None = None) -> Any:
    request = rig.request()
    asked = Asked(
        BAY,
        loops.CAMERA,
        request.visit_id,
        request.manifest,
        request.manifest_receipt,
        request.hold_until,
    )
    return (actions or rig.actions()).wipe(asked, should_stop)


def open_and_list(rig: Rig) -> set[bytes]:
    """What the next visit does first: open the camera, finishing whatever there is to finish."""
    fd = rig.actions().open(BAY, loops.CAMERA, never)
    volume = FootageVolume(fd, erase.LIMITS, "camera", loops.profile())
    with contextlib.closing(volume):
        return {file.path for file in volume.list_files().files}


def require_empty_camera(rig: Rig) -> None:
    assert rig.camera.files() == loops.SETTINGS
    assert rig.camera.directories() == set(loops.DIRECTORIES)
    assert list(rig.ledger.entries()) == []
    with pytest.raises(PermissionError):
        loops.write_raw(rig.camera.node)


def require_one_report(rig: Rig, *, resumed: bool) -> None:
    """The daemon hears of one verified wipe, in the visit of its permit, until it acknowledges (INV-4)."""
    actions = rig.actions()
    (ended,) = actions.ended_wipes()
    assert (ended.visit_id, ended.camera_id) == (rig.request().visit_id, loops.CAMERA)
    assert (ended.report.method, ended.report.verified) == (rig.method, True)
    assert ended.report.resumed is resumed
    open_and_list(rig)
    assert list(actions.ended_wipes()) == [ended], "it is offered until it is acknowledged"
    actions.acknowledge("another visit")
    assert list(actions.ended_wipes()) == [ended]
    actions.acknowledge(ended.visit_id)
    assert list(actions.ended_wipes()) == []


def killed_in(rig: Rig, owner: Any, name: str, call: int, *, after: bool) -> bool:
    """Wipe in a process that is killed around the Nth call of a function; False: it got through."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the wipe itself failed"
        return os.WIFSIGNALED(status)
    try:
        real, calls = getattr(owner, name), 0

        def counted(*arguments: Any, **keys: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **keys)
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, counted)
        os._exit(0 if wipe(rig).verified else 1)
    finally:
        os._exit(2)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(1, len(loops.CONTENTS) + 1))
def test_killed_while_deleting_the_rest_is_whole_and_is_proved_anew(
    rig: Rig, call: int, after: bool
) -> None:
    assert killed_in(rig, os, "unlink", call, after=after)
    assert loops.is_free(rig.camera.node), "the mount died with the helper"
    left = rig.camera.files()
    for name in loops.SETTINGS:
        del left[name]
    assert left == {name: loops.CONTENTS[name] for name in left}
    assert open_and_list(rig) == set(left)
    with pytest.raises(PermissionError):
        loops.write_raw(rig.camera.node)
    report = wipe(rig)
    assert report.verified
    assert report.files_erased == len(left)
    require_empty_camera(rig)
    require_one_report(rig, resumed=False)


WRITES = {"format": 5, "overwrite": 13}
"""How often the medium of these tests is written to: the mark, the blocks, the new file system."""

MOMENTS = [
    *(
        (("format"), call, after)
        for call in range(1, WRITES["format"] + 1)
        for after in (False, True)
    ),
    ("overwrite", 1, True),
    ("overwrite", 6, False),
    ("overwrite", WRITES["overwrite"] - 1, True),
    ("overwrite", WRITES["overwrite"], False),
]


@pytest.mark.parametrize("method", WRITES)
def test_those_are_all_writes(rig: Rig, method: str) -> None:
    rig.method = method
    assert not killed_in(rig, DirectDisk, "write", WRITES[method] + 1, after=False)


@pytest.mark.parametrize(("method", "call", "after"), MOMENTS)
def test_killed_at_any_write_it_is_finished_at_the_next_docking(
    rig: Rig, method: str, call: int, after: bool
) -> None:
    """Until the mark is on the medium, all footage is whole; from then on nothing asks for proof."""
    rig.method = method
    assert killed_in(rig, DirectDisk, "write", call, after=after)
    assert loops.is_free(rig.camera.node)
    begun = call > 1 or after
    actions = rig.actions()
    marked = actions.unfinished(BAY)
    if not begun:
        assert marked is None
        assert open_and_list(rig) == set(loops.CONTENTS)
        assert wipe(rig).verified
    else:
        assert list(actions.ended_wipes()) == []
        assert open_and_list(rig) == set()
    require_empty_camera(rig)
    require_one_report(rig, resumed=begun)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name", "whole"),
    [
        (Ledger, "add", True),
        (keeping, "put_back", False),
        (keeping, "_write", False),
        (Ledger, "keep", False),
        (Ledger, "remove", False),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_killed_between_the_steps_it_is_finished_at_the_next_docking(
    rig: Rig, owner: Any, name: str, whole: bool, after: bool
) -> None:
    rig.method = "format"
    assert killed_in(rig, owner, name, 1, after=after)
    assert rig.actions().unfinished(BAY) is None, "it has a whole file system"
    assert open_and_list(rig) == (set(loops.CONTENTS) if whole else set())
    assert list(rig.ledger.entries()) == []
    if not whole:
        require_empty_camera(rig)
        assert len(list(rig.actions().ended_wipes())) == 1
        kept_before = owner is Ledger and (name == "remove" or after)
        require_one_report(rig, resumed=not kept_before)


def half_erased(rig: Rig) -> None:
    rig.method = "overwrite"
    assert killed_in(rig, DirectDisk, "write", 3, after=True)


def test_a_half_erased_medium_is_known_by_its_mark(rig: Rig, serve: Serve) -> None:
    half_erased(rig)
    assert rig.camera.device().disks[0].volumes == (), "there is no file system to know it by"
    client = serve(rig.actions())
    assert client.unfinished(BAY) == Camera(loops.CAMERA, IdentifiedBy.SERIAL)
    os.close(client.open_volume(BAY, loops.CAMERA))
    require_empty_camera(rig)


def test_a_twin_of_a_half_erased_camera_is_not_touched(rig: Rig) -> None:
    """Same ids, same size, same volume id: without the mark it needs its own proof (INV-1)."""
    twin = loops.LoopCamera(rig.tmp / "twin.img")
    twin.image.write_bytes(rig.camera.content())
    half_erased(rig)
    (entry,) = rig.ledger.entries()
    before = twin.content()
    with twin.plugged():
        rig = replace(rig, camera=twin)
        assert rig.actions().unfinished(BAY) is None
        assert open_and_list(rig) == set(loops.CONTENTS)
        assert twin.content() == before
    assert entry.is_marked(entry.mark())


def test_a_medium_that_is_merely_broken_is_not_erased(rig: Rig) -> None:
    """No readable file system and no mark: it is left for recovery by hand (INV-1)."""
    half_erased(rig)
    with rig.camera.image.open("r+b") as file:
        file.write(os.urandom(4096))
    os.sync()
    broken = loops.LoopCamera(rig.tmp / "broken.img")
    broken.image.write_bytes(rig.camera.content())
    before = broken.content()
    with broken.plugged():
        rig = replace(rig, camera=broken)
        assert rig.actions().unfinished(BAY) is None
        with pytest.raises(DeviceRefusedError, match="no file system"):
            rig.actions().open(BAY, loops.CAMERA, never)
    assert broken.content() == before


def test_a_marked_medium_of_no_ledger_is_not_erased(rig: Rig) -> None:
    """Whoever writes something like a mark on a card gets nothing erased by it."""
    half_erased(rig)
    (entry,) = rig.ledger.entries()
    rig.ledger.remove(entry)
    assert rig.actions().unfinished(BAY) is None


def test_a_wipe_is_not_begun_on_a_medium_that_is_half_erased(rig: Rig) -> None:
    half_erased(rig)
    with pytest.raises(DeviceRefusedError, match="no file system"):
        wipe(rig)


# Stopping, and a client that vanishes


def test_stopped_while_reading_erases_nothing(rig: Rig, serve: Serve) -> None:
    before = rig.camera.content()
    report = serve(rig.actions()).wipe(BAY, rig.request(), lambda: True)
    assert isinstance(report, WipeReport)
    assert report.verified is False
    assert (report.files_erased, report.verification) == (0, "stopped before anything was erased")
    assert rig.camera.content() == before


def test_stopped_while_overwriting_it_goes_on_when_docked_again(rig: Rig) -> None:
    rig.method = "overwrite"
    report = wipe(rig, lambda: bool(list(rig.ledger.entries())))
    assert report.verified is False
    assert "docked again" in report.verification
    assert rig.actions().unfinished(BAY) is not None
    with pytest.raises(HelperUnavailableError):
        rig.actions().open(BAY, loops.CAMERA, lambda: True)
    assert open_and_list(rig) == set()
    require_empty_camera(rig)


def test_a_client_that_vanishes_stops_the_wipe_and_leaves_no_mount(
    rig: Rig, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is killed in the middle of a wipe: the helper notices before the next file."""
    first_gone, daemon_gone = threading.Event(), threading.Event()
    real = wiping._remove

    def slow(*arguments: Any) -> str | None:
        result = real(*arguments)
        first_gone.set()
        assert daemon_gone.wait(20)
        return result

    monkeypatch.setattr(wiping, "_remove", slow)
    serve(rig.actions())
    pid = os.fork()
    if not pid:
        try:
            HelperClient(rig.tmp / "helper.sock").wipe(BAY, rig.request(), never)
        finally:
            os._exit(0)
    assert first_gone.wait(20)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    daemon_gone.set()
    # The next request waits until the bay is free again.
    fd = HelperClient(rig.tmp / "helper.sock").open_volume(BAY, loops.CAMERA)
    os.close(fd)
    assert len(rig.camera.files()) == len(loops.CONTENTS) - 1 + len(loops.SETTINGS)
    assert loops.is_free(rig.camera.node)
    monkeypatch.setattr(wiping, "_remove", real)
    assert wipe(rig).verified


def test_a_daemon_that_is_killed_leaves_no_mount(rig: Rig, serve: Serve) -> None:
    serve(rig.actions())
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            HelperClient(rig.tmp / "helper.sock").open_volume(BAY, loops.CAMERA)
            os.write(write, b"opened")
            signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 10) == b"opened"
    os.close(read)
    assert not loops.is_free(rig.camera.node)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert loops.is_free(rig.camera.node)


def test_a_camera_pulled_while_it_is_overwritten_is_gone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev

    def pulled(fd: int, buffers: Any, offset: int) -> int:
        if offset > 2 << 20:
            raise OSError(6, "No such device or address")
        return real(fd, buffers, offset)

    rig.method = "overwrite"
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", pulled)
        with pytest.raises(CameraGoneError):
            wipe(rig)
    assert rig.actions().unfinished(BAY) == PRESENCE.camera
    assert open_and_list(rig) == set()
    require_empty_camera(rig)
