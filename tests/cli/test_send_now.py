"""``dockd send-now`` with a daemon that is at work, and without one."""

import json
from pathlib import Path

import pytest

from dockd.cli.send_now import in_words
from dockd.core.lifecycle import BayState
from dockd.ops import events
from dockd.store.layout import Layout
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults.processes import Dockd
from tests.faults.site import Site, footage


async def send_now(site: Site, *arguments: str) -> tuple[int, str, str]:
    log = site.root / "send-now.log"
    log.unlink(missing_ok=True)
    async with Dockd("send-now", *arguments, "-c", str(site.config), log=log) as command:
        return await command.ended(), log.read_text(), command.errors()


async def test_a_camera_at_work_is_sent_first(tmp_path: Path) -> None:
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(tmp_path / "store", settings=settings) as store:
        site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"))
        site.prepare(store.url)
        text = site.config.read_text()
        slow = "[upload]\nrate_mbit_s = 0.1\n[attention]"
        site.config.write_text(text.replace("[attention]", slow))
        site.plug(footage("dock-1", (5_000_000, 9)))
        async with site.run() as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.INGESTING)
            code, output, errors = await send_now(site, "cam-1", "--json")
            assert (code, errors) == (0, "")
            assert json.loads(output)["found"] == "cam-1"
            assert await dock.said(events.UPLOAD_SEND_NOW, bay="1", what="cam-1")
            code, output, errors = await send_now(site, "nothing.mp4")
            assert (code, errors) == (1, "")
            assert output == "nothing.mp4: no bay has a camera or a recording of this name.\n"
            await dock.stop()


async def test_without_a_daemon_it_says_so(site: Site) -> None:
    code, output, errors = await send_now(site, "cam-1")
    assert (code, output) == (1, "")
    assert f"no daemon answers on {site.state.socket}" in errors


FOUND = {
    "what": "cam-1", "found": "cam-1", "bay": "3", "state": "ingesting", "waiting": 2,
    "candidates": [], "candidates_in_all": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "cam-1 (bay 3, ingesting): goes first now, with 2 still to be sent and proved."),
        ({"waiting": 0}, ("cam-1 (bay 3, ingesting): nothing waits to be sent now; "
                         "what still turns up there goes first.")),
        ({"found": None, "what": "a\x1b"},
         "a\\x1b: no bay has a camera or a recording of this name."),
        ({"found": None, "candidates": ["x/a", "y/a"], "candidates_in_all": 3},
         "cam-1: several have this name; choose one of:\n  x/a\n  y/a\n  and 1 more"),
    ],
)  # fmt: skip
def test_each_answer_has_words(changes: dict[str, object], words: str) -> None:
    assert in_words(FOUND | changes) == words
