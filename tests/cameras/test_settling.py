"""When a file counts as finished."""

from datetime import timedelta

from dockd.cameras.settling import Settling
from dockd.core.model import FileStat, ListedFile
from tests.simulated.proofs import ManualClock

CAMERA = b"/bays/1/BWC-7"


class Watched:
    """One file of one camera, and a clock."""

    def __init__(self, *, max_files: int = 100) -> None:
        self.clock = ManualClock()
        self.settling = Settling(2.0, self.clock, max_files)
        self.size_bytes = 10
        self.mtime_ns = self.ns()

    def ns(self, ago_s: float = 0) -> int:
        return int((self.clock.now() - timedelta(seconds=ago_s)).timestamp() * 1e9)

    def write(self) -> None:
        self.size_bytes += 1
        self.mtime_ns = self.ns()

    def settled(self, path: bytes = b"clip") -> bool:
        file = ListedFile(path, FileStat(self.size_bytes, self.mtime_ns, 0, 1))
        return not self.settling.unsettled(CAMERA, [file])


def test_a_file_counts_when_it_has_held_still() -> None:
    file = Watched()
    assert not file.settled()
    file.clock.pass_time(1.9)
    assert not file.settled()
    file.clock.pass_time(0.1)
    assert file.settled()


def test_each_change_starts_the_wait_anew() -> None:
    file = Watched()
    for _ in range(5):
        assert not file.settled()
        file.clock.pass_time(1.5)
        file.write()
    assert not file.settled()
    file.clock.pass_time(2)
    assert file.settled()
    file.write()
    assert not file.settled(), "written to again"


def test_a_file_that_is_old_at_first_sight_counts_at_once() -> None:
    file = Watched()
    file.mtime_ns = file.ns(ago_s=2)
    assert file.settled()


def test_a_file_that_changes_keeping_its_old_time_waits_all_the_same() -> None:
    file = Watched()
    file.mtime_ns = file.ns(ago_s=3600)
    assert file.settled()
    file.size_bytes += 1
    assert not file.settled()


def test_a_time_in_the_future_is_no_reason_to_wait_for_it() -> None:
    file = Watched()
    file.mtime_ns = file.ns(ago_s=-3600)
    assert not file.settled()
    file.clock.pass_time(2)
    assert file.settled()


def test_a_wall_clock_that_jumps_changes_nothing_seen_before() -> None:
    file = Watched()
    assert not file.settled()
    file.clock.time += timedelta(days=365)
    assert not file.settled()


def test_a_closed_file_counts_at_once_until_it_is_written_to() -> None:
    file = Watched()
    file.settling.closed(CAMERA + b"/clip")
    assert file.settled()
    file.settling.changed(CAMERA + b"/clip")
    file.write()
    assert not file.settled()


def test_a_renamed_file_keeps_what_is_known_of_it() -> None:
    file = Watched()
    file.settling.closed(CAMERA + b"/clip.part")
    file.settling.moved(CAMERA + b"/clip.part", CAMERA + b"/clip")
    assert file.settled()
    file.settling.moved(CAMERA + b"/unfinished", CAMERA + b"/clip")
    assert not file.settled()
    file.settling.closed(CAMERA + b"/other")
    file.settling.moved(CAMERA + b"/clip", CAMERA + b"/other")
    assert not file.settled(b"other")


def test_cameras_that_left_are_forgotten() -> None:
    file = Watched()
    file.settling.closed(CAMERA + b"/clip")
    assert file.settled()
    file.settling.keep_only([CAMERA])
    assert file.settled()
    file.settling.keep_only([CAMERA + b"-2", b"/bays/2/BWC-8"])
    assert not file.settled()


def test_memory_is_bounded() -> None:
    """INV-8: what is not remembered settles by holding still."""
    file = Watched(max_files=1)
    file.settling.closed(CAMERA + b"/other")
    file.settling.closed(CAMERA + b"/clip")
    assert not file.settled()
