"""Data and power of a bay's port, on a tree that looks like sysfs. Nothing beside the port is touched."""

from pathlib import Path

import pytest

from dockd.core.errors import CameraGoneError
from dockd.core.model import Power
from dockd.helper.power import CYCLE_OFF_S, Port


class Sysfs:
    """The part of /sys that has to do with USB, with a value in every switch."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.switches: list[Path] = []

    def switch(self, path: str, value: str) -> Path:
        file = self.root / "bus/usb/devices" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value + "\n")
        self.switches.append(file)
        return file

    def values(self) -> dict[str, str]:
        return {
            str(file.relative_to(self.root / "bus/usb/devices")): file.read_text().strip()
            for file in self.switches
        }


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    """Two ports of a hub, with their devices, and a port of the root hub."""
    sysfs = Sysfs(tmp_path)
    for switch, value in (
        ("1-1.3/authorized", "1"),
        ("1-1.4/authorized", "1"),
        ("1-1:1.0/1-1-port3/disable", "0"),
        ("1-1:1.0/1-1-port4/disable", "0"),
        ("1-2/authorized", "1"),
        ("1-0:1.0/usb1-port2/disable", "0"),
    ):
        sysfs.switch(switch, value)
    return sysfs


def changed(sysfs: Sysfs, before: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in sysfs.values().items() if before[key] != value}


def test_data_is_switched_and_power_stays(sysfs: Sysfs) -> None:
    before = sysfs.values()
    port = Port("1-1.4", sysfs=sysfs.root)
    port.set_data(on=False)
    assert changed(sysfs, before) == {"1-1.4/authorized": "0"}
    assert port.power() is Power.ON
    port.set_data(on=True)
    assert changed(sysfs, before) == {}


def test_data_that_is_off_already_is_left_alone(sysfs: Sysfs) -> None:
    """Writing 1 again would make the kernel configure the device again."""
    switch = sysfs.root / "bus/usb/devices/1-1.4/authorized"
    switch.chmod(0o400)
    before = switch.stat().st_mtime_ns
    Port("1-1.4", sysfs=sysfs.root).set_data(on=True)
    assert switch.stat().st_mtime_ns == before


def test_an_empty_port_has_no_data_to_switch(sysfs: Sysfs) -> None:
    with pytest.raises(CameraGoneError):
        Port("1-1.5", sysfs=sysfs.root).set_data(on=False)


@pytest.mark.parametrize(
    ("port", "switch"),
    [("1-1.4", "1-1:1.0/1-1-port4/disable"), ("1-2", "1-0:1.0/usb1-port2/disable")],
)
def test_power_is_switched_where_the_hub_has_a_switch(sysfs: Sysfs, port: str, switch: str) -> None:
    before = sysfs.values()
    one = Port(port, sysfs=sysfs.root)
    assert one.set_power(on=False) is Power.OFF
    assert changed(sysfs, before) == {switch: "1"}
    assert one.power() is Power.OFF
    assert one.set_power(on=True) is Power.ON
    assert changed(sysfs, before) == {}


def test_a_cycle_takes_the_power_away_for_a_moment(sysfs: Sysfs) -> None:
    before = sysfs.values()
    off: list[tuple[float, dict[str, str]]] = []
    port = Port("1-1.4", sysfs=sysfs.root, sleep=lambda s: off.append((s, changed(sysfs, before))))
    assert port.cycle_power() is Power.ON
    assert off == [(CYCLE_OFF_S, {"1-1:1.0/1-1-port4/disable": "1"})]
    assert changed(sysfs, before) == {}


def test_a_port_of_two_hubs_has_power_until_both_let_go(sysfs: Sysfs) -> None:
    """A USB 3 socket is a port of a USB 2 and of a USB 3 hub; sysfs calls the other one its peer."""
    other = sysfs.switch("2-1:1.0/2-1-port4/disable", "0")
    peer = sysfs.root / "bus/usb/devices/1-1:1.0/1-1-port4/peer"
    peer.symlink_to(other.parent)
    before = sysfs.values()
    port = Port("1-1.4", sysfs=sysfs.root)
    assert port.set_power(on=False) is Power.OFF
    assert changed(sysfs, before) == {
        "1-1:1.0/1-1-port4/disable": "1",
        "2-1:1.0/2-1-port4/disable": "1",
    }
    other.write_text("0\n")
    assert port.power() is Power.UNKNOWN


def test_without_a_switch_nothing_is_claimed(sysfs: Sysfs) -> None:
    before = sysfs.values()
    port = Port("1-1.7", sysfs=sysfs.root, sleep=lambda _s: pytest.fail("nothing to wait for"))
    assert port.power() is Power.UNKNOWN
    assert port.set_power(on=True) is Power.UNKNOWN
    assert port.cycle_power() is Power.UNKNOWN
    assert changed(sysfs, before) == {}
