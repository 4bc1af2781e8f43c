"""``dockd status``: with a daemon, without one, and when the rest of the configuration is broken."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dockd.cli.status import status_table
from dockd.core.lifecycle import BayState
from dockd.ops import events
from dockd.store.layout import Layout
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults.processes import Dockd
from tests.faults.site import Site, footage


async def status(site: Site, *options: str) -> tuple[int, str, str]:
    """Run the command; return its exit code, output and errors."""
    log = site.root / "status.log"
    log.unlink(missing_ok=True)
    async with Dockd("status", "-c", str(site.config), *options, log=log) as command:
        code = await command.ended()
        return code, log.read_text(), command.errors()


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_without_a_daemon_it_says_so(site: Site, options: tuple[str, ...]) -> None:
    code, output, errors = await status(site, *options)
    assert (code, output) == (1, "")
    assert f"no daemon answers on {site.state.socket}" in errors
    assert "dockd run" in errors


async def test_a_socket_that_a_killed_daemon_left_is_no_daemon(site: Site) -> None:
    async with site.run() as dock:
        assert await dock.said(events.DAEMON_STARTED)
    assert site.state.socket.exists()
    code, output, errors = await status(site)
    assert (code, output) == (1, "")
    assert "no daemon answers" in errors


async def test_with_a_daemon_it_shows_each_bay(tmp_path: Path) -> None:
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(tmp_path / "store", settings=settings) as store:
        site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"), ("1", "2"))
        site.prepare(store.url)
        site.plug(footage("dock-1", (10, 9_000)), "odd\nname \x1b[31m")
        async with site.run() as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY)
            code, output, errors = await status(site, "--json")
            assert (code, errors) == (0, "")
            first, second = json.loads(output)["bays"]
            assert (first["state"], first["camera"]) == ("ready", "odd\\nname \\x1b[31m")
            assert first["recordings"]["erased"] == 2
            assert (second["state"], second["camera"]) == ("empty", None)
            code, output, errors = await status(site)
            assert (code, errors) == (0, "")
            assert "2 of 2 proved" in output
            assert "\x1b" not in output
            await dock.stop()


def test_the_time_left_is_for_people() -> None:
    bay: dict[str, Any] = {
        "bay": "1", "camera": "cam-1", "state": "ingesting", "reason": None, "crowded_by": [],
        "skipped": 0, "bytes": 100, "bytes_sent": 40, "seconds_left": 3720,
    }  # fmt: skip
    sending = {"bytes_left": 60_000_000, "mbit_s": 19.5, "limit_mbit_s": 20, "seconds_left": 119}
    console = Console(width=200, file=StringIO())
    console.print(status_table({"dock": "dock-1", "sending": sending, "bays": [bay]}))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "dock dock-1: 60 MB left, at 19.5 Mbit/s, of 20 allowed, done in 1 min" in shown
    assert "40 % of 100 B, 1 h 02 min left" in shown


async def test_a_lost_bay_folder_is_no_reason_not_to_answer(site: Site) -> None:
    async with site.run() as dock:
        assert await dock.said(events.DAEMON_STARTED)
        site.bay().rmdir()
        code, output, _ = await status(site, "--json")
        assert code == 0
        assert json.loads(output)["dock"] == site.dock


async def test_a_file_that_names_no_dock_is_exit_code_2(site: Site) -> None:
    site.config.write_text('[dock]\nname = "x"\n')
    code, output, errors = await status(site)
    assert (code, output) == (2, "")
    assert errors.splitlines() == [f"{site.config}: dock.state_dir: is missing"]
