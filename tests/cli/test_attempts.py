"""``dockd attempts``: from the journal of a dock, at work or not."""

import json

import pytest

from dockd.core.lifecycle import BayState
from dockd.ops import events
from tests.faults.processes import Dockd
from tests.faults.site import Site, footage


async def attempts(site: Site, *arguments: str) -> tuple[int, str, str]:
    log = site.root / "attempts.log"
    log.unlink(missing_ok=True)
    async with Dockd("attempts", *arguments, "-c", str(site.config), log=log) as command:
        return await command.ended(), log.read_text(), command.errors()


async def test_attempts_at_a_store_that_is_away(site: Site) -> None:
    site.plug(footage("dock-1", (9,)))
    async with site.run() as dock:
        assert await dock.said(events.BAY_STATE, state=BayState.INGESTING)
        assert await dock.said(events.UPLOAD_RETRY)
        code, output, errors = await attempts(site, "cam-1", "--json")
        assert (code, errors) == (0, "")
        first = json.loads(output)[0]
        assert (first["camera"], first["attempt"], first["sent_bytes"]) == ("cam-1", 1, 0)
        assert "no connection" in first["error"]
        code, output, errors = await attempts(site, first["recording"])
        assert (code, errors) == (0, "")
        assert "cam-1/" in output
        await dock.stop()


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_nothing_known_of_it(site: Site, options: tuple[str, ...]) -> None:
    async with site.run() as dock:
        assert await dock.said(events.DAEMON_STARTED)
        await dock.stop()
    code, output, errors = await attempts(site, "cam-9", *options)
    assert (code, errors) == (1, "")
    assert output == (
        "[]\n" if options else "The journal has no attempt to send anything of this name.\n"
    )


async def test_no_journal(site: Site) -> None:
    code, output, errors = await attempts(site, "cam-9")
    assert (code, output) == (1, "")
    assert "journal.sqlite" in errors
