"""A camera's file system through one descriptor, with everything that a hostile one can hold."""

import contextlib
import errno
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.cameras.directory import DirectoryVolume, ListingLimits
from dockd.core.errors import CameraGoneError, CameraUnreadableError
from dockd.core.model import Listing, SkippedEntry, SkipReason

LIMITS = ListingLimits()

MakeVolume = Callable[..., DirectoryVolume]


def open_fds() -> set[str]:
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "camera").mkdir()
    return tmp_path / "camera"


@pytest.fixture
def volume_of() -> Iterator[MakeVolume]:
    """Open volumes that are closed after the test; no descriptor may be left then."""
    before = open_fds()
    opened: list[DirectoryVolume] = []

    def make(root: Path, limits: ListingLimits = LIMITS) -> DirectoryVolume:
        opened.append(DirectoryVolume(os.open(root, os.O_RDONLY), limits, "BWC-7"))
        return opened[-1]

    yield make
    for volume in opened:
        volume.close()
        volume.close()
    assert open_fds() <= before


def paths(listing: Listing) -> list[bytes]:
    return [file.path for file in listing.files]


def write(root: Path, name: bytes, content: bytes = b"x") -> Path:
    path = root / os.fsdecode(name)
    path.write_bytes(content)
    return path


ODD_NAMES = [
    b"new\nline", b"\xff\xfe not UTF-8", b"..mp4", b"...", b"..  ", b"-rf", b"~", b"%00", b"a" * 255,
    "ü.MP4".encode(), b"back\\slash", b" ", b"\x01\x7f\x1b[31m",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_are_carried_exactly(root: Path, volume_of: MakeVolume, name: bytes) -> None:
    """INV-2."""
    write(root, name, b"footage")
    volume = volume_of(root)
    listing = volume.list_files()
    assert paths(listing) == [name]
    file = volume.open_file(name)
    assert (file.read(100), file.read(100)) == (b"footage", b"")
    assert file.stat() == listing.files[0].stat
    file.close()


def test_files_are_listed_in_order_with_their_stat(root: Path, volume_of: MakeVolume) -> None:
    for name in (b"b", b"a", b"D/c", b"D/E/d"):
        (root / name.decode()).parent.mkdir(parents=True, exist_ok=True)
        write(root, name, b"x" * len(name))
    os.utime(root / "a", ns=(0, 1_234_567_890_123_456_789))
    (root / "empty directory").mkdir()
    write(root, b"empty file", b"")

    listing = volume_of(root).list_files()

    assert paths(listing) == [b"D/E/d", b"D/c", b"a", b"b", b"empty file"]
    assert [file.stat.size_bytes for file in listing.files] == [5, 3, 1, 1, 0]
    assert listing.files[2].stat.mtime_ns == 1_234_567_890_123_456_789
    assert listing.complete
    assert listing.skipped == ()


def test_what_is_no_file_is_shown_and_never_opened(
    root: Path, volume_of: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-2."""
    outside = root.parent / "outside"
    outside.mkdir()
    write(outside, b"secret")
    (root / "to_file").symlink_to(outside / "secret")
    (root / "to_directory").symlink_to(outside)
    (root / "dangling").symlink_to("nowhere")
    (root / "to_itself").symlink_to("to_itself")
    (root / "up").symlink_to("..")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        monkeypatch.chdir(root)  # the path of a socket may have 107 bytes only
        unix.bind("socket")

    listing = volume_of(root).list_files()

    assert listing.files == ()
    assert {(entry.path, entry.reason) for entry in listing.skipped} == {
        (b"to_file", SkipReason.SYMLINK),
        (b"to_directory", SkipReason.SYMLINK),
        (b"dangling", SkipReason.SYMLINK),
        (b"to_itself", SkipReason.SYMLINK),
        (b"up", SkipReason.SYMLINK),
        (b"fifo", SkipReason.FIFO),
        (b"socket", SkipReason.SOCKET),
    }
    assert listing.complete


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_device_nodes_are_skipped(root: Path, volume_of: MakeVolume, kind: int) -> None:
    try:
        os.mknod(root / "node", kind | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes device nodes")
    volume = volume_of(root)
    assert volume.list_files().skipped == (SkippedEntry(b"node", SkipReason.DEVICE_NODE),)
    with pytest.raises(CameraUnreadableError):
        volume.open_file(b"node")


@pytest.mark.parametrize("swap", ["fifo", "symlink", "directory", "socket", "gone"])
def test_a_file_swapped_after_listing_is_not_followed(
    root: Path, volume_of: MakeVolume, swap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera cannot make dockd read something else, or hang it, between listing and opening."""
    write(root, b"clip")
    write(root.parent, b"secret", b"secret")
    volume = volume_of(root)
    assert paths(volume.list_files()) == [b"clip"]
    (root / "clip").unlink()
    match swap:
        case "fifo":
            os.mkfifo(root / "clip")
        case "symlink":
            (root / "clip").symlink_to("../secret")
        case "directory":
            (root / "clip").mkdir()
        case "socket":
            monkeypatch.chdir(root)
            with socket.socket(socket.AF_UNIX) as unix:
                unix.bind("clip")
    with pytest.raises(CameraUnreadableError, match="BWC-7: clip"):
        volume.open_file(b"clip")


def test_a_directory_swapped_after_listing_is_not_followed(
    root: Path, volume_of: MakeVolume
) -> None:
    (root / "D").mkdir()
    write(root, b"D/clip")
    (root.parent / "outside").mkdir()
    write(root.parent, b"outside/clip", b"secret")
    volume = volume_of(root)
    assert paths(volume.list_files()) == [b"D/clip"]
    (root / "D").rename(root / "E")
    (root / "D").symlink_to("../outside")
    with pytest.raises(CameraUnreadableError, match="BWC-7: D"):
        volume.open_file(b"D/clip")


@pytest.mark.parametrize(
    "path", [b"", b"/", b"/etc/passwd", b"..", b"../secret", b"D/../../secret", b"./clip", b"D//c", b"c\0"]
)  # fmt: skip
def test_paths_never_leave_the_root(root: Path, volume_of: MakeVolume, path: bytes) -> None:
    write(root.parent, b"secret")
    with pytest.raises(CameraUnreadableError, match="is not a path on a camera"):
        volume_of(root).open_file(path)


@given(st.binary(max_size=20))
def test_no_path_gives_an_error_of_another_kind(path: bytes) -> None:
    volume = DirectoryVolume(os.open(Path(__file__).parent, os.O_RDONLY), LIMITS, "BWC-7")
    try:
        volume.open_file(path).close()
    except CameraUnreadableError:
        pass
    finally:
        volume.close()


def test_too_many_files_are_not_hidden(root: Path, volume_of: MakeVolume) -> None:
    """INV-2."""
    for directory_name in ("A", "B", "C"):
        (root / directory_name).mkdir()
        for number in range(4):
            write(root, f"{directory_name}/{number}".encode())
    volume = volume_of(root, ListingLimits(max_files=8))
    listing = volume.list_files()
    assert not listing.complete
    assert 0 < len(listing.files) < 8
    assert {entry.reason for entry in listing.skipped} == {SkipReason.TOO_MANY}
    seen = {path[:1] for path in paths(listing)} | {entry.path[:1] for entry in listing.skipped}
    assert seen == {b"A", b"B", b"C"}
    assert volume_of(root, ListingLimits(max_files=15)).list_files().complete


def test_links_count_towards_the_limit(root: Path, volume_of: MakeVolume) -> None:
    for number in range(9):
        (root / str(number)).symlink_to("x")
    listing = volume_of(root, ListingLimits(max_files=5)).list_files()
    assert len(listing.skipped) == 6
    assert not listing.complete


def test_too_deep_directories_are_not_hidden(root: Path, volume_of: MakeVolume) -> None:
    """INV-2."""
    (root / "1/2/3").mkdir(parents=True)
    write(root, b"1/2/clip")
    write(root, b"1/2/3/clip")
    listing = volume_of(root, ListingLimits(max_depth=2)).list_files()
    assert paths(listing) == [b"1/2/clip"]
    assert [(entry.path, entry.reason) for entry in listing.skipped] == [
        (b"1/2/3", SkipReason.TOO_DEEP)
    ]
    assert volume_of(root, ListingLimits(max_depth=3)).list_files().complete


def test_a_tree_deeper_than_any_path_may_be_long(root: Path, volume_of: MakeVolume) -> None:
    """Paths of over 4096 bytes (PATH_MAX) can be made, so they must be readable."""
    name = "d" * 250
    fd = os.open(root, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("clip", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    volume = volume_of(root)
    (path,) = paths(volume.list_files())
    assert len(path) > 4096
    volume.open_file(path).close()


def test_a_directory_that_contains_itself_ends(
    root: Path, volume_of: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-8. Only a broken file system has one, so its inode numbers are pretended."""
    (root / "a/b/c/d").mkdir(parents=True)
    real = os.fstat

    def with_loop(fd: int) -> os.stat_result:
        found = real(fd)
        if stat.S_ISDIR(found.st_mode) and Path(f"/proc/self/fd/{fd}").readlink().match("a/b/c"):
            found = os.stat_result((found[0], (root / "a").stat().st_ino, *found[2:]))
        return found

    volume = volume_of(root)
    device = root.stat().st_dev
    monkeypatch.setattr(
        DirectoryVolume, "stat", lambda _self, fd, _path: _same_device(with_loop(fd), device)
    )
    listing = volume.list_files()
    assert [(entry.path, entry.reason) for entry in listing.skipped] == [
        (b"a/b/c", SkipReason.UNREADABLE)
    ]
    assert not listing.complete


def _same_device(found: os.stat_result, device: int) -> os.stat_result:
    return os.stat_result((*found[:2], device, *found[3:]))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_directories_are_not_hidden(root: Path, volume_of: MakeVolume) -> None:
    (root / "closed").mkdir(mode=0)
    (root / "file").touch(mode=0)
    volume = volume_of(root)
    listing = volume.list_files()
    assert [(entry.path, entry.reason) for entry in listing.skipped] == [
        (b"closed", SkipReason.UNREADABLE)
    ]
    with pytest.raises(CameraUnreadableError, match="BWC-7: file: Permission denied"):
        volume.open_file(b"file")


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ELOOP])
def test_a_directory_that_fails_is_not_hidden(
    root: Path, volume_of: MakeVolume, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """INV-2, INV-8: one bad directory costs only itself."""
    for name in ("bad", "good"):
        (root / name).mkdir()
        write(root, f"{name}/clip".encode())
    _fail(monkeypatch, b"bad", code)
    listing = volume_of(root).list_files()
    assert paths(listing) == [b"good/clip"]
    assert [(entry.path, entry.reason) for entry in listing.skipped] == [
        (b"bad", SkipReason.UNREADABLE)
    ]
    assert os.strerror(code) in listing.skipped[0].detail


def test_a_directory_removed_while_listing_is_nothing_to_tell(
    root: Path, volume_of: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "bad").mkdir()
    _fail(monkeypatch, b"bad", errno.ENOENT)
    assert volume_of(root).list_files() == Listing(())


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ESTALE])
def test_a_root_that_vanishes_is_a_camera_that_is_gone(
    root: Path, volume_of: MakeVolume, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    volume = volume_of(root)
    _fail(monkeypatch, b".", code)
    with pytest.raises(CameraGoneError):
        volume.list_files()
    with pytest.raises(CameraGoneError):
        volume.open_file(b"clip")


def test_a_root_that_cannot_be_read_is_a_camera_that_is_unreadable(
    root: Path, volume_of: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = volume_of(root)
    _fail(monkeypatch, b".", errno.EIO)
    with pytest.raises(CameraUnreadableError, match="its root directory: Input/output error"):
        volume.list_files()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.EIO, CameraUnreadableError),
        (errno.ENODATA, CameraUnreadableError),
        (errno.ENODEV, CameraGoneError),
        (errno.ENOMEDIUM, CameraGoneError),
    ],
)
def test_a_read_that_fails(
    root: Path,
    volume_of: MakeVolume,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: type[Exception],
) -> None:
    write(root, b"new\nline")
    file = volume_of(root).open_file(b"new\nline")

    def fail(*_: object) -> bytes:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        with pytest.raises(error, match=r"BWC-7: (new\\nline|the camera is gone)"):
            file.read(10)
    file.close()
    file.close()


def test_a_camera_whose_directory_is_removed_is_gone(root: Path, volume_of: MakeVolume) -> None:
    """INV-2: an emptied listing must not look like an empty camera."""
    write(root, b"clip", b"footage")
    volume = volume_of(root)
    file = volume.open_file(b"clip")
    (root / "clip").unlink()
    root.rmdir()
    with pytest.raises(CameraGoneError):
        volume.list_files()
    with pytest.raises(CameraGoneError):
        volume.open_file(b"clip")
    assert file.read(100) == b"footage"
    file.close()


def test_a_closed_volume_is_gone(root: Path, volume_of: MakeVolume) -> None:
    volume = volume_of(root)
    volume.close()
    with pytest.raises(CameraGoneError):
        volume.list_files()
    with pytest.raises(CameraGoneError):
        volume.open_file(b"clip")


def test_reading_in_pieces_and_again(root: Path, volume_of: MakeVolume) -> None:
    content = os.urandom(100_000)
    write(root, b"clip", content)
    file = volume_of(root).open_file(b"clip")
    pieces = []
    while piece := file.read(7919):
        pieces.append(piece)
    assert b"".join(pieces) == content
    file.seek(50_000)
    assert file.read(10) == content[50_000:50_010]
    file.forget_cached()
    assert file.read(10) == content[50_010:50_020]
    file.close()


def test_big_reads_are_dropped_from_the_page_cache(
    root: Path, volume_of: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is forgotten piece by piece, without a gap and without running ahead."""
    with (root / "clip").open("wb") as sparse:
        sparse.truncate(20 << 20)
    dropped: list[tuple[int, int]] = []
    real = os.posix_fadvise

    def note(fd: int, offset: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED:
            dropped.append((offset, length))
        real(fd, offset, length, advice)

    file = volume_of(root).open_file(b"clip")
    monkeypatch.setattr(os, "posix_fadvise", note)
    while file.read(1 << 20):
        pass
    file.close()
    assert dropped == [(0, 8 << 20), (8 << 20, 8 << 20), (16 << 20, 4 << 20)]


def test_no_access_time_is_left_behind(root: Path, volume_of: MakeVolume) -> None:
    """INV-5."""
    (root / "D").mkdir()
    write(root, b"D/clip")
    for path in (root / "D/clip", root / "D", root):
        os.utime(path, (0, 0))
    volume = volume_of(root)
    volume.list_files()
    file = volume.open_file(b"D/clip")
    file.read(10)
    file.close()
    assert [path.stat().st_atime for path in (root / "D/clip", root / "D", root)] == [0, 0, 0]


def test_where_access_times_cannot_be_kept_reading_goes_on(
    root: Path, volume_of: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, b"clip")
    real = os.open

    def refuse(name: bytes, flags: int, *, dir_fd: int | None = None) -> int:
        if flags & os.O_NOATIME:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(name, flags, dir_fd=dir_fd)

    volume = volume_of(root)
    monkeypatch.setattr(os, "open", refuse)
    assert paths(volume.list_files()) == [b"clip"]
    volume.open_file(b"clip").close()


def test_another_file_system_is_not_entered(
    root: Path, volume_of: MakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is mounted over a camera is not the camera's. Mounts need root, so it is pretended."""
    (root / "mounted").mkdir()
    write(root, b"mounted/clip")
    write(root, b"bound")
    real = os.stat

    def elsewhere(name: bytes, **how: Any) -> os.stat_result:
        found = real(name, **how)
        if name in (b"mounted", b"bound"):
            found = os.stat_result((*found[:2], found.st_dev + 1, *found[3:]))
        return found

    volume = volume_of(root)
    monkeypatch.setattr(os, "stat", elsewhere)
    listing = volume.list_files()
    assert listing.files == ()
    assert {entry.reason for entry in listing.skipped} == {SkipReason.OTHER_FILE_SYSTEM}
    assert not listing.complete


def test_a_hundred_thousand_files_and_one_more(root: Path, volume_of: MakeVolume) -> None:
    """INV-2: the limit is what a dock has if nobody sets another; one file too many is not hidden."""
    memory = Path("/dev/shm")
    limit = ListingLimits().max_files
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else root) as directory:
        fd = os.open(directory, os.O_RDONLY)
        for number in range(limit):
            os.close(os.open(f"MOV_{number:06}.MP4", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        listing = volume_of(Path(directory), ListingLimits()).list_files()
        assert (len(listing.files), listing.complete) == (limit, True)
        os.close(os.open("ONE_MORE.MP4", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.close(fd)
        listing = volume_of(Path(directory), ListingLimits()).list_files()
        assert [(entry.path, entry.reason) for entry in listing.skipped] == [
            (b"", SkipReason.TOO_MANY)
        ]
        assert not listing.complete


def test_every_byte_may_be_in_a_name(root: Path, volume_of: MakeVolume) -> None:
    """INV-2."""
    names = [bytes([byte]) for byte in range(1, 256) if byte not in b"./"]
    for name in names:
        write(root, name, b"in " + name)
    volume = volume_of(root)
    assert paths(volume.list_files()) == names
    for name in names:
        with contextlib.closing(volume.open_file(name)) as file:
            assert file.read(100) == b"in " + name


def _fail(monkeypatch: pytest.MonkeyPatch, name: bytes, code: int) -> None:
    """Make every opening of this name fail."""
    real = os.open

    def failing(opened: bytes, flags: int, *, dir_fd: int | None = None) -> int:
        if opened == name:
            raise OSError(code, os.strerror(code))
        return real(opened, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", failing)
