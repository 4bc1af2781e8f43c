"""Erasing with proof, on real files with real receipts. Every test guards INV-1.

A refused wipe must leave every byte in place, so each of those tests compares the whole tree.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd import __version__
from dockd.cameras import wiping
from dockd.cameras.directory import DirectoryVolume, ListingLimits
from dockd.cameras.wiping import prove_and_erase
from dockd.core.errors import CameraGoneError, ManifestInvalidError
from dockd.core.model import (
    Camera,
    Confirm,
    IdentifiedBy,
    Listing,
    Presence,
    WipeReport,
    WipeRequest,
)
from dockd.core.wipe_gate import WipeRefused
from dockd.evidence.keys import SigningKey
from tests.simulated.clock import START
from tests.simulated.proofs import Proofs

CAMERA = "BWC-7"
PRESENCE = Presence("1", Camera(CAMERA, IdentifiedBy.FOLDER_NAME), "somewhere")
CONTENTS = {
    b"DCIM/100/MOV_0001.MP4": b"first clip" * 1000,
    b"DCIM/100/MOV_0002.MP4": b"second clip",
    b"DCIM/empty": b"",
    b"new\nline \xff": b"odd name",
}
FIRST, SECOND = list(CONTENTS)[:2]


def never() -> bool:
    return False


@dataclass
class Bench:
    """A camera's directory with footage that is proved, beside files that are none of its business."""

    root: Path
    outside: Path
    proofs: Proofs
    limits: ListingLimits = field(default_factory=ListingLimits)
    request: WipeRequest | None = None

    def path(self, name: bytes) -> Path:
        return self.root / os.fsdecode(name)

    def write(self, name: bytes, content: bytes) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_bytes(content)

    def files(self) -> dict[bytes, bytes]:
        """Everything on the camera, by name: content, or where a link points."""
        return {
            os.fsencode(path.relative_to(self.root)): (
                os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
            )
            for path in self.root.rglob("*")
            if path.is_symlink() or path.is_file()
        }

    def wipe(
        self,
        *,
        now: Callable[[], datetime] = lambda: START,
        should_stop: Callable[[], bool] = never,
        volume_type: type[DirectoryVolume] = DirectoryVolume,
    ) -> WipeReport | WipeRefused:
        volume = volume_type(os.open(self.root, os.O_RDONLY), self.limits, CAMERA)
        try:
            return prove_and_erase(
                volume,
                self.request or self.proofs.request_for(PRESENCE, CONTENTS),
                authority=self.proofs.authority,
                camera=CAMERA,
                now=now,
                should_stop=should_stop,
            )
        finally:
            volume.close()

    def require_report(self, outcome: WipeReport | WipeRefused) -> WipeReport:
        assert isinstance(outcome, WipeReport)
        return outcome


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "camera", tmp_path / "outside", Proofs())
    for name, content in CONTENTS.items():
        bench.write(name, content)
    bench.outside.mkdir()
    (bench.outside / "MOV_0001.MP4").write_bytes(b"of another camera")
    return bench


def test_proved_files_are_erased_and_directories_stay(bench: Bench) -> None:
    (bench.root / "link").symlink_to("../outside/MOV_0001.MP4")
    (bench.root / "empty directory").mkdir()

    report = bench.require_report(bench.wipe())

    assert bench.files() == {b"link": b"../outside/MOV_0001.MP4"}
    assert (bench.outside / "MOV_0001.MP4").read_bytes() == b"of another camera"
    assert (bench.root / "DCIM/100").is_dir()
    assert (bench.root / "empty directory").is_dir()
    assert report == WipeReport(
        method="delete",
        level="erase for re-use, not sanitisation (NIST SP 800-88r2)",
        files_erased=4,
        bytes_erased=sum(map(len, CONTENTS.values())),
        verified=True,
        verification="directories written back and listed again: no erased file is left",
        finished_at=START,
        tool=f"dockd {__version__}",
    )


def test_what_was_read_back_is_erased_where_that_was_chosen(bench: Bench) -> None:
    bench.proofs.confirm = Confirm.READBACK
    assert bench.require_report(bench.wipe()).verified
    assert bench.files() == {}


# Refusals

Spoil = Callable[[Bench], None]


def replaced_entry(bench: Bench, path: bytes, **changes: Any) -> None:
    """Make the request speak otherwise of one recording."""
    entries = [bench.proofs.entry(name, content, CAMERA) for name, content in CONTENTS.items()]
    entries = [replace(each, **changes) if each.path == path else each for each in entries]
    bench.request = bench.proofs.request(PRESENCE, bench.proofs.manifest(CAMERA, *entries))


