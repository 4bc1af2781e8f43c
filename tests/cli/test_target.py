"""``dockd target check`` as a person or a script runs it."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dockd.cli.target import app
from dockd.core.errors import ConfigError, TargetUnavailableError
from dockd.core.model import TargetProperties
from dockd.target.conformance.suite import CHECKS
from tests.simulated.store import SimulatedStore
from tests.simulated.wire import Wire


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return datetime.now(UTC).timestamp()


def simulated(**store: Any) -> Wire:
    return Wire(SimulatedStore(RealClock(), **store))


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


async def check_served(wire: Wire, *arguments: object) -> Result:
    """Check a server that runs meanwhile."""
    async with wire.served() as url:
        return await asyncio.to_thread(check, url, *arguments)


def key_file(wire: Wire, directory: Path) -> Path:
    path = directory / "receipt-key.pem"
    path.write_bytes(wire.store.key.public.pem())
    return path


async def test_a_good_target(tmp_path: Path) -> None:
    wire = simulated()
    key = key_file(wire, tmp_path)
    done = await check_served(wire, "--receipt-key", key, "--store-id", "sim-store", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["conforms"], report["confirms_by"]) == (True, ["receipt", "readback"])
    assert [each["number"] for each in report["checks"]] == list(range(1, len(CHECKS) + 1))
    by_name = {each["name"]: each for each in report["checks"]}
    assert by_name["signs_with_the_pinned_key"]["outcome"] == "passed"
    assert by_name["states_durability"]["clause"] == "§2.2"
    assert by_name["takes_bytes"]["why"] is None
    held = [upload for upload in wire.store.uploads.values() if upload.complete]
    assert report["left"] == {"uploads": len(held), "bytes": sum(len(each.data) for each in held)}


async def test_a_target_that_promises_and_does_not_deliver(tmp_path: Path) -> None:
    """INV-1: it is found out, with the clause, and the exit code says so."""
    wire = simulated()
    other = key_file(simulated(), tmp_path)
    done = await check_served(wire, "--receipt-key", other, "--store-id", "sim-store")
    assert done.exit_code == 1
    assert "§5.1" in done.stdout
    assert "names the key" in " ".join(done.stdout.replace("│", " ").split())
    assert f"1 of {len(CHECKS)} checks failed" in done.stdout
    assert "by readback" in done.stdout


async def test_a_target_that_signs_nothing_is_said_to_confirm_nothing() -> None:
    """INV-1."""
    wire = simulated(
        properties=TargetProperties(
            creation_with_upload=False, checksum_sha256=False, receipts=False
        )
    )
    wire.gives_back = False
    done = await check_served(wire)
    assert done.exit_code == 0
    assert "it confirms nothing" in done.stdout


async def test_it_appears_as_the_dock_of_a_configuration(tmp_path: Path) -> None:
    wire = simulated()
    key_file(wire, tmp_path)
    config = tmp_path / "dockd.toml"
    async with wire.served() as url:
        config.write_text(
            '[dock]\nname = "dock-9"\nstate_dir = "state"\n'
            f'[target]\nurl = "{url}"\nstore_id = "sim-store"\nreceipt_key = "receipt-key.pem"\n'
        )
        done = await asyncio.to_thread(check, "--config", config, "--json")
    assert done.exit_code == 0, done.output
    names = {each["name"]: each["outcome"] for each in json.loads(done.stdout)["checks"]}
    assert names["signs_with_the_pinned_key"] == "passed"
    docks = {upload.spec.dock for upload in wire.store.uploads.values() if upload.complete}
    assert docks == {"dock-9"}


def test_a_server_that_is_not_there() -> None:
    assert isinstance(check("http://127.0.0.1:1/").exception, TargetUnavailableError)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a URL"),
        (["ftp://store/"], "is not a whole"),
        (["store"], "is not a whole"),
        (["http://127.0.0.1:1/", "--store-id", "s"], "needed together"),
        (["http://127.0.0.1:1/", "--certificate", __file__], "needed together"),
        (["http://127.0.0.1:1/", "--patience", "0"], "patience"),
        (["http://127.0.0.1:1/", "--ca-file", "/none"], "does not exist"),
    ],
)
def test_wrong_use(arguments: list[str], words: str) -> None:
    done = check(*arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())


def test_a_configuration_without_target(tmp_path: Path) -> None:
    config = tmp_path / "dockd.toml"
    config.write_text('[dock]\nname = "dock-9"\nstate_dir = "state"\n')
    assert isinstance(check("--config", config).exception, ConfigError)
