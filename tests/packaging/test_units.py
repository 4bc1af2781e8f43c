"""The units are sound, hold little, and each point that remains has its written reason."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/security-of-units.md"
SERVICES = ("dockd", "dockd-store", "dockd-helper")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="missing: apt install systemd"
)


@needs_systemd
def test_units_are_sound_and_within_their_limits() -> None:
    """INV-6."""
    done = subprocess.run(
        [ROOT / "packaging/check-units"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_without_systemd_it_is_said_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    done = subprocess.run(
        ["/bin/bash", ROOT / "packaging/check-units"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "sudo apt install systemd" in done.stderr


def remaining(service: str) -> set[str]:
    """The points that systemd still counts, by their names."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--json=short",
         ROOT / f"systemd/{service}.service"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {one["name"] for one in json.loads(done.stdout) if one["set"] is False}


def explained(service: str) -> set[str]:
    return {point for services, point in rows() if service in services}


def rows() -> Iterator[tuple[list[str], str]]:
    table = PAGE.read_text(encoding="utf-8").partition("## What remains, and why")[2]
    for services, point in re.findall(r"(?m)^\| ([a-z, -]+) \| `(.+?)` \| .+ \|$", table):
        yield services.split(", "), point.replace(r"\|", "|")


@needs_systemd
@pytest.mark.parametrize("service", SERVICES)
def test_each_point_that_remains_has_a_reason_and_no_other_has(service: str) -> None:
    assert explained(service) == remaining(service)


def test_the_helper_starts_after_the_driver_of_the_disks_that_it_may_open() -> None:
    """A name in ``DeviceAllow=`` is nothing to systemd until its driver is in /proc/devices."""
    lines = (ROOT / "systemd/dockd-helper.service").read_text(encoding="utf-8").splitlines()
    assert "DeviceAllow=block-sd rw" in lines
    assert {"Wants=modprobe@sd_mod.service", "After=modprobe@sd_mod.service"} <= set(lines)


def test_every_unit_is_installed_and_named_in_the_maintainer_scripts() -> None:
    units = {path.name for path in (ROOT / "systemd").iterdir()}
    assert units == {*(f"{service}.service" for service in SERVICES), "dockd-helper.socket"}
    prerm = (ROOT / "packaging/debian/prerm").read_text()
    assert all(unit in prerm for unit in units)