def other_receipt(bench: Bench, camera: str = CAMERA, **changes: Any) -> None:
    receipt = bench.proofs.receipt(CONTENTS[FIRST], camera, **changes)
    replaced_entry(bench, FIRST, receipt=receipt)


def for_another_visit(bench: Bench) -> None:
    manifest = bench.proofs.manifest(CAMERA, bench.proofs.entry(FIRST, CONTENTS[FIRST], CAMERA))
    bench.request = bench.proofs.request(PRESENCE, replace(manifest, visit="visit-0"))


def for_another_camera(bench: Bench) -> None:
    entries = [bench.proofs.entry(name, content, CAMERA) for name, content in CONTENTS.items()]
    bench.request = bench.proofs.request(PRESENCE, bench.proofs.manifest("BWC-8", *entries))


def with_an_empty_manifest(bench: Bench) -> None:
    bench.request = bench.proofs.request_for(PRESENCE, {})


def with_a_recording_listed_twice(bench: Bench) -> None:
    names = [*CONTENTS, FIRST]
    entries = [bench.proofs.entry(name, CONTENTS[name], CAMERA) for name in names]
    bench.request = bench.proofs.request(PRESENCE, bench.proofs.manifest(CAMERA, *entries))


def with_a_directory_too_deep(bench: Bench) -> None:
    bench.limits = ListingLimits(max_depth=2)
    (bench.root / "DCIM/100/deep").mkdir()


def with_a_new_file(bench: Bench) -> None:
    bench.write(b"DCIM/100/MOV_0003.MP4", b"just arrived")


def with_other_bytes_of_the_same_size(bench: Bench) -> None:
    bench.write(SECOND, CONTENTS[SECOND][::-1])


def with_one_byte_more(bench: Bench) -> None:
    bench.write(SECOND, CONTENTS[SECOND] + b"x")


def with_a_receipt_of_another_key(bench: Bench) -> None:
    other_receipt(bench, key=SigningKey(Ed25519PrivateKey.generate()))


def with_an_unsigned_receipt(bench: Bench) -> None:
    _, payload, _ = bench.proofs.receipt(CONTENTS[FIRST], CAMERA).split(".")
    replaced_entry(bench, FIRST, receipt=f"eyJhbGciOiJub25lIn0.{payload}.")


def with_no_receipt(bench: Bench) -> None:
    replaced_entry(bench, FIRST, receipt="")


def with_a_receipt_of_another_store(bench: Bench) -> None:
    other_receipt(bench, issuer="store-2")


def with_a_receipt_for_another_camera(bench: Bench) -> None:
    other_receipt(bench, camera="BWC-8")


def with_a_receipt_for_another_dock(bench: Bench) -> None:
    other_receipt(bench, dock="dock-2")


def with_a_receipt_for_other_bytes(bench: Bench) -> None:
    other_receipt(bench, sha256="0" * 64)


def with_a_receipt_for_fewer_bytes(bench: Bench) -> None:
    other_receipt(bench, size_bytes=len(CONTENTS[FIRST]) - 1)


def with_a_receipt_from_the_future(bench: Bench) -> None:
    other_receipt(bench, issued_at=START + timedelta(minutes=6))


def with_a_shared_receipt(bench: Bench) -> None:
    bench.write(b"copy", CONTENTS[FIRST])
    receipt = bench.proofs.receipt(CONTENTS[FIRST], CAMERA)
    entries = [
        *(bench.proofs.entry(name, content, CAMERA) for name, content in CONTENTS.items()),
        bench.proofs.entry(b"copy", CONTENTS[FIRST], CAMERA),
    ]
    entries = [
        replace(each, receipt=receipt) if each.path in (FIRST, b"copy") else each
        for each in entries
    ]
    bench.request = bench.proofs.request(PRESENCE, bench.proofs.manifest(CAMERA, *entries))


def with_a_readback_where_the_store_must_sign(bench: Bench) -> None:
    other_receipt(bench, key=bench.proofs.dock_key, confirm=Confirm.READBACK)


def with_a_readback_by_the_store_itself(bench: Bench) -> None:
    other_receipt(bench, confirm=Confirm.READBACK)


def with_a_manifest_that_was_only_read_back(bench: Bench) -> None:
    request = bench.proofs.request_for(PRESENCE, CONTENTS)
    receipt = bench.proofs.receipt(request.manifest.encode(), CAMERA, confirm=Confirm.READBACK)
    bench.request = replace(request, manifest_receipt=receipt)


def with_a_stores_receipt_where_readback_is_pinned(bench: Bench) -> None:
    bench.proofs.confirm = Confirm.READBACK
    other_receipt(bench, key=bench.proofs.store_key, confirm=Confirm.RECEIPT)


