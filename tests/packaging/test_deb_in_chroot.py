"""The package on a clean Debian 12: installed, set up, upgraded, removed, purged."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.debian import (
    Debian,
    booted,
    build_package,
    install_unbooted,
    newer,
    unpack_base,
    why_not,
)

pytestmark = pytest.mark.timeout(900)

CONFIG = """\
[dock]
name = "trial"
state_dir = "/var/lib/dockd"
[target]
url = "http://127.0.0.1:1080/files/"
store_id = "{store_id}"
receipt_key = "/etc/dockd/store-receipt-key.pem"
[[bay]]
name = "1"
folder = "/srv/dockd/bays/1"
"""

HELPER = """\
dock = "trial"
store_id = "{store_id}"
receipt_key = "/etc/dockd/store-receipt-key.pem"
"""

CAP_SYS_ADMIN = f"{1 << 21:016x}"


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A clean Debian in a directory, not booted."""
    reason = why_not()
    if reason is not None:
        if os.environ.get("DOCKD_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    unpack_base(tmp_path / "debian")
    return tmp_path / "debian"


def until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.2)


def install(debian: Debian, package: Path) -> None:
    inside = debian.path("/root") / package.name
    inside.write_bytes(package.read_bytes())
    debian.run("apt-get", "install", "--yes", f"/root/{package.name}")


def findings(debian: Debian) -> dict[str, str]:
    """What the doctor says, with its exit code as ``exit``; the worst of each check."""
    done = debian.run("dockd", "doctor", "--json", check=False)
    print(done.stdout)  # noqa: T201 - pytest shows it when something fails
    said: list[dict[str, str]] = json.loads(done.stdout)
    order = ("ok", "warn", "FAIL")
    worst: dict[str, str] = {"exit": str(done.returncode)}
    for one in said:
        worst[one["check"]] = max(worst.get(one["check"], "ok"), one["level"], key=order.index)
    return worst


def status(debian: Debian) -> dict[str, Any]:
    said = debian.run("dockd", "status", "--json", "-c", "/etc/dockd/dockd.toml").stdout
    (bay,) = json.loads(said)["bays"]
    found: dict[str, Any] = bay
    return found


def dock_camera(debian: Debian, name: str) -> None:
    """Put a camera of one recording into the bay, with a name of its own until it is whole."""
    debian.run("sh", "-c", f"""
        mkdir /srv/dockd/{name} && head -c 100000 /dev/urandom > /srv/dockd/{name}/A.MP4 &&
        chown -R dockd:dockd /srv/dockd/{name} && mv /srv/dockd/{name} /srv/dockd/bays/1/{name}
    """)  # fmt: skip


def set_up_a_trial(debian: Debian) -> None:
    """The steps of docs/operations.md, a trial on one machine."""
    debian.run("systemctl", "enable", "--now", "dockd-store")
    store = debian.path("/var/lib/dockd-store")
    key = (store / "receipt-key.pub.pem").read_bytes()
    debian.path("/etc/dockd/store-receipt-key.pem").write_bytes(key)
    store_id = json.loads((store / "store.json").read_text())["store_id"]
    debian.run("install", "--directory", "--owner=dockd", "/srv/dockd", "/srv/dockd/bays/1")
    debian.run("chown", "dockd:dockd", "/srv/dockd/bays", "/srv/dockd/bays/1")
    debian.path("/etc/dockd/dockd.toml").write_text(CONFIG.format(store_id=store_id))
    debian.run("systemctl", "restart", "dockd")


def test_the_life_of_an_installed_dock(system: Path, tmp_path: Path) -> None:
    """INV-3, INV-6: state survives restarts, upgrades and removal, and no power is held."""
    package = build_package(sys.executable, tmp_path / "package")
    install_unbooted(system, package)
    with booted(system) as debian:
        assert debian.run("dockd", "version").stdout.strip() == package.name.split("_")[1]
        check_fresh(debian)
        check_trial(debian)
        check_upgrade(debian, newer(package))
        check_helper(debian)
        check_removal(debian)
        install(debian, package)
        check_fresh(debian)


