"""What every source of cameras must do: the folders, and the simulation that stands in for them."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from dockd.cameras.directory import ListingLimits
from dockd.cameras.folder import FolderSource
from dockd.core.errors import CameraGoneError, CameraUnreadableError
from dockd.core.interfaces import CameraSource
from dockd.core.model import Presence, WipeReport
from dockd.core.wipe_gate import WipeRefused
from tests.simulated.cameras import Generated, SimulatedCamera, SimulatedSource
from tests.simulated.proofs import ManualClock, Proofs

CONTENTS = {b"DCIM/a \xff\n": b"first" * 500, b"b": b"", b"c": b"third"}


class Site(Protocol):
    """A place with bays 1 and 2, whatever they are made of."""

    source: CameraSource
    proofs: Proofs

    def dock(self, bay: str, camera_id: str, contents: Mapping[bytes, bytes]) -> None: ...
    def pull(self, bay: str, camera_id: str) -> None: ...
    def write(self, bay: str, camera_id: str, path: bytes, content: bytes) -> None: ...
    def contents(self, bay: str, camera_id: str) -> dict[bytes, bytes]: ...


class FolderSite:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.proofs = Proofs()
        for bay in ("1", "2"):
            (root / bay).mkdir()
        self.source: CameraSource = FolderSource(
            {"1": root / "1", "2": root / "2"},
            self.proofs.authority,
            ManualClock(),
            settle_s=0,
            limits=ListingLimits(),
        )

    def dock(self, bay: str, camera_id: str, contents: Mapping[bytes, bytes]) -> None:
        (self.root / bay / camera_id).mkdir()
        for path, content in contents.items():
            self.write(bay, camera_id, path, content)

    def pull(self, bay: str, camera_id: str) -> None:
        camera = self.root / bay / camera_id
        for path in sorted(camera.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        camera.rmdir()

    def write(self, bay: str, camera_id: str, path: bytes, content: bytes) -> None:
        file = self.root / bay / camera_id / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def contents(self, bay: str, camera_id: str) -> dict[bytes, bytes]:
        camera = self.root / bay / camera_id
        return {
            os.fsencode(path.relative_to(camera)): path.read_bytes()
            for path in camera.rglob("*")
            if path.is_file()
        }


class SimulatedSite:
    def __init__(self) -> None:
        self.proofs = Proofs()
        self.cameras: dict[str, SimulatedCamera] = {}
        self.source: CameraSource = SimulatedSource(
            ["1", "2"], self.proofs.authority, ManualClock()
        )

    def dock(self, bay: str, camera_id: str, contents: Mapping[bytes, bytes]) -> None:
        camera = self.cameras[camera_id] = SimulatedCamera(camera_id)
        for path, content in contents.items():
            camera.record(path, content)
        assert isinstance(self.source, SimulatedSource)
        self.source.plug(bay, camera)

    def pull(self, bay: str, camera_id: str) -> None:
        assert isinstance(self.source, SimulatedSource)
        self.source.unplug(bay)

    def write(self, bay: str, camera_id: str, path: bytes, content: bytes) -> None:
        self.cameras[camera_id].record(path, content)

    def contents(self, bay: str, camera_id: str) -> dict[bytes, bytes]:
        files = self.cameras[camera_id].files
        return {path: b"".join(file.chunks()) for path, file in files.items()}


@pytest.fixture(params=["folder", "simulated"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return FolderSite(tmp_path) if request.param == "folder" else SimulatedSite()


def presence(site: Site, bay: str = "1") -> Presence:
    (found,) = site.source.enumerate_cameras()[bay]
    return found


def never() -> bool:
    return False


def test_bays_are_all_there_even_when_empty(site: Site) -> None:
    assert list(site.source.bays) == ["1", "2"]
    assert {bay: list(seen) for bay, seen in site.source.enumerate_cameras().items()} == {
        "1": [],
        "2": [],
    }


def test_a_docked_camera_is_seen_in_its_bay_until_it_is_pulled(site: Site) -> None:
    site.dock("1", "BWC-7", CONTENTS)
    assert (presence(site).bay, presence(site).camera.camera_id) == ("1", "BWC-7")
    assert presence(site) == presence(site)
    site.pull("1", "BWC-7")
    assert not site.source.enumerate_cameras()["1"]


def test_two_cameras_in_one_bay_are_both_seen(site: Site) -> None:
    site.dock("1", "BWC-7", {})
    site.dock("1", "BWC-8", {})
    seen = site.source.enumerate_cameras()["1"]
    assert [each.camera.camera_id for each in seen] == ["BWC-7", "BWC-8"]


def test_files_are_listed_and_read_bit_by_bit(site: Site) -> None:
    site.dock("1", "BWC-7", CONTENTS)
    volume = site.source.open_camera(presence(site))
    listing = volume.list_files()
    assert [file.path for file in listing.files] == sorted(CONTENTS)
    assert listing.complete
    for listed in listing.files:
        file = volume.open_file(listed.path)
        assert file.stat() == listed.stat
        pieces = []
        while piece := file.read(600):
            pieces.append(piece)
        assert b"".join(pieces) == CONTENTS[listed.path]
        file.seek(2)
        assert file.read(3) == CONTENTS[listed.path][2:5]
        file.close()
        file.close()
    with pytest.raises(CameraUnreadableError):
        volume.open_file(b"none")
    volume.close()
    volume.close()


def test_a_file_written_over_has_another_stat(site: Site) -> None:
    site.dock("1", "BWC-7", CONTENTS)
    volume = site.source.open_camera(presence(site))
    before = volume.list_files()
    site.write("1", "BWC-7", b"c", b"fresh")
    site.write("1", "BWC-7", b"d", b"new")
    after = volume.list_files()
    assert [file.path for file in after.files] == [*sorted(CONTENTS), b"d"]
    assert before.files[0] == after.files[0]
    assert before.files[2].stat != after.files[2].stat
    volume.close()


def test_a_pulled_camera_is_gone_for_good(site: Site) -> None:
    site.dock("1", "BWC-7", CONTENTS)
    where = presence(site)
    volume = site.source.open_camera(where)
    site.pull("1", "BWC-7")
    with pytest.raises(CameraGoneError):
        volume.list_files()
    with pytest.raises(CameraGoneError):
        volume.open_file(b"c")
    with pytest.raises(CameraGoneError):
        site.source.open_camera(where)
    site.dock("1", "BWC-7", CONTENTS)
    with pytest.raises(CameraGoneError):
        volume.list_files()
    volume.close()


def test_a_closed_volume_is_gone(site: Site) -> None:
    site.dock("1", "BWC-7", CONTENTS)
    volume = site.source.open_camera(presence(site))
    volume.close()
    with pytest.raises(CameraGoneError):
        volume.list_files()


def test_a_wipe_with_proof_erases_and_one_without_does_not(site: Site) -> None:
    """INV-1."""
    site.dock("1", "BWC-7", CONTENTS)
    lacking = {path: content for path, content in CONTENTS.items() if path != b"c"}
    refused = site.source.wipe(site.proofs.request_for(presence(site), lacking), never)
    assert isinstance(refused, WipeRefused)
    assert [(reason.check, reason.path) for reason in refused.reasons] == [(5, b"c")]
    assert site.contents("1", "BWC-7") == CONTENTS

    report = site.source.wipe(site.proofs.request_for(presence(site), CONTENTS), never)
    assert isinstance(report, WipeReport)
    assert (report.files_erased, report.bytes_erased, report.verified) == (3, 2505, True)
    assert site.contents("1", "BWC-7") == {}


def test_a_wipe_is_for_the_camera_in_the_bay(site: Site) -> None:
    """INV-1: one camera's confirmation never wipes another."""
    site.dock("1", "BWC-7", CONTENTS)
    request = site.proofs.request_for(presence(site), CONTENTS)
    site.pull("1", "BWC-7")
    site.dock("1", "BWC-8", CONTENTS)
    with pytest.raises(CameraGoneError):
        site.source.wipe(request, never)
    assert site.contents("1", "BWC-8") == CONTENTS


