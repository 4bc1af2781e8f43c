"""``dockd run``: what it says, and its exit code, when it cannot start."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.lifecycle import BayState
from dockd.evidence.keys import SigningKey
from dockd.journal.schema import MIGRATIONS
from dockd.ops import events
from dockd.store.layout import Layout
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults.processes import errors_beside
from tests.faults.site import Site, footage


async def refused(site: Site, exit_code: int) -> list[str]:
    """Run the daemon, which must not start; return what it says."""
    async with site.run() as dock:
        assert await dock.ended() == exit_code
        assert site.log.read_bytes() == b""
        errors = dock.errors()
    assert "Traceback" not in errors
    errors_beside(site.log).unlink()
    return errors.splitlines()


def changed(site: Site, old: str, new: str) -> None:
    text = site.config.read_text()
    assert old in text
    site.config.write_text(text.replace(old, new))


def test_as_it_is_called_in_real_life(tmp_path: Path) -> None:
    for command in ([sys.executable, "-m", "dockd"], [Path(sys.executable).parent / "dockd"]):
        missing = tmp_path / "missing.toml"
        ran = subprocess.run(
            [*command, "run", "-c", missing], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 2
        assert ran.stdout == ""
        assert ran.stderr.splitlines() == [f"{missing}: cannot be read: No such file or directory"]


FAULTS: dict[str, tuple[Callable[[Site], object], list[str]]] = {
    "bad TOML": (
        lambda site: site.config.write_text('[dock\nname = "x"'),
        ["is not TOML"],
    ),
    "not text": (lambda site: site.config.write_bytes(b"\xff\xfe"), ["is not TOML"]),
    "unknown key": (
        lambda site: changed(site, "[attention]", "[attention]\nretrys = 1"),
        ["attention.retrys: is not a key that dockd knows"],
    ),
    "unknown key with a line break": (
        lambda site: changed(site, "[attention]", '[attention]\n"a\\nb" = 1'),
        ["attention.a\\nb: is not a key that dockd knows"],
    ),
    "wrong type": (
        lambda site: changed(site, "retry_s = 0.5", 'retry_s = "soon"'),
        ["attention.retry_s: must be a valid number"],
    ),
    "missing folder": (lambda site: site.bay().rmdir(), ["bay[1].folder: "]),
    "two bays with one folder": (
        lambda site: changed(site, "[[bay]]", '[[bay]]\nname = "2"\nfolder = "bays/1"\n[[bay]]'),
        ["is already the folder of bay[1]"],
    ),
    "unreadable receipt key": (
        lambda site: site.store.receipt_public_key.write_text("no key"),
        ["target.receipt_key: "],
    ),
    "several at once": (
        lambda site: changed(site, "[attention]", "[surprise]\n[attention]\nagain = 1\n[log]\nx=1"),
        ["surprise", "attention.again", "log.x", "log.retry_s"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_faulty_configuration_is_named_key_by_key(site: Site, name: str) -> None:
    """Each problem on a line of its own, nothing on stdout, nothing made on the disk."""
    break_it, expected = FAULTS[name]
    break_it(site)
    said = await refused(site, exit_code=2)
    assert len(said) == len(expected)
    for line in said:
        assert line.startswith(f"{site.config}: ")
    for words in expected:
        assert any(words in line for line in said), said
    assert not site.state.state_dir.exists()


async def test_a_second_daemon_on_one_state_directory_is_turned_away(site: Site) -> None:
    async with site.run() as first:
        assert await first.said(events.DAEMON_STARTED)
        other = site.root / "other.log"
        async with type(first)("run", "-c", str(site.config), log=other) as second:
            assert await second.ended() == 1
            assert f"{site.state.state_dir} is in use by another process" in second.errors()
            assert other.read_bytes() == b""
        assert first.running
        assert await first.stop() == 0


async def test_a_private_key_that_others_may_read_is_refused(site: Site) -> None:
    async with site.run() as dock:
        assert await dock.said(events.DAEMON_STARTED)
        await dock.stop()
    site.log.unlink()
    site.state.key.chmod(0o644)
    (line, advice) = await refused(site, exit_code=1)
    assert str(site.state.key) in line
    assert "0644" in line
    assert advice.strip()


async def test_a_private_key_that_is_damaged_is_never_replaced(site: Site) -> None:
    """INV-4: what it signed could no longer be checked."""
    site.state.state_dir.mkdir()
    site.state.key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n")
    site.state.key.chmod(0o600)
    (line, _) = await refused(site, exit_code=1)
    assert str(site.state.key) in line
    assert site.state.key.read_bytes().endswith(b"AAAA\n")


async def test_a_journal_of_a_newer_version_is_left_alone(site: Site) -> None:
    site.state.state_dir.mkdir()
    with sqlite3.connect(site.state.journal) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    connection.close()
    before = site.state.journal.read_bytes()
    (line, _) = await refused(site, exit_code=1)
    assert re.search(f"schema version {len(MIGRATIONS) + 1}", line)
    assert site.state.journal.read_bytes() == before


async def test_a_state_directory_that_is_a_file_is_a_fault_of_the_configuration(site: Site) -> None:
    site.state.state_dir.write_text("")
    (line,) = await refused(site, exit_code=2)
    assert "dock.state_dir: " in line


async def test_a_damaged_journal_and_the_documented_way_out(tmp_path: Path) -> None:
    """INV-1, INV-3: moved aside, all is checked with the store anew, nothing is sent twice, and only
    proved footage is erased."""
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(tmp_path / "store", settings=settings) as store:
        site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"))
        site.prepare(store.url)
        changed(site, "[attention]", "[wipe]\nhold_s = 3600\n[attention]")
        site.plug(footage("dock-1", (9_000, 1_500_000, 0)))
        async with site.run() as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.HOLDING)
            assert await dock.stop() == 0
        site.log.unlink()
        journal = bytearray(site.state.journal.read_bytes())
        journal[4096 : len(journal) - 4096] = os.urandom(len(journal) - 8192)
        site.state.journal.write_bytes(journal)

        said = await refused(site, exit_code=1)
        assert str(site.state.journal) in said[0]
        assert "move the journal aside" in " ".join(said)
        assert site.state.journal.read_bytes() == journal

        for path in site.state.state_dir.glob("journal.sqlite*"):
            path.rename(site.root / path.name)
        changed(site, "hold_s = 3600", "hold_s = 0")
        async with site.run() as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY)
            assert await dock.stop() == 0
        assert site.on_camera() == {}
        site.check_nothing_lost()
        assert sorted(upload.path for upload in site.uploads()) == sorted(site.docked)


async def test_a_journal_that_is_moved_aside_alone_leaves_nothing_of_itself(tmp_path: Path) -> None:
    """INV-3, INV-4: what SQLite had beside it must not creep into the new one."""
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(tmp_path / "store", settings=settings) as store:
        site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"))
        site.prepare(store.url)
        site.plug(footage("dock-1", (9_000, 0)))
        async with site.run() as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY)
            dock.send(signal.SIGKILL)
            await dock.ended()
        assert site.state.journal.with_name("journal.sqlite-wal").stat().st_size > 0
        site.state.journal.rename(site.root / "journal.sqlite")
        async with site.run() as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY)
            assert await dock.stop() == 0
        happened = [entry["event"] for entry in site.custody()]
        assert happened[:2] == ["log.started", "visit.started"]
        assert happened.count("visit.started") == 1
        assert site.journalled() == []


async def test_a_store_key_that_does_not_fit_erases_nothing_until_it_is_put_right(
    tmp_path: Path,
) -> None:
    """INV-1."""
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(tmp_path / "store", settings=settings) as store:
        site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"))
        site.prepare(store.url)
        wrong = tmp_path / "wrong.pem"
        wrong.write_bytes(SigningKey(Ed25519PrivateKey.generate()).public.pem())
        changed(site, str(store.receipt_key), str(wrong))
        docked = footage("dock-1", (9_000, 0))
        site.plug(docked)
        async with site.run() as dock:
            assert await dock.said(events.RECEIPT_REFUSED)
            assert await dock.said(events.BAY_ATTENTION)
            assert await dock.stop() == 0
        assert site.on_camera() == docked
        changed(site, str(wrong), str(store.receipt_key))
        async with site.run() as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY)
            assert await dock.stop() == 0
        site.check_finished()
