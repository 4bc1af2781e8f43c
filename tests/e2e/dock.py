"""The dock in the virtual machine: the package installed by apt, its configuration, and what it says."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.journal import Entry
from tests.e2e.machine import HUB_PORTS, Machine
from tests.e2e.store import Store

NAME = "e2e-dock"
BAYS = tuple(str(number) for number in range(1, 9))
"""One for each port of the hub, in the hub's order."""

WIPE, HOLD_S = "after_proof", 0.0
"""What the dock is configured to do with proved cameras, where a test wants nothing else."""

_PROFILES = Path(__file__).with_name("profiles")
_STORE_KEY = "/etc/dockd/store-receipt-key.pem"
_CONFIG = """\
[dock]
name = "{name}"
state_dir = "/var/lib/dockd"

[target]
url = "http://127.0.0.1:1080/files/"
store_id = "{store_id}"
receipt_key = "{key}"
stall_timeout_s = 10.0

[cameras]
reconcile_s = 2.0

[wipe]
when = "{wipe}"
hold_s = {hold_s}
"""
_HELPER_CONFIG = """\
dock = "{name}"
store_id = "{store_id}"
receipt_key = "{key}"
"""
_BAY = """
[[bay]]
name = "{bay}"
port = "1-{port}"
"""
# A start in the emulated machine is slow enough; waiting for the next one as well is not needed.
_RESTART_AT_ONCE = "[Service]\nRestartSec=100ms\n"


class Dock:
    """Store, machine and package together, and the words in which tests ask about them."""

    def __init__(self, machine: Machine, store: Store) -> None:
        """Build; the store must have been started once."""
        self.machine = machine
        self.store = store
        self._as_usual = True

    def install(self, package: Path) -> str:
        """Install the package with apt; return what apt printed."""
        self.machine.send({"/var/tmp/dockd.deb": package.read_bytes()})
        return self.machine.check(
            "DEBIAN_FRONTEND=noninteractive apt-get install --yes /var/tmp/dockd.deb",
            timeout_s=300,
        )

    def set_up(self) -> None:
        """Bind the dock to the store and the ports of the hub, as an administrator does."""
        self.machine.send(
            {
                "/etc/e2e-store": f"STORE=10.0.2.2:{self.store.port}\n".encode(),
                _STORE_KEY: self.store.layout.receipt_public_key.read_bytes(),
                "/etc/dockd/helper.toml": (self._fill(_HELPER_CONFIG) + _bays()).encode(),
                "/etc/systemd/system/dockd.service.d/e2e.conf": _RESTART_AT_ONCE.encode(),
                **{
                    f"/etc/dockd/profiles.d/{profile.name}": profile.read_bytes()
                    for profile in _PROFILES.iterdir()
                },
            }
        )
        self.configure()
        self.machine.check(
            "dockd bays rules > /etc/udev/rules.d/60-dockd.rules && udevadm control --reload && sync"
        )

    def configure(self, *, wipe: str = WIPE, hold_s: float = HOLD_S, more: str = "") -> None:
        """Write the daemon's configuration, with more tables if wanted, and start it anew."""
        text = self._fill(_CONFIG, wipe=wipe, hold_s=hold_s) + more + _bays()
        self.machine.send({"/etc/dockd/dockd.toml": text.encode()})
        self.machine.check("systemctl daemon-reload && systemctl restart dockd", timeout_s=180)
        self._as_usual = (wipe, hold_s, more) == (WIPE, HOLD_S, "")

    def configure_as_usual(self) -> None:
        """Undo what a test has configured, if one has."""
        if not self._as_usual:
            self.configure()

    def plug(self, image: Any, bay: str, **options: Any) -> str:
        """Put a camera into a bay; return the name to pull it by."""
        return self.machine.plug(image.image, port_of(bay), serial=image.serial, **options)

    def mark(self) -> int:
        """Return a place in the journal, to wait for what comes after it."""
        return self.machine.journal.mark()

    def wait(self, event: str, *, since: int, within_s: float = 120.0, **wanted: object) -> Entry:
        """Wait for an event of dockd."""
        return self.machine.journal.wait_event(event, since=since, within_s=within_s, **wanted)

    def wait_state(
        self, state: str, *, since: int, within_s: float = 120.0, **wanted: object
    ) -> Entry:
        """Wait until a bay or camera reaches a state of the lifecycle."""
        return self.wait("bay.state", since=since, within_s=within_s, state=state, **wanted)

    def seen(self, event: str, *, since: int, **wanted: object) -> Sequence[Entry]:
        """Return the events seen so far."""
        return [
            entry
            for entry in self.machine.journal.events(since)
            if entry["event"] == event and wanted.items() <= entry.items()
        ]

    def status(self) -> dict[str, dict[str, Any]]:
        """Return what the dock says of each bay."""
        answer = json.loads(self.machine.check("dockd status -c /etc/dockd/dockd.toml --json"))
        return {bay["bay"]: bay for bay in answer["bays"]}

    def check_custody(self) -> None:
        """Verify the whole custody log, as anybody can while the dock is running."""
        self.machine.check("dockd custody verify --state /var/lib/dockd", user="dockd")

    def sent_bytes(self) -> int:
        """Return how many bytes have left the machine by network since it was booted."""
        return int(self.machine.check("cat /sys/class/net/eth0/statistics/tx_bytes"))

    def mounts(self) -> Sequence[str]:
        """Return the mounts of camera file systems, in the mount namespace of any process."""
        found = self.machine.run("cat /proc/[0-9]*/mountinfo 2>/dev/null | grep -wE 'vfat|exfat'")
        return found.output.splitlines()

    def _fill(self, template: str, **more: object) -> str:
        return template.format(name=NAME, store_id=self.store.store_id, key=_STORE_KEY, **more)


def port_of(bay: str) -> str:
    """Return the port of a bay, as QEMU names it."""
    return HUB_PORTS[BAYS.index(bay)]


def _bays() -> str:
    return "".join(
        _BAY.format(bay=bay, port=port) for bay, port in zip(BAYS, HUB_PORTS, strict=True)
    )