def test_a_wipe_stopped_at_once_can_be_asked_for_again(site: Site) -> None:
    """INV-3."""
    site.dock("1", "BWC-7", CONTENTS)
    request = site.proofs.request_for(presence(site), CONTENTS)
    first = site.source.wipe(request, lambda: True)
    assert isinstance(first, WipeReport)
    assert not first.verified
    second = site.source.wipe(request, never)
    assert isinstance(second, WipeReport)
    assert second.verified
    assert site.contents("1", "BWC-7") == {}


@pytest.fixture
async def hints(site: Site) -> AsyncIterator[AsyncIterator[None]]:
    async with contextlib.aclosing(site.source.hints()) as hints:
        yield hints


async def test_docking_and_pulling_are_hinted(site: Site, hints: AsyncIterator[None]) -> None:
    first = asyncio.ensure_future(anext(hints))
    await asyncio.sleep(0)
    site.dock("1", "BWC-7", {})
    async with asyncio.timeout(5):
        await first
        site.pull("1", "BWC-7")
        await anext(hints)
    assert not site.source.enumerate_cameras()["1"]


# What only the simulation does


def simulated() -> tuple[SimulatedSource, SimulatedCamera]:
    source = SimulatedSource(["1"], Proofs().authority, ManualClock())
    camera = SimulatedCamera("BWC-7")
    source.plug("1", camera)
    return source, camera