def with_a_plain_receipt_by_the_dock_where_readback_is_pinned(bench: Bench) -> None:
    bench.proofs.confirm = Confirm.READBACK
    other_receipt(bench, confirm=Confirm.RECEIPT)


def with_a_readback_by_another_dock(bench: Bench) -> None:
    bench.proofs.confirm = Confirm.READBACK
    other_receipt(bench, key=SigningKey(Ed25519PrivateKey.generate()))


def with_a_reason_against_it(bench: Bench) -> None:
    replaced_entry(bench, FIRST, blocks_wipe="the camera's own checksum differs")


def with_a_manifest_that_has_no_receipt(bench: Bench) -> None:
    request = bench.proofs.request_for(PRESENCE, CONTENTS)
    bench.request = replace(request, manifest_receipt=bench.proofs.receipt(b"other", CAMERA))


def during_the_hold(bench: Bench) -> None:
    request = bench.proofs.request_for(PRESENCE, CONTENTS)
    bench.request = replace(request, hold_until=START + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("check", "spoil"),
    [
        (1, for_another_visit),
        (1, for_another_camera),
        (2, with_an_empty_manifest),
        (2, with_a_recording_listed_twice),
        (3, with_a_directory_too_deep),
        (5, with_a_new_file),
        (6, with_other_bytes_of_the_same_size),
        (6, with_one_byte_more),
        (7, with_a_receipt_of_another_key),
        (7, with_an_unsigned_receipt),
        (7, with_no_receipt),
        (7, with_a_receipt_of_another_store),
        (9, with_a_receipt_for_another_camera),
        (9, with_a_receipt_for_another_dock),
        (10, with_a_receipt_for_other_bytes),
        (10, with_a_receipt_for_fewer_bytes),
        (11, with_a_receipt_from_the_future),
        (12, with_a_shared_receipt),
        (13, with_a_reason_against_it),
        (14, with_a_manifest_that_has_no_receipt),
        (7, with_a_readback_where_the_store_must_sign),
        (7, with_a_readback_by_the_store_itself),
        (14, with_a_manifest_that_was_only_read_back),
        (7, with_a_stores_receipt_where_readback_is_pinned),
        (7, with_a_plain_receipt_by_the_dock_where_readback_is_pinned),
        (7, with_a_readback_by_another_dock),
        (15, during_the_hold),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_refusal_leaves_every_byte_in_place(bench: Bench, check: int, spoil: Spoil) -> None:
    spoil(bench)
    before = bench.files()
    outcome = bench.wipe()
    assert isinstance(outcome, WipeRefused)
    assert check in {reason.check for reason in outcome.reasons}
    assert bench.files() == before


def test_a_file_still_being_written_refuses_the_wipe(bench: Bench) -> None:
    """Check 4."""

    class Unsettled(DirectoryVolume):
        def list_files(self) -> Listing:
            return replace(super().list_files(), unsettled=frozenset({SECOND}))

    before = bench.files()
    outcome = bench.wipe(volume_type=Unsettled)
    assert isinstance(outcome, WipeRefused)
    assert [(reason.check, reason.path) for reason in outcome.reasons] == [(4, SECOND)]
    assert bench.files() == before


def test_a_file_that_changes_under_the_fresh_reading_refuses_the_wipe(bench: Bench) -> None:
    """Check 4: the bytes read may be right, but nobody knows what is there now."""

    def touch() -> bool:
        os.utime(bench.path(FIRST))
        return False

    before = bench.files()
    outcome = bench.wipe(should_stop=touch)
    assert isinstance(outcome, WipeRefused)
    assert [(reason.check, reason.path) for reason in outcome.reasons] == [(4, FIRST)]
    assert bench.files() == before


def test_a_file_that_cannot_be_read_refuses_the_wipe(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check 6: a read error is not an empty file."""
    real = os.pread

    def failing(fd: int, size: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{fd}").readlink().name == "MOV_0002.MP4":
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, size, offset)

    before = bench.files()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        outcome = bench.wipe()
    assert isinstance(outcome, WipeRefused)
    assert [(reason.check, reason.path) for reason in outcome.reasons] == [(6, SECOND)]
    assert bench.files() == before


def test_a_manifest_of_another_dock_is_not_even_read(bench: Bench) -> None:
    manifest = bench.proofs.manifest(CAMERA)
    key = SigningKey(Ed25519PrivateKey.generate())
    bench.request = bench.proofs.request(PRESENCE, manifest, key=key)
    before = bench.files()
    with pytest.raises(ManifestInvalidError):
        bench.wipe()
    assert bench.files() == before


def test_a_pulled_camera_is_an_error_and_no_success(bench: Bench) -> None:
    for name in CONTENTS:
        bench.path(name).unlink()
    (bench.root / "DCIM/100").rmdir()
    (bench.root / "DCIM").rmdir()

    def pull() -> datetime:
        bench.root.rmdir()
        return START

    with pytest.raises(CameraGoneError):
        bench.wipe(now=pull)


# Between the permit and the erasing; the time is asked for just then


def appended(bench: Bench) -> None:
    with bench.path(FIRST).open("ab") as file:
        file.write(b"more")


def replaced_by_equal_bytes(bench: Bench) -> None:
    other = bench.root / "DCIM/100/other"
    other.write_bytes(CONTENTS[FIRST])
    stat = bench.path(FIRST).stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(bench.path(FIRST))


def replaced_by_a_link(bench: Bench) -> None:
    bench.path(FIRST).unlink()
    bench.path(FIRST).symlink_to(bench.outside / "MOV_0001.MP4")


def replaced_by_a_directory(bench: Bench) -> None:
    bench.path(FIRST).unlink()
    bench.path(FIRST).mkdir()


def moved_with_its_directory_to_a_link(bench: Bench) -> None:
    (bench.root / "DCIM/100").rename(bench.root / "DCIM/101")
    (bench.root / "DCIM/100").symlink_to(bench.outside)


@pytest.mark.parametrize(
    "swap",
    [
        appended,
        replaced_by_equal_bytes,
        replaced_by_a_link,
        replaced_by_a_directory,
        moved_with_its_directory_to_a_link,
    ],
)
def test_a_file_swapped_after_the_fresh_reading_is_kept(bench: Bench, swap: Spoil) -> None:
    left: list[dict[bytes, bytes]] = []

    def now() -> datetime:
        if not left:
            swap(bench)
            left.append(bench.files())
        return START

    report = bench.require_report(bench.wipe(now=now))

    touched = (b"DCIM/100", b"DCIM/101") if swap is moved_with_its_directory_to_a_link else (FIRST,)
    kept = {name: content for name, content in left[0].items() if name.startswith(touched)}
    assert bench.files() == kept
    assert report.verified is False
    assert "MOV_0001.MP4" in report.verification
    assert (bench.outside / "MOV_0001.MP4").read_bytes() == b"of another camera"


def test_a_file_that_arrives_after_the_fresh_reading_is_kept(bench: Bench) -> None:
    def now() -> datetime:
        bench.write(b"DCIM/100/MOV_0003.MP4", b"just arrived")
        return START

    report = bench.require_report(bench.wipe(now=now))
    assert bench.files() == {b"DCIM/100/MOV_0003.MP4": b"just arrived"}
    assert report.verified


def test_a_name_used_again_at_once_is_another_file(bench: Bench) -> None:
    def should_stop() -> bool:
        if not bench.path(FIRST).exists():
            bench.write(FIRST, b"a new recording under an old name")
        return False

    report = bench.require_report(bench.wipe(should_stop=should_stop))
    assert bench.files() == {FIRST: b"a new recording under an old name"}
    assert report.verified


# Interruptions


def test_stopped_while_reading_erases_nothing(bench: Bench) -> None:
    before = bench.files()
    report = bench.require_report(bench.wipe(should_stop=lambda: True))
    assert (report.verified, report.files_erased) == (False, 0)
    assert report.verification == "stopped before anything was erased"
    assert bench.files() == before


@pytest.mark.parametrize("erased", range(1, len(CONTENTS)))
def test_stopped_between_two_files_it_goes_on_with_the_same_request(
    bench: Bench, erased: int
) -> None:
    """INV-3."""
    bench.request = bench.proofs.request_for(PRESENCE, CONTENTS)
    count = len(CONTENTS) - erased

    def enough() -> bool:
        return len(bench.files()) == count

    first = bench.require_report(bench.wipe(should_stop=enough))
    assert (first.verified, first.files_erased) == (False, erased)
    assert "stopped" in first.verification
    assert len(bench.files()) == count
    second = bench.require_report(bench.wipe())
    assert second.verified
    assert first.files_erased + second.files_erased == len(CONTENTS)
    assert bench.files() == {}


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("call", range(1, len(CONTENTS) + 1))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_removal_it_goes_on_with_the_same_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: int, moment: str
) -> None:
    """INV-3."""
    bench.request = bench.proofs.request_for(PRESENCE, CONTENTS)
    real, calls = os.unlink, 0

    def unlink(name: bytes, *, dir_fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == call and moment == "before":
            raise Killed
        real(name, dir_fd=dir_fd)
        if calls == call:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        with pytest.raises(Killed):
            bench.wipe()
    left = bench.files()
    assert left == {name: CONTENTS[name] for name in left}, "what is left is whole"
    assert len(left) == len(CONTENTS) - call + (moment == "before")
    assert bench.require_report(bench.wipe()).verified
    assert bench.files() == {}


@pytest.mark.parametrize("code", [errno.EROFS, errno.EPERM, errno.EIO])
def test_a_file_that_cannot_be_removed_is_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real = os.unlink

    def unlink(name: bytes, *, dir_fd: int) -> None:
        if name == b"MOV_0002.MP4":
            raise OSError(code, os.strerror(code))
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    report = bench.require_report(bench.wipe())
    assert bench.files() == {SECOND: CONTENTS[SECOND]}
    assert (report.verified, report.files_erased) == (False, 3)
    assert report.verification == f"DCIM/100/MOV_0002.MP4: {os.strerror(code)}"


def test_a_camera_pulled_while_erasing_is_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(_name: bytes, *, dir_fd: int) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(CameraGoneError):
        bench.wipe()


@pytest.mark.parametrize(("code", "verified"), [(errno.EIO, False), (errno.EINVAL, True)])
def test_directories_must_reach_the_medium(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int, verified: bool
) -> None:
    """Some file systems have no fsync for directories (EINVAL); that is no failure of theirs."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").is_dir():
            raise OSError(code, os.strerror(code))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    report = bench.require_report(bench.wipe())
    assert report.files_erased == 4
    assert report.verified is verified


def test_one_directory_reaches_the_medium_before_the_next_is_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-3: else a power cut can leave a FAT entry without its clusters, which nobody can read."""
    done: list[tuple[str, str]] = []
    really_unlink, really_sync = os.unlink, os.fsync

    def name_of(fd: int) -> str:
        return Path(f"/proc/self/fd/{fd}").readlink().name

    def unlink(name: bytes, *, dir_fd: int) -> None:
        done.append(("remove from", name_of(dir_fd)))
        really_unlink(name, dir_fd=dir_fd)

    def fsync(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").is_dir():
            done.append(("write back", name_of(fd)))
        really_sync(fd)

    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(os, "fsync", fsync)
    assert bench.require_report(bench.wipe()).verified
    assert done == [
        ("remove from", "camera"),
        ("write back", "camera"),
        ("remove from", "DCIM"),
        ("write back", "DCIM"),
        ("remove from", "100"),
        ("remove from", "100"),
        ("write back", "100"),
    ]


def test_an_erased_file_that_is_still_listed_is_no_verified_wipe(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive evidence: that unlink returned proves nothing, the new listing does."""
    monkeypatch.setattr(os, "unlink", lambda *_args, **_keys: None)
    report = bench.require_report(bench.wipe())
    assert report.verified is False
    assert report.verification.endswith("is still there (and 3 more)")


def test_the_fresh_reading_comes_from_the_medium(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second read is worthless from the page cache: written back and dropped before the first byte."""
    calls: list[tuple[str, str]] = []
    real_fsync, real_pread, real_fadvise = os.fsync, os.pread, os.posix_fadvise

    def name(fd: int) -> str:
        return Path(f"/proc/self/fd/{fd}").readlink().name

    def fsync(fd: int) -> None:
        calls.append(("fsync", name(fd)))
        real_fsync(fd)

    def pread(fd: int, size: int, offset: int) -> bytes:
        calls.append(("read", name(fd)))
        return real_pread(fd, size, offset)

    def fadvise(fd: int, offset: int, length: int, advice: int) -> None:
        if (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED):
            calls.append(("drop", name(fd)))
        real_fadvise(fd, offset, length, advice)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "pread", pread)
        patch.setattr(os, "posix_fadvise", fadvise)
        bench.wipe()
    for path in CONTENTS:
        of_file = [call for call, named in calls if named == os.fsdecode(path).rpartition("/")[2]]
        assert of_file[:3] == ["fsync", "drop", "read"]


def test_the_eraser_has_no_other_way_to_remove_than_unlink_in_a_directory() -> None:
    """What can erase stays small: one call that removes, relative to a descriptor of the camera."""
    source = Path(wiping.__file__).read_text(encoding="utf-8")
    assert source.count("os.unlink(") == 1
    assert "os.unlink(name, dir_fd=directory_fd)" in source
    for other in (
        "rmtree",
        "rmdir",
        "os.remove",
        "truncate",
        "O_WRONLY",
        "O_RDWR",
        "Path",
        "rename",
    ):
        assert other not in source
