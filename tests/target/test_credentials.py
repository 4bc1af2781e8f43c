"""Files that change while the dock runs: new connections use them, broken ones change nothing."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from watchdog.observers.inotify import InotifyObserver

from dockd.core.errors import KeyFileError, TargetUnavailableError
from dockd.target import credentials as module
from dockd.target.connection import Connection
from dockd.target.credentials import Credentials
from dockd.target.tus import TusTarget
from tests.certificates import Authority
from tests.target.dock_side import events_named, logged
from tests.target.sockets import OFFERS, saying, serving

SETTLE_S = 0.02


@pytest.fixture
def way(tmp_path: Path) -> Connection:
    authority = Authority.new()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    certificate, key = authority.issue("dock-1").write(tmp_path, "dock")
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("first\n")
    return Connection(
        ca_file=tmp_path / "ca.pem",
        certificate=certificate,
        private_key=key,
        proxy="http://dock@proxy:3128",
        proxy_password_file=password,
    )


def replace_file(file: Path, content: bytes) -> None:
    new = file.with_name("new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(file)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what is waited for happens in several places)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def following(way: Connection) -> AsyncIterator[tuple[Credentials, list[object]]]:
    with logged() as lines:
        async with Credentials(way, settle_s=SETTLE_S) as credentials:
            yield credentials, lines


async def test_a_renewed_certificate_is_used(way: Connection, tmp_path: Path) -> None:
    async with following(way) as (credentials, lines):
        before = credentials.tls
        renewed = Authority.new().issue("dock-1")
        assert way.certificate is not None
        assert way.private_key is not None
        replace_file(way.certificate, renewed.certificate_pem)
        replace_file(way.private_key, renewed.key_pem)
        await until(lambda: credentials.tls is not before)
        assert events_named(lines, "target.files_reloaded")
        assert not events_named(lines, "target.files_refused")


async def test_a_file_written_in_place_is_noticed_too(way: Connection) -> None:
    async with following(way) as (credentials, _):
        before = credentials.proxy_headers
        assert way.proxy_password_file is not None
        way.proxy_password_file.write_text("second\n")
        await until(lambda: credentials.proxy_headers != before)


async def test_broken_files_change_nothing_until_they_are_mended(way: Connection) -> None:
    async with following(way) as (credentials, lines):
        before = credentials.tls
        assert way.ca_file is not None
        good = way.ca_file.read_bytes()
        replace_file(way.ca_file, b"not a certificate")
        await until(lambda: events_named(lines, "target.files_refused"))
        assert credentials.tls is before
        way.ca_file.unlink()
        await until(lambda: len(events_named(lines, "target.files_refused")) == 2)
        assert credentials.tls is before
        replace_file(way.ca_file, good)
        await until(lambda: credentials.tls is not before)
        first, second = events_named(lines, "target.files_refused")
        assert first["problem"].endswith("ca.pem: not a certificate in PEM")
        assert second["problem"].endswith("ca.pem: No such file or directory")


async def test_a_key_of_another_certificate_is_never_shown(way: Connection) -> None:
    async with following(way) as (credentials, lines):
        before = credentials.tls
        assert way.private_key is not None
        replace_file(way.private_key, Authority.new().issue("dock-1").key_pem)
        await until(lambda: events_named(lines, "target.files_refused"))
        assert credentials.tls is before


async def test_a_password_is_in_no_log(way: Connection) -> None:
    assert way.proxy_password_file is not None
    async with following(way) as (_, lines):
        way.proxy_password_file.write_bytes(b"hidden\xff\n")
        await until(lambda: events_named(lines, "target.files_refused"))
        assert "hidden" not in str(lines)
    with pytest.raises(KeyFileError, match="not text in UTF-8") as caught:
        async with Credentials(way):
            pass
    assert caught.value.__cause__ is None


async def test_without_inotify_the_files_are_looked_at_now_and_then(
    way: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(InotifyObserver, "schedule", refuse)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    async with following(way) as (credentials, lines):
        before = credentials.tls
        (told,) = events_named(lines, "target.files_unwatched")
        assert told["reason"] == "inotify instance limit reached"
        assert way.ca_file is not None
        replace_file(way.ca_file, way.ca_file.read_bytes())
        await until(lambda: credentials.tls is not before)


async def test_nothing_is_left_behind(way: Connection) -> None:
    async with Credentials(way):
        pass
    before = own_threads(), open_files()
    for _ in range(3):
        async with Credentials(way):
            pass
    assert (own_threads(), open_files()) == before


def own_threads() -> int:
    """All but those that asyncio keeps for the next blocking call."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("broken", ["ca_file", "certificate", "private_key", "proxy_password_file"])
async def test_a_broken_file_at_the_start_is_an_error_and_leaves_nothing(
    way: Connection, broken: str
) -> None:
    file: Path = getattr(way, broken)
    file.chmod(0o604)
    file.write_bytes(b"\xff")
    with pytest.raises(KeyFileError, match=file.name):
        async with TusTarget("https://127.0.0.1:1/files/", connection=way):
            pass


async def test_new_connections_trust_the_new_authority_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store moves to another authority: docks that have got its file go on by themselves."""
    monkeypatch.setattr("dockd.target.tus.Credentials", partial(Credentials, settle_s=SETTLE_S))
    old, new = Authority.new("old"), Authority.new("new")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(old.pem)
    connection = Connection(ca_file=ca_file)
    tls = new.server_context(tmp_path)
    with logged() as lines:
        async with (
            serving(saying(OFFERS), tls=tls) as url,
            TusTarget(url, connection=connection) as target,
        ):
            with pytest.raises(TargetUnavailableError):
                await target.discover()
            replace_file(ca_file, old.pem + new.pem)
            await until(lambda: events_named(lines, "target.files_reloaded"))
            assert (await target.discover()).receipts
