"""A real store, a real dock and the commands that make them known to each other, as processes."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dockd.core.lifecycle import BayState
from dockd.evidence.certificates import load_certificates
from dockd.evidence.custody import verify_chain
from dockd.evidence.keys import load_signing_key, load_verifying_key, public_key_path
from dockd.journal.journal import read_custody
from dockd.ops import events
from dockd.ops.status import DaemonNotRunningError, ask_status
from dockd.store.ca import load_authority
from dockd.store.layout import Layout, read_store_id
from tests.faults.processes import Dockd
from tests.faults.site import Site, footage
from tests.faults.triggers import ShortPauses
from tests.store.tus import until

_CONFIG = """\
[dock]
name = "{dock}"
state_dir = "state"
[target]
stall_timeout_s = 2
[cameras]
settle_s = 0
reconcile_s = 0.2
[wipe]
hold_s = {hold_s}
[attention]
retry_s = 0.5
[[bay]]
name = "1"
folder = "bays/1"
"""


@dataclass
class Premises:
    """A folder with a store and a dock in it."""

    root: Path
    dock: Site
    hold_s: float = 0

    @property
    def store(self) -> Layout:
        return self.dock.store

    def prepare(self) -> None:
        self.dock.bay().mkdir(parents=True)
        text = _CONFIG.format(dock=self.dock.dock, hold_s=self.hold_s)
        self.dock.config.write_text(text)

    async def do(self, *arguments: str, code: int = 0) -> list[str]:
        """Run a command to its end and return what it printed."""
        log = self.root / f"command-{len(list(self.root.glob('command-*')))}.log"
        async with Dockd(*arguments, log=log) as command:
            assert await command.ended() == code, command.errors()
            return log.read_text().splitlines() + command.errors().splitlines()

    async def at_store(self, command: str, *arguments: str, code: int = 0) -> list[str]:
        return await self.do(
            "store", command, "--data", str(self.store.root), *arguments, code=code
        )

    async def token(self, *arguments: str) -> str:
        return (await self.at_store("token", "--dock", self.dock.dock, *arguments))[0]

    async def enroll(self, url: str, token: str, *arguments: str, code: int = 0) -> list[str]:
        """Enrol the dock."""
        where = ("-c", str(self.dock.config))
        return await self.do("enroll", *where, url, token, *arguments, code=code)

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[str]:
        """Run the store, and yield its address."""
        log = self.root / "store.log"
        listen = ("--listen", f"127.0.0.1:{port}", "--reserve-mib", "0")
        data = ("--data", str(self.store.root))
        async with Dockd("store", "serve", *data, *listen, log=log) as store:
            assert await store.said(events.STORE_STARTED), store.errors()
            yield next(line["url"] for line in store.lines() if "url" in line)

    async def bay(self) -> Mapping[str, Any]:
        status = await ask_status(self.dock.state.socket)
        bay: Mapping[str, Any] = status["bays"][0]
        return bay


@pytest.fixture
async def premises(tmp_path: Path) -> Premises:
    site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"))
    made = Premises(tmp_path, site)
    made.prepare()
    names = ("--name", "127.0.0.1", "--name", "localhost")
    await made.at_store("init", *names)
    return made


async def enrolled(premises: Premises, url: str) -> None:
    await premises.enroll(url, await premises.token())


async def until_bay(premises: Premises, what: str, value: str, within_s: float = 20) -> None:
    async def is_so() -> bool:
        with contextlib.suppress(DaemonNotRunningError):
            return value in str((await premises.bay())[what])
        return False

    async with asyncio.timeout(within_s):
        await until(is_so)


async def test_from_nothing_to_ready_and_turned_away(premises: Premises) -> None:
    """INV-1, INV-4: over mTLS a dock does its whole job; revoked, it waits, and the bay says why."""
    site = premises.dock
    async with premises.serving() as url:
        await enrolled(premises, url)
        site.plug(footage(site.dock, [0, 10, 300_000, 2_000_000]))
        async with site.run(ShortPauses()) as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY), dock.errors()
            assert site.on_camera() == {}
            site.check_nothing_lost()

            await premises.at_store("revoke", site.dock)
            more = footage("more", [10, 20])
            site.plug(more, camera="cam-2")
            (site.bay() / "cam-1").rename(site.root / "cam-1")
            await until_bay(premises, "reason", f"dock '{site.dock}' was revoked")
            assert site.on_camera() == more
            assert await dock.stop() == 0
    happened = site.check_custody()
    assert happened[:2] == ["log.started", "dock.enrolled"]
    note = site.custody()[1]["details"]
    assert note["store"] == read_store_id(premises.store)
    pinned = site.root / "enrolled"
    assert {path.name for path in pinned.iterdir()} == {"store.json", "ca.pem", "receipt-key.pem"}
    assert {path.stat().st_mode & 0o777 for path in pinned.iterdir()} == {0o644}


async def test_a_revoked_dock_that_is_enrolled_again_goes_on(premises: Premises) -> None:
    site = premises.dock
    async with premises.serving() as url:
        await enrolled(premises, url)
        await premises.at_store("revoke", site.dock)
        site.plug(footage(site.dock, [10]))
        async with site.run(ShortPauses()) as dock:
            await until_bay(premises, "reason", "was revoked")
            await premises.enroll(url, await premises.token("--again"))
            assert await dock.said(events.BAY_STATE, state=BayState.READY), dock.errors()


async def test_the_receipt_key_changes_while_a_proof_waits_for_its_hold(tmp_path: Path) -> None:
    """INV-1: receipts of the old key erase after the change as before, and those of the new one, too."""
    site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"))
    premises = Premises(tmp_path, site, hold_s=4)
    premises.prepare()
    await premises.at_store("init", "--name", "127.0.0.1")
    async with premises.serving() as url:
        await enrolled(premises, url)
        site.plug(footage(site.dock, [10, 300_000]))
        async with site.run(ShortPauses()) as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.HOLDING), dock.errors()
            await premises.at_store("rotate-receipt-key")
            assert await dock.said(events.BAY_STATE, state=BayState.READY), dock.errors()
            assert site.on_camera() == {}
            (site.bay() / "cam-1").rename(site.root / "cam-1")
            await until_bay(premises, "state", BayState.EMPTY)
            site.plug(footage("more", [10, 20]), camera="cam-2")
            assert await dock.said(events.DOCK_RECEIPT_KEY), dock.errors()
            ready = await dock.said(events.BAY_STATE, state=BayState.READY, camera="cam-2")
            assert ready, dock.errors()
            assert site.on_camera() == {}
            assert await dock.stop() == 0
        # What was learnt is there after a restart, and the store answers for both keys.
        site.plug(footage("even more", [10]), camera="cam-3")
        (site.bay() / "cam-2").rename(site.root / "cam-2")
        async with site.run(ShortPauses()) as dock:
            ready = await dock.said(events.BAY_STATE, state=BayState.READY, camera="cam-3")
            assert ready, dock.errors()
            assert site.on_camera() == {}
            assert await dock.stop() == 0


async def test_a_certificate_near_its_end_is_renewed_by_itself(premises: Premises) -> None:
    site = premises.dock
    certificate = site.state.state_dir / "dock-certificate.pem"
    async with premises.serving() as url:
        await enrolled(premises, url)
        authority = load_authority(premises.store)
        key = load_signing_key(site.state.key)
        assert authority is not None
        assert key is not None
        long_ago = datetime.now(UTC) - timedelta(days=80)
        old = authority.certify_dock(site.dock, key.public, long_ago)
        certificate.write_bytes(old.public_bytes(Encoding.PEM))
        async with site.run(ShortPauses()) as dock:
            assert await dock.said(events.DOCK_CERTIFIED), dock.errors()
            assert await dock.said(events.TARGET_FILES_RELOADED), dock.errors()
            site.plug(footage(site.dock, [10]))
            assert await dock.said(events.BAY_STATE, state=BayState.READY), dock.errors()
            assert await dock.stop() == 0
    until = load_certificates(certificate)[0].not_valid_after_utc
    assert until - datetime.now(UTC) > timedelta(days=89)


async def test_a_token_for_another_store_is_not_used_up(premises: Premises, tmp_path: Path) -> None:
    other = Premises(tmp_path / "other", Site(tmp_path / "other/dock", Layout(tmp_path / "o")))
    other.root.mkdir()
    await other.at_store("init", "--name", "127.0.0.1")
    token = await premises.token()
    async with other.serving() as url:
        words = " ".join(await premises.enroll(url, token, code=1))
        assert "this is not the store that the token is from" in words
    async with premises.serving() as url:
        await premises.enroll(url, token)


async def test_another_store_only_with_a_reason_while_footage_waits(
    premises: Premises, tmp_path: Path
) -> None:
    """INV-2: what one store has not confirmed is not forgotten by changing to another."""
    site = premises.dock
    other = Premises(tmp_path / "other", Site(tmp_path / "other/dock-1", Layout(tmp_path / "o")))
    other.root.mkdir()
    await other.at_store("init", "--name", "127.0.0.1")
    async with premises.serving() as url:
        await enrolled(premises, url)
    site.plug(footage(site.dock, [10, 20, 30]))
    async with site.run(ShortPauses()) as dock:
        assert await dock.said(events.BAY_STATE, state=BayState.INGESTING)
        async with other.serving() as url:
            token = await other.token()
            refused = " ".join(await premises.enroll(url, token, code=1))
            assert "3 recordings are not confirmed by store-" in refused
            await premises.enroll(url, token, "--force", "the first store has burnt down")
            assert await dock.stop() == 0
            async with site.run(ShortPauses()) as again:
                assert await again.said(events.BAY_STATE, state=BayState.READY), again.errors()
                assert await again.stop() == 0
    assert site.on_camera() == {}
    key = load_verifying_key(public_key_path(site.state.key))
    assert verify_chain(read_custody(site.state.journal), key, []).sound, "written by two processes"
    notes = [entry["details"] for entry in site.custody() if entry["event"] == "dock.enrolled"]
    assert (notes[-1]["forced"], notes[-1]["unconfirmed_elsewhere"]) == (
        "the first store has burnt down",
        3,
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
async def test_root_leaves_nothing_behind_that_services_cannot_read(premises: Premises) -> None:
    site, nobody = premises.dock, 65534
    for directory in (premises.root, *premises.root.parents[:-1]):
        directory.chmod(directory.stat().st_mode | 0o011)
    async with premises.serving() as url:
        await enrolled(premises, url)
    site.state.state_dir.chmod(0o700)
    for directory in (premises.store.root, site.state.state_dir):
        for path in (directory, *directory.rglob("*")):
            os.chown(path, nobody, nobody)
    premises.store.docks.unlink()
    await premises.at_store("token", "--dock", "dock-2")
    await premises.at_store("rotate-receipt-key")
    await premises.at_store("init", "--name", "127.0.0.1")
    assert {path.stat().st_uid for path in premises.store.root.iterdir()} == {nobody}
    (site.state.state_dir / "dock-certificate.pem").unlink()
    async with premises.serving() as url:
        await enrolled(premises, url)
    assert {path.stat().st_uid for path in site.state.state_dir.iterdir()} == {nobody}
    assert (site.root / "enrolled").stat().st_uid == 0


async def test_the_list_of_docks(premises: Premises) -> None:
    async with premises.serving() as url:
        await enrolled(premises, url)
    (dock,) = json.loads("".join(await premises.at_store("docks", "--json")))
    assert (dock["dock"], dock["state"]) == (premises.dock.dock, "enrolled")
    assert "enrolled" in "".join(await premises.at_store("docks"))
    refused = await premises.at_store("token", "--dock", premises.dock.dock, code=1)
    assert "is enrolled already" in refused[0]
    assert "is enrolled" in (await premises.at_store("revoke", "nobody", code=1))[0]
