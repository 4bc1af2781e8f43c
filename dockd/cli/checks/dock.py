"""Checks of the dock itself: its configuration, state, keys and bays."""

import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dockd.cli.checks import Finding, Level
from dockd.config import Config, load_config
from dockd.core.errors import ConfigError
from dockd.evidence.custody import content
from dockd.evidence.keys import load_signing_key
from dockd.helper.config import DEFAULT_PATH as HELPER_CONFIG
from dockd.journal.journal import read_custody

UNNAMED = "new-dock"
"""The name in the configuration that comes with the package."""

LOW_BYTES, TOO_LOW_BYTES = 2_000_000_000, 200_000_000
"""Free space at which the journal may soon, and at which it will, stop the dock."""


def check_config(file: Path) -> tuple[Config | None, list[Finding]]:
    """Return the configuration, None where it cannot be used, and what there is to say of it."""
    try:
        config = load_config(file)
    except ConfigError as error:
        return None, [
            Finding("configuration", Level.FAIL, f"{file}: {problem}", error.advice)
            for problem in error.problems
        ]
    findings = []
    if config.target is None:
        advice = (
            f"Enrol the dock with: dockd enroll URL TOKEN; or name the store in {file}, [target]."
        )
        findings.append(Finding("configuration", Level.WARN, "no store yet", advice))
    if not config.bays:
        advice = (
            "Put a camera into one bay after the other with: "
            f"dockd bays learn --write {file} --write {HELPER_CONFIG}"
        )
        findings.append(Finding("configuration", Level.WARN, "no bays configured yet", advice))
    if config.dock.name == UNNAMED:
        advice = f"Choose the dock's own name in {file} before its first camera is docked."
        level = Level.FAIL if config.bays else Level.WARN
        findings.append(Finding("configuration", level, "the dock has no name yet", advice))
    return config, findings or [Finding("configuration", Level.OK, str(file))]


def check_state_dir(state_dir: Path) -> Iterator[Finding]:
    """The state directory belongs, with everything in it, to one user, and others cannot look in."""
    if not state_dir.exists():
        yield Finding("state", Level.WARN, f"{state_dir} is not there; the daemon makes it")
        return
    found = state_dir.stat()
    mode = stat.S_IMODE(found.st_mode)
    sound = True
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        sound = False
        words = f"{state_dir} is open to others (mode {mode:04o})"
        yield Finding("state", Level.FAIL, words, f"chmod 0750 {state_dir}")
    strangers = [path for path in sorted(state_dir.iterdir()) if path.stat().st_uid != found.st_uid]
    if strangers:
        sound = False
        owner = found.st_uid
        words = f"{strangers[0]} does not belong to user {owner}, who owns the directory"
        yield Finding("state", Level.FAIL, words, f"chown -R {owner} {state_dir}")
    if sound:
        yield Finding("state", Level.OK, str(state_dir))


def check_journal(journal: Path) -> Finding:
    """The journal is a sound database with a custody log in it. Raises JournalError."""
    if not journal.exists():
        return Finding("journal", Level.OK, "none yet; it begins with the first start as a dock")
    next(read_custody(journal), None)
    return Finding("journal", Level.OK, f"{journal} is sound")


def check_dock_key(path: Path, journal: Path) -> Finding:
    """The dock's key is there, private, and the one that signs its custody log. Raises KeyFileError."""
    key = load_signing_key(path)
    if key is None and not journal.exists():
        return Finding("dock key", Level.OK, "none yet; it is made at the first start as a dock")
    if key is None:
        words = f"{path} is lost, and its custody log is here"
        advice = "Restore it from its backup; see docs/operations.md, a lost dock key."
        return Finding("dock key", Level.FAIL, words, advice)
    if journal.exists() and (began := _log_began_with(journal)) not in (None, key.key_id):
        words = f"the custody log began with key {began}, and {path} is {key.key_id}"
        advice = "Restore the key that the log began with; see docs/operations.md, a lost dock key."
        return Finding("dock key", Level.FAIL, words, advice)
    return Finding("dock key", Level.OK, key.key_id)


def _log_began_with(journal: Path) -> str | None:
    first = next(read_custody(journal), None)
    said = content(first) if first is not None else None
    details = said.get("details") if isinstance(said, dict) else None
    key_id = details.get("key_id") if isinstance(details, dict) else None
    return key_id if isinstance(key_id, str) else None


def check_space(state_dir: Path) -> Finding:
    """There is room for the journal."""
    place = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    free = shutil.disk_usage(place).free
    words = f"{free / 1e9:.1f} GB free for {state_dir}"
    advice = "Make room; without it the dock cannot write down what it does, and waits."
    if free < TOO_LOW_BYTES:
        return Finding("disk space", Level.FAIL, words, advice)
    if free < LOW_BYTES:
        return Finding("disk space", Level.WARN, words, advice)
    return Finding("disk space", Level.OK, words)


def check_bays(status: Mapping[str, Any]) -> Iterator[Finding]:
    """What the running daemon says of each bay."""
    for bay in status["bays"]:
        name = f"bay {bay['bay']}"
        camera = f", camera {bay['camera']}" if bay["camera"] else ""
        if bay["state"] in ("attention", "refused"):
            words = f"{bay['state']}{camera}: {bay['reason']}"
            yield Finding(name, Level.WARN, words, "See docs/operations.md, what the states mean.")
        else:
            yield Finding(name, Level.OK, bay["state"] + camera)
