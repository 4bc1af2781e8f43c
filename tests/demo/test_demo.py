"""The demo itself, with real processes, at a small scale."""

import asyncio
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from dockd.cli.demo import show_demo
from dockd.demo.footage import BIG_CAMERA, Made
from dockd.demo.processes import DemoError, Process, run_command
from dockd.demo.scenario import _Big
from dockd.demo.stage import Paths, Scale, _check_bays
from dockd.journal.durable import DirectoryLock

SMALL = Scale(footage_bytes=24_000_000, rate_bytes_s=12_000_000, outage_s=0.2)


class Lines(io.StringIO):
    """What the demo prints; says when a word has come."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word_came = asyncio.Event()
        self._word = word

    def write(self, text: str, /) -> int:
        if self._word in text:
            self.word_came.set()
        return super().write(text)


async def test_the_demo_passes_every_check_and_survives_both_interruptions(tmp_path: Path) -> None:
    """INV-1, INV-2, INV-3, INV-4: checked from outside by the demo's own checks."""
    printed = io.StringIO()
    passed = await show_demo(Console(file=printed, width=100), tmp_path, SMALL)
    text = printed.getvalue()
    assert passed, text
    assert "network cut, with" in text
    assert "daemon killed (SIGKILL), with" in text
    assert "FAILED" not in text
    assert "12 of 12" in text


async def test_the_demo_that_is_ended_half_way_leaves_no_process_behind(tmp_path: Path) -> None:
    printed = Lines("network cut")
    demo = asyncio.create_task(show_demo(Console(file=printed), tmp_path, SMALL))
    async with asyncio.timeout(60):
        await printed.word_came.wait()
    demo.cancel()
    with pytest.raises(asyncio.CancelledError):
        await demo
    paths = Paths(tmp_path)
    # Each held its directory's lock for as long as it lived.
    with DirectoryLock(paths.store.root), DirectoryLock(paths.state.state_dir):
        pass
    assert any(path.is_file() for path in paths.bay("1").rglob("*"))


async def test_a_disk_without_room_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="set TMPDIR"):
        await show_demo(Console(file=io.StringIO()), tmp_path, Scale(10**18, 1.0, 1.0))
    assert list(tmp_path.iterdir()) == []


async def test_a_process_that_does_not_come_up_is_told_with_its_last_lines(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    process = await Process.start("dockd run", "run", "-c", str(missing), log=tmp_path / "log")
    assert await process.wait() == 2
    with pytest.raises(DemoError, match=r"(?s)exit code 2.*missing\.toml: cannot be read"):
        process.check_running()


async def test_a_command_says_what_it_printed_and_how_it_ended() -> None:
    said = await run_command("check-config", "/nonexistent/dock.toml")
    assert said.exit_code == 2
    assert "cannot be read" in said.output
    assert (await run_command("nonsense")).errors != ""


BIG = Made(BIG_CAMERA, b"1.MP4", 1000, "00" * 32, flagged=False, truncated=False)
SMALL_ONE = Made(BIG_CAMERA, b"2.MP4", 100, "11" * 32, flagged=False, truncated=False)


@pytest.mark.parametrize(
    ("sent_bytes", "at_least"), [(0, None), (100, None), (101, 1), (999, 899), (1000, None)]
)
def test_only_a_recording_that_is_partly_sent_is_in_mid_upload(
    sent_bytes: int, at_least: int | None
) -> None:
    stage = SimpleNamespace(made=(BIG, SMALL_ONE), bay_of={BIG_CAMERA: "1"})
    big = _Big(stage)  # type: ignore[arg-type]
    status = {"bays": [{"bay": "1", "state": "ingesting", "bytes_sent": sent_bytes}]}
    if at_least is None:
        with pytest.raises(DemoError, match="not in mid-upload"):
            big.check_mid_upload(status)
    else:
        assert big.check_mid_upload(status) == at_least


def test_a_bay_that_needs_a_person_ends_the_demo_with_its_reason() -> None:
    with pytest.raises(DemoError, match="bay 2 needs a person: torn card"):
        _check_bays({"bays": [{"bay": "2", "state": "attention", "reason": "torn card"}]})