def check_fresh(debian: Debian) -> None:
    """The daemon runs, and the doctor says what is to be set up."""
    for unit in ("dockd.service", "dockd-helper.socket"):
        assert debian.is_active(unit)
        assert debian.run("systemctl", "is-enabled", unit).stdout == "enabled\n"
    assert not debian.is_active("dockd-store.service")
    found = findings(debian)
    assert found["exit"] == "0"
    assert (found["configuration"], found["daemon"], found["dockd.service"]) == ("warn", "ok", "ok")


def check_trial(debian: Debian) -> None:
    """With a store on the same machine a camera gets to ready, in the sandbox of the units."""
    set_up_a_trial(debian)
    dock_camera(debian, "CAM1")
    until(lambda: status(debian)["state"] == "ready")
    assert status(debian)["verdict"] == "wiped"
    found = findings(debian)
    assert found["exit"] == "0"
    for check in ("configuration", "state", "journal", "dock key", "store"):
        assert found[check] == "ok"
    assert power_of(debian, main_process(debian)) == {
        "CapEff": "0000000000000000",
        "CapBnd": "0000000000000000",
        "NoNewPrivs": "1",
    }


def check_upgrade(debian: Debian, package: Path) -> None:
    """The new version runs, and the camera that was ready still is."""
    key = debian.path("/var/lib/dockd/dock-key.pem").read_bytes()
    before = main_process(debian)
    install(debian, package)
    assert main_process(debian) != before
    assert debian.is_active("dockd-store.service")
    until(lambda: status(debian)["state"] == "ready")
    assert debian.path("/var/lib/dockd/dock-key.pem").read_bytes() == key
    assert findings(debian)["exit"] == "0"


def check_helper(debian: Debian) -> None:
    """The helper starts in the sandbox of its unit when it is asked, with the one capability."""
    assert not debian.is_active("dockd-helper.service")
    config = debian.path("/etc/dockd/dockd.toml")
    store = config.read_text().partition('store_id = "')[2].partition('"')[0]
    port = '[[bay]]\nname = "2"\nport = "1-1.4"\n'
    config.write_text(config.read_text() + port)
    assert findings(debian)["helper"] == "FAIL"
    debian.path("/etc/dockd/helper.toml").write_text(HELPER.format(store_id=store) + port)
    debian.run("systemctl", "restart", "dockd")
    found = findings(debian)
    assert (found["helper"], found["helper config"], found["daemon"]) == ("ok", "ok", "ok")
    held = power_of(debian, main_process(debian, "dockd-helper.service"))
    assert held == dict.fromkeys(("CapEff", "CapBnd"), CAP_SYS_ADMIN) | {"NoNewPrivs": "1"}


def check_removal(debian: Debian) -> None:
    """Removal stops everything and keeps state; purge keeps footage: in the store, on cameras."""
    dock_camera(debian, "CAM2")
    debian.run("apt-get", "remove", "--yes", "dockd")
    for unit in ("dockd.service", "dockd-helper.socket", "dockd-store.service"):
        assert not debian.is_active(unit)
    assert not debian.path("/usr/lib/dockd").exists()
    assert debian.path("/var/lib/dockd/journal.sqlite").exists()
    assert debian.path("/etc/dockd/dockd.toml").exists()

    rules = debian.path("/etc/udev/rules.d/60-dockd.rules")
    rules.parent.mkdir(parents=True, exist_ok=True)
    rules.write_text("# as an administrator wrote them\n")
    camera = debian.path("/srv/dockd/bays/1/CAM2")
    left = {path.name for path in camera.iterdir()}
    debian.run("apt-get", "purge", "--yes", "dockd")
    for gone in ("/etc/dockd", "/var/lib/dockd", "/var/lib/dockd-helper"):
        assert not debian.path(gone).exists()
    assert list(debian.path("/var/lib/dockd-store/objects").rglob("*"))
    assert {path.name for path in camera.iterdir()} == left
    leftovers = debian.run("find", "/etc", "/lib/systemd", "/usr", "-name", "*dockd*")
    assert leftovers.stdout.split() == []


def main_process(debian: Debian, unit: str = "dockd.service") -> str:
    shown = debian.run("systemctl", "show", "--property=MainPID", "--value", unit)
    return shown.stdout.strip()


def power_of(debian: Debian, process: str) -> dict[str, str]:
    lines = debian.run("cat", f"/proc/{process}/status").stdout.splitlines()
    said = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {name: said[name] for name in ("CapEff", "CapBnd", "NoNewPrivs")}