def opened(source: SimulatedSource, path: bytes) -> tuple[Presence, bytes]:
    (found,) = source.enumerate_cameras()["1"]
    file = source.open_camera(found).open_file(path)
    data = b""
    with contextlib.suppress(CameraUnreadableError, CameraGoneError):
        while piece := file.read(1000):
            data += piece
    return found, data


def test_generated_content_is_the_same_from_every_byte_on() -> None:
    content = Generated(200_000, seed=3)
    whole = content.read(0, 200_000)
    assert len(whole) == 200_000
    for begin, size in ((0, 1), (65_520, 3), (131_000, 70_000), (199_999, 5), (200_000, 9)):
        assert content.read(begin, size) == whole[begin : begin + size]
    assert Generated(200_000, seed=4).read(0, 100) != whole[:100]


def test_a_file_fails_at_its_byte_and_not_before() -> None:
    source, camera = simulated()
    camera.record(b"clip", Generated(10_000), fails_at=2500)
    found, data = opened(source, b"clip")
    assert data == Generated(10_000).read(0, 2500)
    assert source.enumerate_cameras()["1"] == [found]


def test_a_camera_vanishes_at_a_byte() -> None:
    source, camera = simulated()
    camera.record(b"clip", b"x" * 10_000, vanishes_at=2500)
    _, data = opened(source, b"clip")
    assert len(data) == 2000
    assert source.enumerate_cameras()["1"] == []
    source.plug("1", camera)
    assert len(opened(source, b"clip")[1]) == 10_000, "docked again, it is read to its end"


def test_a_file_changes_under_its_reader_once() -> None:
    source, camera = simulated()
    before = camera.record(b"clip", b"x" * 3000, changes_at=1500, changed_content=b"y" * 3000).stat
    assert opened(source, b"clip")[1] == b"x" * 1000 + b"y" * 2000
    assert camera.files[b"clip"].stat != before
    assert opened(source, b"clip")[1] == b"y" * 3000


def test_every_read_is_told_before_it_happens() -> None:
    source, camera = simulated()
    camera.record(b"clip", b"x" * 1500)
    reads: list[tuple[str, int]] = []
    source.on_read = lambda presence, size: reads.append((presence.bay, size))
    opened(source, b"clip")
    assert reads == [("1", 1000)] * 3


def test_a_camera_vanishes_while_it_is_erased() -> None:
    """INV-3."""
    proofs = Proofs()
    source = SimulatedSource(["1"], proofs.authority, ManualClock())
    camera = SimulatedCamera("BWC-7", vanishes_after_erasing=1)
    for path, content in CONTENTS.items():
        camera.record(path, content)
    source.plug("1", camera)
    (found,) = source.enumerate_cameras()["1"]
    request = proofs.request_for(found, CONTENTS)
    with pytest.raises(CameraGoneError):
        source.wipe(request, never)
    assert len(camera.files) == 2
    source.plug("1", camera)
    assert isinstance(source.wipe(request, never), WipeReport)
    assert sorted(path for path, _ in camera.erased) == sorted(CONTENTS)
    assert source.open_volumes == set()
