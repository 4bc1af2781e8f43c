import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dockd.core.errors import AlreadyRunningError
from dockd.journal import durable

OLD, NEW = b"the old content", b"the new content, which is longer"


class FailingOs:
    """Counts the calls that change or sync something, and fails one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int) -> None:
        self.calls: list[str] = []
        self._fail_at = fail_at
        for name in ("open", "write", "fsync", "close", "rename", "unlink"):
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    @property
    def failed(self) -> bool:
        return len(self.calls) >= self._fail_at

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) == self._fail_at:
                if name == "close":
                    real(*args, **kwargs)
                raise OSError(errno.EIO, "injected")
            return real(*args, **kwargs)

        return call


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("existing", [OLD, None])
def test_write_that_fails_anywhere_leaves_old_or_new_content(
    tmp_path: Path, existing: bytes | None
) -> None:
    """INV-3: whichever step fails, there is no mixture, no leftover and no open file."""
    before = open_descriptors()
    for fail_at in range(1, 100):
        path = tmp_path / str(fail_at) / "file"
        path.parent.mkdir()
        if existing is not None:
            path.write_bytes(existing)
        with pytest.MonkeyPatch.context() as monkeypatch:
            failing = FailingOs(monkeypatch, fail_at)
            if failed := _fails(partial(durable.write_file, path, NEW)):
                assert failing.failed
        content = path.read_bytes() if path.exists() else None
        assert content in (existing, NEW)
        assert [file.name for file in path.parent.iterdir()] == ["file"] * (content is not None)
        assert open_descriptors() == before
        if not failed:
            assert content == NEW
            break
    else:
        pytest.fail("it never got through")
    assert fail_at > 7


def _fails(action: Callable[[], None]) -> bool:
    try:
        action()
    except OSError:
        return True
    return False


def test_order_is_write_sync_rename_sync_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-3: content is durable before the name, and the name before the return."""
    watched = FailingOs(monkeypatch, fail_at=1000)
    durable.write_file(tmp_path / "file", NEW)
    steps = ["open", "write", "fsync", "close", "rename", "open", "fsync", "close"]
    assert watched.calls == steps


def test_failed_fsync_is_not_repeated(tmp_path: Path) -> None:
    """INV-3: a second fsync may report success for bytes that are gone."""
    for fail_at in (3, 7):
        with pytest.MonkeyPatch.context() as monkeypatch:
            failing = FailingOs(monkeypatch, fail_at)
            with pytest.raises(OSError, match="injected"):
                durable.write_file(tmp_path / "file", NEW)
        assert failing.calls[fail_at - 1] == "fsync"
        assert "fsync" not in failing.calls[fail_at:]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    durable.write_file(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW


def test_mode_and_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    durable.write_file(path, NEW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == NEW


def test_interruption_leaves_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        durable.write_file(tmp_path / "file", NEW)
    assert list(tmp_path.iterdir()) == []


def test_first_error_is_reported_when_the_temporary_cannot_be_removed_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    def stuck(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "stuck")

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "unlink", stuck)
    with pytest.raises(OSError, match="full"):
        durable.write_file(tmp_path / "file", NEW)


def test_publish_that_fails_anywhere_leaves_the_file_under_one_name(tmp_path: Path) -> None:
    """INV-3: the finished file is whole under its old or its new name, never gone."""
    for fail_at in range(1, 100):
        part, final = tmp_path / f"{fail_at}.part", tmp_path / str(fail_at)
        part.write_bytes(NEW)
        with pytest.MonkeyPatch.context() as monkeypatch:
            failing = FailingOs(monkeypatch, fail_at)
            failed = _fails(partial(durable.publish, part, final))
        assert part.exists() != final.exists()
        assert (part if part.exists() else final).read_bytes() == NEW
        if not failed:
            assert final.exists()
            break
    steps = ["open", "fsync", "close", "rename", "open", "fsync", "close"]
    assert failing.calls == steps


def test_second_lock_on_a_directory_is_refused_until_the_first_is_released(tmp_path: Path) -> None:
    before = open_descriptors()
    with durable.DirectoryLock(tmp_path):
        with (
            pytest.raises(AlreadyRunningError, match="in use"),
            durable.DirectoryLock(tmp_path),
        ):
            pytest.fail("two at once")
        assert open_descriptors() == before + 1
    with durable.DirectoryLock(tmp_path):
        pass
    assert open_descriptors() == before
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """INV-3: such a file may hold half a private key."""
    kept = {tmp_path / "key.pem", tmp_path / "notes.tmp", tmp_path / ".hidden"}
    for path in (*kept, tmp_path / ".0123456789abcdef.tmp"):
        path.write_bytes(OLD)
    durable.remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == kept
