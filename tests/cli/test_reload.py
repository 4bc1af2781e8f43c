"""SIGHUP: what can change does, what cannot is refused, and a broken file changes nothing."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dockd.core.lifecycle import BayState
from dockd.ops import events
from dockd.ops.status import ask_status
from dockd.store.layout import Layout
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults.processes import Dockd
from tests.faults.site import Site, footage
from tests.faults.triggers import Kill


def change(site: Site, old: str, new: str) -> None:
    text = site.config.read_text()
    assert old in text
    site.config.write_text(text.replace(old, new))


@asynccontextmanager
async def started(site: Site) -> AsyncIterator[Dockd]:
    async with site.run() as dock:
        assert await dock.said(events.DAEMON_STARTED)
        yield dock
        assert await dock.stop() == 0
        assert dock.errors() == ""


def lines(dock: Dockd, name: str) -> list[dict[str, Any]]:
    return [line for line in dock.lines() if line["event"] == name]


async def test_the_log_level_changes_at_once(site: Site) -> None:
    async with started(site) as dock:
        change(site, "[attention]", '[log]\nlevel = "error"\n[attention]')
        dock.send(signal.SIGHUP)
        await ask_status(site.state.socket)  # when it answers, it has heard the signal
        change(site, "[attention]", "[surprise]\n[attention]")
        dock.send(signal.SIGHUP)
        assert await dock.said(events.CONFIG_REFUSED)
        assert not lines(dock, "config.reloaded")  # an info, which is not logged any more


async def test_a_hold_that_is_shortened_holds_for_the_next_camera(tmp_path: Path) -> None:
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(tmp_path / "store", settings=settings) as store:
        site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"), ("1", "2"))
        site.prepare(store.url)
        change(site, "[attention]", "[wipe]\nhold_s = 3600\n[attention]")
        kept = footage("dock-1", (10,))
        site.plug(kept)
        async with started(site) as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.HOLDING, bay="1")
            change(site, "hold_s = 3600", "hold_s = 0\n[upload]\nstreams = 1")
            dock.send(signal.SIGHUP)
            assert await dock.said(events.CONFIG_RELOADED)
            site.plug({b"2.mp4": b"second"}, "cam-2", bay="2")
            assert await dock.said(events.BAY_STATE, state=BayState.READY, bay="2")
        assert site.on_camera("1") == kept
        assert site.on_camera("2") == {}


async def test_another_rate_acts_on_what_is_being_sent(tmp_path: Path) -> None:
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(tmp_path / "store", settings=settings) as store:
        site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"))
        site.prepare(store.url)
        change(site, "[attention]", "[upload]\nrate_mbit_s = 0.1\n[attention]")
        site.plug(footage("dock-1", (5_000_000,)))  # 400 s
        async with started(site) as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.INGESTING)
            change(site, "rate_mbit_s = 0.1", "")
            dock.send(signal.SIGHUP)
            assert await dock.said(events.BAY_STATE, state=BayState.READY)


async def test_a_signal_during_the_start_is_not_lost_and_does_no_harm(site: Site) -> None:
    async with site.run(Kill("commit", 1, sends=signal.SIGHUP)) as dock:
        assert await dock.said(events.CONFIG_RELOADED)
        assert await dock.stop() == 0


BROKEN = {
    "not TOML": ("[attention]", "[attention"),
    "unknown key": ("[attention]", "[attention]\nx = 1"),
    "another bay": ("[[bay]]", '[[bay]]\nname = "2"\nfolder = "bays/2"\n[[bay]]'),
    "another target": ("http://127.0.0.1:9/files/", "http://127.0.0.1:10/files/"),
    "another dock": ('name = "dock-1"', 'name = "dock-2"'),
    "another time to settle": ("settle_s = 0", "settle_s = 1"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_cannot_change_is_refused_and_the_old_one_stays(site: Site, name: str) -> None:
    (site.root / "bays/2").mkdir()
    good = site.config.read_text()
    async with started(site) as dock:
        change(site, *BROKEN[name])
        dock.send(signal.SIGHUP)
        assert await dock.said(events.CONFIG_REFUSED)
        (refused,) = lines(dock, "config.refused")
        assert len(refused["problems"]) == 1
        assert ("needs a restart" in refused["problems"][0]) is name.startswith("another")
        site.config.write_text(good)
        dock.send(signal.SIGHUP)
        assert await dock.said(events.CONFIG_RELOADED)
