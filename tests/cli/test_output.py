"""What a run of the daemon writes: one JSON object a line, one summary a visit, and no secrets."""

import base64
import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dockd.cli.main import app
from dockd.core.lifecycle import BayState
from dockd.ops import events
from dockd.ops.events import CATALOGUE
from dockd.store.layout import Layout
from dockd.store.serve import Store
from dockd.store.settings import StoreSettings
from tests.faults import front as fronts
from tests.faults.front import Front
from tests.faults.site import Site
from tests.faults.triggers import ShortPauses

SECRET = b"SECRET-FOOTAGE-" * 600
JWS = re.compile(r"[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}")


def forms(data: bytes) -> Iterator[str]:
    """Yield how a piece of data might appear in a line, wherever in base64 it begins."""
    yield data[:30].decode("latin-1")
    yield data[:30].hex()
    for shift in range(3):
        yield base64.b64encode(data[shift : shift + 30]).decode()
        yield base64.urlsafe_b64encode(data[shift : shift + 30]).decode()


async def test_lines_are_json_from_the_catalogue_and_hold_no_secret(tmp_path: Path) -> None:
    """Neither receipts, nor key material, nor footage, even when all kinds of things go wrong."""
    settings = StoreSettings(reserve_bytes=0)
    async with (
        Store.running(tmp_path / "store", settings=settings) as store,
        Front.before(store.url) as front,
    ):
        site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"))
        site.prepare(front.url)
        camera = site.plug({b"a.mp4": SECRET, b"b.mp4": SECRET * 200, b"c\n.mp4": b""})
        (camera / "link").symlink_to("nowhere")
        (camera / "a.mp4.sha256").write_text("0" * 64)
        site.docked[b"a.mp4.sha256"] = b"0" * 64
        async with site.run(ShortPauses()) as dock:
            for fault in (fronts.status(400), fronts.closes_half_way, fronts.is_a_portal):
                front.fault, front.faults = fault, 0
                await front.struck(5)
            front.fault = None
            assert await dock.said(events.SIDECAR_MISMATCH)
            assert await dock.said(events.RECORDING_CONFIRMED, recording="b.mp4")
            assert await dock.stop() == 0
            assert dock.errors() == ""
        text = site.log.read_text(encoding="ascii")
        assert check_lines(text) > 20
        assert not JWS.search(text)
        private = site.state.key.read_text().splitlines()[1]
        for form in (private, *forms(base64.b64decode(private)[-32:]), *forms(SECRET)):
            assert form not in text
        for upload in site.uploads():
            assert upload.receipt is None or upload.receipt not in text


def check_lines(text: str) -> int:
    """Check each line against the catalogue; return how many there are."""
    lines = text.splitlines()
    for line in lines:
        fields = json.loads(line)
        assert list(fields)[:3] == ["timestamp", "level", "event"]
        keys = set(fields) - {"timestamp", "level", "event", "exception"}
        assert keys == set(CATALOGUE[fields["event"]].keys)
        assert "exception" not in fields, fields
    return len(lines)


async def test_one_summary_for_each_visit(tmp_path: Path) -> None:
    settings = StoreSettings(reserve_bytes=0)
    async with Store.running(tmp_path / "store", settings=settings) as store:
        site = Site(tmp_path / "dock-1", Layout(tmp_path / "store"))
        site.prepare(store.url)
        for number in range(3):
            camera = site.plug({b"a.mp4": b"%d" % number}, f"cam-{number}")
            for _ in range(2):
                async with site.run() as dock:
                    state = BayState.READY
                    assert await dock.said(events.BAY_STATE, state=state, camera=f"cam-{number}")
                    assert await dock.stop() == 0
            camera.rename(site.root / f"gone-{number}")
        lines = [json.loads(line) for line in site.log.read_text().splitlines()]
        finished = [line for line in lines if line["event"] == "visit.finished"]
        assert Counter(line["camera"] for line in finished) == {"cam-0": 1, "cam-1": 1, "cam-2": 1}
        assert {line["verdict"] for line in finished} == {"wiped"}
        assert {(line["recordings"], line["erased"], line["bytes"]) for line in finished} == {
            (1, 1, 1)
        }


def test_on_a_terminal_lines_are_for_people(site: Site) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "dockd", "run", "-c", site.config], stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        while b"daemon.started" not in seen:
            seen += os.read(ours, 4096)
        process.terminate()
        assert process.wait(10) == 0
    os.close(ours)
    assert b'{"' not in seen


def commands(command: object, *path: str) -> Iterator[list[str]]:
    """Yield the words of a command, and those of all commands of a group."""
    yield list(path)
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *path, name)


@pytest.mark.parametrize("command", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert len(result.output.splitlines()) > 5
