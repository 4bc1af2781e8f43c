"""Checks of whom the dock works with: the running daemon, its helper, the store."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dockd import __version__
from dockd.cameras.helper_client import HelperClient
from dockd.cli.checks import Finding, Level
from dockd.config import Config, TargetConfig
from dockd.core.errors import (
    AdministrativeRefusalError,
    ConfigError,
    KeyFileError,
    TargetError,
)
from dockd.core.model import Confirm, TargetProperties
from dockd.daemon import StatePaths
from dockd.evidence.keys import load_verifying_key, public_key_path
from dockd.helper.config import HelperConfig, load_helper_config
from dockd.ops.status import DaemonNotRunningError, ask_status
from dockd.target.connection import Connection
from dockd.target.tus import TusTarget

STORE_WITHIN_S = 10.0


def check_daemon(socket: Path) -> tuple[Mapping[str, Any] | None, Finding]:
    """Return what the running daemon says of itself, None when there is none."""
    try:
        status = asyncio.run(ask_status(socket))
    except DaemonNotRunningError as error:
        advice = "systemctl status dockd; journalctl -u dockd"
        return None, Finding("daemon", Level.FAIL, str(error), advice)
    return status, Finding("daemon", Level.OK, f"dock {status['dock']} answers")


def check_store(target: TargetConfig) -> Iterator[Finding]:
    """At each of its addresses the store answers, gives receipts, and is the one whose id is pinned."""
    for url in (target.url, *target.fallback_urls):
        yield _check_address(target, url)


def _check_address(target: TargetConfig, url: str) -> Finding:
    try:
        offered = asyncio.run(_discover(target, url))
    except (TargetError, KeyFileError, TimeoutError) as error:
        words = "no answer" if isinstance(error, TimeoutError) else str(error)
        advice = "Cameras wait meanwhile, and nothing is erased. Check the network and the store."
        if isinstance(error, AdministrativeRefusalError):
            advice = error.advice
        return Finding("store", Level.FAIL, f"{url}: {words}", advice)
    if target.confirm is Confirm.READBACK and offered.receipts:
        advice = (
            'Pin its receipt key and say confirm = "receipt": that proves more, and costs less.'
        )
        return Finding("store", Level.WARN, f"{url} signs receipts, and is read back", advice)
    if target.confirm is Confirm.READBACK:
        words = f"{url} answers; what it holds is read back, because it signs nothing"
        return Finding("store", Level.OK, words)
    if not offered.receipts:
        advice = "Nothing it takes is ever proved, so nothing is erased. Use a store with receipts."
        return Finding("store", Level.FAIL, f"{url} gives no receipts", advice)
    if offered.store_id is not None and offered.store_id != target.store_id:
        words = f"{url} is {offered.store_id}, and {target.store_id} is pinned"
        advice = "Correct target.store_id or the address; no receipt of this store counts."
        return Finding("store", Level.FAIL, words, advice)
    return Finding("store", Level.OK, f"{target.store_id} at {url}")


async def _discover(target: TargetConfig, url: str) -> TargetProperties:
    alone = replace(Connection.of(target), fallback_urls=())
    async with (
        asyncio.timeout(STORE_WITHIN_S),
        TusTarget(url, connection=alone, stall_timeout_s=STORE_WITHIN_S) as tus,
    ):
        return await tus.discover()


def check_helper(socket: Path, bays: Iterable[str]) -> Finding:
    """The helper answers, is of our version and serves our USB bays. Raises HelperError."""
    alive = HelperClient(socket).ping()
    restart = "systemctl restart dockd-helper.service"
    if alive.version != __version__:
        words = f"it is version {alive.version}, and this is {__version__}"
        return Finding("helper", Level.FAIL, words, restart)
    unserved = sorted(set(bays) - set(alive.bays))
    if unserved:
        words = f"it does not serve bay {', '.join(unserved)}"
        return Finding("helper", Level.FAIL, words, f"Name them in helper.toml; {restart}")
    return Finding("helper", Level.OK, f"answers, and serves {len(alive.bays)} bays")


def check_helper_config(file: Path, config: Config) -> Iterator[Finding]:
    """The helper's configuration is sound, and agrees with the daemon's."""
    check = "helper config"
    try:
        helper = load_helper_config(file)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(check, Level.FAIL, f"{file}: {problem}", "Mend it, as root.")
        return
    differences = list(_differences(helper, config))
    for words in differences:
        yield Finding(check, Level.FAIL, words, f"Make {file} and the dock's file agree.")
    if not differences:
        yield Finding(check, Level.OK, f"{file} agrees with the dock's")


def _proof_differences(helper: HelperConfig, target: TargetConfig, dock_key: Path) -> Iterator[str]:
    if helper.confirm is not target.confirm:
        yield f"footage is confirmed by {target.confirm}, for the helper by {helper.confirm}"
        return
    ours = load_verifying_key(target.receipt_key or public_key_path(dock_key)).key_id
    theirs = load_verifying_key(helper.proof_key).key_id
    if ours != theirs:
        whose = "dock's" if target.receipt_key is None else "store's receipt"
        yield f"the {whose} key is {ours}, for the helper {theirs}"


def _differences(helper: HelperConfig, config: Config) -> Iterator[str]:
    if helper.dock != config.dock.name:
        yield f"the dock is {config.dock.name}, for the helper {helper.dock}"
    if config.target is not None:
        if helper.store_id != config.target.store_id:
            yield f"the store is {config.target.store_id}, for the helper {helper.store_id}"
        yield from _proof_differences(helper, config.target, StatePaths(config.dock.state_dir).key)
    if helper.profiles_dir != config.cameras.profiles_dir:
        yield f"profiles are in {config.cameras.profiles_dir}, for the helper {helper.profiles_dir}"
    ports = {bay.name: bay.port for bay in helper.bays}
    for bay in config.bays:
        if bay.port is not None and ports.get(bay.name) != bay.port:
            there = ports.get(bay.name, "not there")
            yield f"bay {bay.name} is USB port {bay.port}, for the helper {there}"
