"""Folders as bays, the whole way: odd names, things that are no files, and people who move things about."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dockd.core.lifecycle import BayState
from dockd.core.model import Manifest, SkipReason, UploadKind, display_name
from dockd.evidence.keys import load_verifying_key, public_key_path
from dockd.evidence.manifests import read_manifest
from dockd.ops import events
from dockd.ops.status import ask_status
from dockd.store.layout import Layout
from dockd.store.objects import object_path
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults import front as fronts
from tests.faults.front import Front
from tests.faults.processes import Dockd
from tests.faults.site import Site, footage, names_in
from tests.faults.triggers import ShortPauses

ODD_NAMES = (
    b"two\nlines.mp4",
    b"n" * 255,
    b"not \xff utf-8 \xc3\x28.mp4",
    b"..mp4",
    b"...",
    b"..\\..\\etc\\passwd",
    b"-rf",
    b" spaces ",
    b"%2e%2e%2f",
    b"\x1b[31mred\x07",
    "Übung 🎥 \u202egpj.mp4".encode(),
    b"~",
    b"DCIM/" + b"d" * 255 + b"/" + b"f" * 255,
    b"=cmd|'calc'!A1,\"x\"",
)


@asynccontextmanager
async def site_with_store(root: Path, *bays: str, settle_s: float = 0) -> AsyncIterator[Site]:
    async with Store.running(root / "store", settings=StoreSettings(reserve_bytes=0)) as store:
        site = Site(root / "dock-1", Layout(root / "store"), bays or ("1",))
        site.prepare(store.url, settle_s=settle_s)
        yield site


def manifest(site: Site) -> Manifest:
    """Return the only manifest that the store holds, verified with the dock's key."""
    (upload,) = site.uploads(UploadKind.MANIFEST)
    signed = object_path(site.store.objects, upload.sha256 or "").read_text(encoding="ascii")
    return read_manifest(signed, load_verifying_key(public_key_path(site.state.key)))


async def ready_and_stopped(dock: Dockd) -> None:
    assert await dock.said(events.BAY_STATE, state=BayState.READY)
    assert await dock.stop() == 0


async def test_odd_names_are_carried_exactly(fast_path: Path) -> None:
    """INV-2: byte for byte, through listing, journal, upload, catalogue, manifest and wipe."""
    async with site_with_store(fast_path) as site:
        site.plug({name: b"footage in " + name for name in ODD_NAMES})
        async with site.run() as dock:
            await ready_and_stopped(dock)
            shown = {line["recording"] for line in dock.lines() if "recording" in line}
        site.check_finished()
        assert {entry.path for entry in manifest(site).recordings} == set(ODD_NAMES)
        assert shown >= {display_name(name) for name in ODD_NAMES}
        assert all(name.isprintable() for name in shown)


