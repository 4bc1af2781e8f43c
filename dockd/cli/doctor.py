"""``dockd doctor``: looks at everything that a dock needs, and says what to do about the rest."""

import json
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dockd.cameras.discovery import UsbBus
from dockd.cameras.profiles import load_profiles
from dockd.cli.checks import Finding, Level, dock, enrolment, machine, partners
from dockd.config import Config
from dockd.core.errors import DockdError
from dockd.daemon import StatePaths
from dockd.enrolled import EnrolledFiles
from dockd.helper.config import DEFAULT_PATH as HELPER_CONFIG

UNITS = ("dockd.service", "dockd-helper.socket")

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def run_doctor(config_file: Path, *, as_json: bool) -> bool:
    """Print all findings; return whether none of them is a failure."""
    findings = list(examine(config_file))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        Console().print(table(findings))
    return all(finding.level is not Level.FAIL for finding in findings)


def examine(config_file: Path) -> Iterator[Finding]:
    """Make every check, the dock's own first; what needs a configuration waits for a sound one."""
    config, findings = dock.check_config(config_file)
    yield from findings
    if config is not None:
        yield from _of_the_dock(config)
        yield from _of_the_helper(config)
        if config.target is not None:
            target = config.target
            files = EnrolledFiles.beside(config_file)
            yield from _safely(
                "enrolment",
                lambda: enrolment.check_enrolment(files, target, datetime.now(UTC)),
            )
            yield from _safely("store", lambda: partners.check_store(target))
    yield from _of_the_machine(config)


def _of_the_dock(config: Config) -> Iterator[Finding]:
    paths = StatePaths(config.dock.state_dir)
    yield from _safely("state", lambda: dock.check_state_dir(paths.state_dir))
    yield from _safely("journal", lambda: [dock.check_journal(paths.journal)])
    yield from _safely("dock key", lambda: [dock.check_dock_key(paths.key, paths.journal)])
    yield from _safely("disk space", lambda: [dock.check_space(paths.state_dir)])
    status, finding = partners.check_daemon(paths.socket)
    yield finding
    if status is not None:
        yield from dock.check_bays(status)


def _of_the_helper(config: Config) -> Iterator[Finding]:
    bays = [bay.name for bay in config.bays if bay.port is not None]
    if not bays:
        yield Finding("helper", Level.OK, "not needed while no bay is a USB port")
        return
    file = HELPER_CONFIG
    yield from _safely("helper config", lambda: partners.check_helper_config(file, config))
    yield from _safely("helper", lambda: [partners.check_helper(config.helper.socket, bays)])


def _of_the_machine(config: Config | None) -> Iterator[Finding]:
    if config is not None:
        yield from _safely("USB", lambda: _of_usb(config))
    yield from _safely("kernel", lambda: machine.check_kernel(
        platform.release(), Path("/lib/modules"), Path("/proc/filesystems")
    ))  # fmt: skip
    yield from _safely("clock", lambda: [
        machine.check_clock(datetime.now(UTC), synchronised=machine.clock_is_synchronised())
    ])  # fmt: skip
    yield from _safely("services", lambda: machine.check_units(
        UNITS, running=Path("/run/systemd/system").is_dir()
    ))  # fmt: skip


def _of_usb(config: Config) -> Iterator[Finding]:
    bays = {bay.port: bay.name for bay in config.bays if bay.port is not None}
    own = config.cameras.profiles_dir
    profiles = load_profiles([own])
    yield machine.check_rules(machine.RULES_DIRS, profiles, own, needed=bool(bays))
    yield from machine.check_devices(UsbBus().devices(), profiles, bays)


def _safely(check: str, make: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Make one check; what keeps it from looking is a finding as well."""
    try:
        yield from make()
    except PermissionError as error:
        yield Finding(check, Level.FAIL, f"may not look: {error}", "Ask as root: sudo dockd doctor")
    except DockdError as error:
        yield Finding(check, Level.FAIL, str(error), error.advice)
    except (OSError, ImportError) as error:
        yield Finding(check, Level.FAIL, f"cannot look: {error}")


def table(findings: Iterable[Finding]) -> Table:
    """Return the table for people."""
    shown = Table("", "check", "found")
    for finding in findings:
        found = Text(finding.words, overflow="fold")
        if finding.advice:
            found.append(f"\n→ {finding.advice}", style="italic")
        level = Text(finding.level, style=_COLOURS[finding.level])
        shown.add_row(level, Text(finding.check, overflow="fold"), found)
    return shown