async def test_what_is_no_file_is_left_alone_and_named(fast_path: Path) -> None:
    """INV-2, INV-5: in the log and on the manifest, each with its reason."""
    secret = fast_path / "secret"
    secret.write_bytes(b"not footage")
    async with site_with_store(fast_path) as site:
        camera = site.plug(footage("dock-1", (10,)))
        (camera / "link").symlink_to(secret)
        (camera / "dangling").symlink_to("nowhere")
        (camera / "up").symlink_to("..")
        os.mkfifo(camera / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(camera / "socket"))
        expected = {
            (b"link", SkipReason.SYMLINK),
            (b"dangling", SkipReason.SYMLINK),
            (b"up", SkipReason.SYMLINK),
            (b"fifo", SkipReason.FIFO),
            (b"socket", SkipReason.SOCKET),
        }
        with contextlib.suppress(PermissionError):  # only root may
            os.mknod(camera / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
            expected.add((b"zero", SkipReason.DEVICE_NODE))
        before = names_in(camera)
        async with site.run() as dock:
            await ready_and_stopped(dock)
            logged = {
                (line["path"], line["reason"])
                for line in dock.lines()
                if line["event"] == events.ENTRY_SKIPPED.name
            }
        site.check_finished()
        assert {(entry.path, entry.reason) for entry in manifest(site).skipped} == expected
        assert logged == {(path.decode(), reason) for path, reason in expected}
        assert names_in(camera) == before
        assert secret.read_bytes() == b"not footage"


async def test_pulled_in_mid_upload_and_put_back(fast_path: Path) -> None:
    """INV-3: the first visit is interrupted; the second goes on with what the store has."""
    settings = StoreSettings(reserve_bytes=0)
    async with (
        Store.running(fast_path / "store", settings=settings) as store,
        Front.before(store.url) as front,
    ):
        site = Site(fast_path / "dock-1", Layout(fast_path / "store"))
        site.prepare(front.url)
        camera = site.plug(footage("dock-1", (1_500_000, 9_000)))
        front.fault = fronts.closes_half_way
        async with site.run(ShortPauses()) as dock:
            assert await dock.said(events.UPLOAD_RETRY)
            away = camera.rename(site.root / "away")
            assert await dock.said(events.VISIT_FINISHED, verdict="interrupted")
            assert await dock.said(events.BAY_STATE, state=BayState.EMPTY)
            front.fault = None
            away.rename(camera)
            assert await dock.said(events.VISIT_FINISHED, verdict="wiped")
            await ready_and_stopped(dock)
        assert site.on_camera() == {}
        site.check_nothing_lost()
        assert sorted(upload.path for upload in site.uploads()) == sorted(site.docked)
        happened = site.check_custody()
        assert (happened.count("visit.started"), happened.count("visit.finished")) == (2, 2)


async def test_a_file_that_grows_is_sent_once_when_it_is_whole(fast_path: Path) -> None:
    async with site_with_store(fast_path, settle_s=30) as site:
        camera = site.bay() / "cam-1"
        camera.mkdir()
        parts = [bytes([number]) * 200_000 for number in range(5)]
        site.docked = {b"late.mp4": b"".join(parts)}
        async with site.run() as dock:
            assert await dock.said(events.DAEMON_STARTED)
            with (camera / "late.mp4").open("wb", buffering=0) as growing:
                for part in parts:
                    growing.write(part)
                    await asyncio.sleep(0.15)
            assert await dock.said(events.VISIT_FINISHED, verdict="wiped")
            assert await dock.stop() == 0
        assert site.on_camera() == {}
        site.check_nothing_lost()
        assert [upload.path for upload in site.uploads()] == [b"late.mp4"]


async def test_a_second_camera_in_a_bay_waits_for_the_first_to_go(fast_path: Path) -> None:
    async with site_with_store(fast_path) as site:
        first = site.plug({b"1.mp4": b"first"}, "cam-1")
        async with site.run() as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY, camera="cam-1")
            second = site.plug({b"2.mp4": b"second"}, "cam-2")
            assert await dock.said(events.BAY_CROWDED, waiting=["cam-2"])
            (bay,) = (await ask_status(site.state.socket))["bays"]
            assert (bay["camera"], bay["state"], bay["crowded_by"]) == ("cam-1", "ready", ["cam-2"])
            assert (second / "2.mp4").read_bytes() == b"second"
            first.rename(site.root / "gone")
            assert await dock.said(events.BAY_STATE, state=BayState.READY, camera="cam-2")
            assert await dock.stop() == 0
        assert site.on_camera() == {}
        site.check_nothing_lost()
        assert [upload.camera for upload in site.uploads()] == ["cam-1", "cam-2"]


async def test_a_bay_folder_that_vanishes_and_comes_back(fast_path: Path) -> None:
    """INV-8: its own bay is empty meanwhile; the other bay does not notice."""
    async with site_with_store(fast_path, "1", "2") as site:
        vanished = site.bay("1").rename(site.root / "vanished")
        site.bay("1").mkdir()
        async with site.run() as dock:
            assert await dock.said(events.DAEMON_STARTED)
            site.bay("1").rmdir()
            assert await dock.said(events.BAY_FOLDER_MISSING, bay="1")
            site.plug({b"2.mp4": b"second"}, "cam-2", bay="2")
            assert await dock.said(events.BAY_STATE, state=BayState.READY, bay="2")
            vanished.rename(site.bay("1"))
            assert await dock.said(events.BAY_FOLDER_BACK, bay="1")
            site.plug({b"1.mp4": b"first"}, "cam-1", bay="1")
            assert await dock.said(events.BAY_STATE, state=BayState.READY, bay="1")
            assert await dock.stop() == 0
            missing = [
                line
                for line in dock.lines()
                if line["event"] in (events.BAY_FOLDER_MISSING.name, events.BAY_FOLDER_BACK.name)
            ]
            assert len(missing) == 2
        assert site.on_camera("1") == site.on_camera("2") == {}
        site.check_nothing_lost()


async def test_three_thousand_tiny_files(fast_path: Path) -> None:
    """INV-2: count in is count out."""
    async with site_with_store(fast_path) as site:
        site.plug({f"{n % 7}/{n:05}.jpg".encode(): b"%d" % n for n in range(3_000)})
        async with site.run() as dock:
            assert await dock.said(events.BAY_STATE, within_s=60, state=BayState.READY)
            assert await dock.stop() == 0
            (finished,) = [
                line for line in dock.lines() if line["event"] == events.VISIT_FINISHED.name
            ]
        assert (finished["recordings"], finished["erased"]) == (3_000, 3_000)
        site.check_finished()
