"""Charging through the helper: data off and power on, or data on while a battery is to be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dockd.cameras.helper_client import HelperClient
from dockd.core.errors import CameraGoneError, DeviceRefusedError
from dockd.core.model import ChargeStatus, Power
from tests.helper import loops
from tests.helper.conftest import BAY, Rig

Serve = Callable[[Any], HelperClient]


@pytest.fixture
def authorized(rig: Rig) -> Path:
    """The switch of the camera's data, in a tree that looks like sysfs."""
    switch = rig.tmp / "sys/bus/usb/devices" / loops.PORT / "authorized"
    switch.parent.mkdir(parents=True)
    switch.write_text("1\n")
    return switch


def test_data_goes_off_and_what_is_unknown_is_said(
    rig: Rig, serve: Serve, authorized: Path
) -> None:
    rig.tables = {"charge": {"minimum_s": 600.0}}
    client = serve(rig.actions())
    assert client.charge(BAY) == ChargeStatus(Power.UNKNOWN, None, 600.0, None)
    assert authorized.read_text() == "0"


def test_while_its_data_is_off_the_rule_stays_known(rig: Rig, authorized: Path) -> None:
    """A camera known by its label alone shows none with its data off."""
    rig.tables = {
        "match": {"vendor": "1d6b", "label": loops.LABEL},
        "charge": {"minimum_s": 600.0},
    }
    actions = rig.actions()
    assert actions.charge(BAY).minimum_s == 600.0
    rig.camera.changes = {"authorized": False, "interface_classes": frozenset(), "disks": ()}
    assert actions.charge(BAY).minimum_s == 600.0
    rig.camera.changes["devnum"] = 8
    assert actions.charge(BAY).minimum_s == 0.0, "another stay, of which nothing is known"


def test_the_battery_is_read_and_data_stays_on(rig: Rig, authorized: Path) -> None:
    camera = loops.LoopCamera(rig.tmp / "battery.img")
    camera.make({b"STATUS/BATTERY.TXT": b" 73%\r\ncharging"})
    rig.tables = {"charge": {"battery_file": "STATUS/BATTERY.TXT", "wanted_percent": 90}}
    with camera.plugged():
        rig.camera = camera
        before = camera.content()
        assert rig.actions().charge(BAY) == ChargeStatus(Power.UNKNOWN, 73, 0.0, 90)
        assert authorized.read_text() == "1\n"
        assert camera.content() == before
        assert loops.is_free(camera.node)


@pytest.mark.parametrize("content", [None, b"", b"full", b"101", b"-5"])
def test_a_battery_that_says_nothing_is_unknown(
    rig: Rig, authorized: Path, content: bytes | None
) -> None:
    camera = loops.LoopCamera(rig.tmp / "battery.img")
    camera.make({b"BATTERY": content} if content is not None else {})
    rig.tables = {"charge": {"battery_file": "BATTERY", "wanted_percent": 90}}
    with camera.plugged():
        rig.camera = camera
        assert rig.actions().charge(BAY).battery_percent is None
        assert authorized.read_text() == "0"


@pytest.mark.parametrize("changes", [{"tagged": False}, {"vendor": "0000"}])
def test_a_stranger_is_not_touched(rig: Rig, authorized: Path, changes: dict[str, Any]) -> None:
    rig.camera.changes = changes
    with pytest.raises(DeviceRefusedError):
        rig.actions().charge(BAY)
    assert authorized.read_text() == "1\n"


def test_an_empty_bay_does_not_charge(rig: Rig, authorized: Path) -> None:
    rig.camera.port = "1-1.5"
    with pytest.raises(CameraGoneError):
        rig.actions().charge(BAY)
    assert authorized.read_text() == "1\n"


def test_port_power_is_switched_for_bays_only(rig: Rig) -> None:
    switch = rig.tmp / "sys/bus/usb/devices/1-1:1.0/1-1-port4/disable"
    switch.parent.mkdir(parents=True)
    switch.write_text("0\n")
    actions = rig.actions()
    assert actions.power(BAY, "off") is Power.OFF
    assert switch.read_text() == "1"
    assert actions.power(BAY, "on") is Power.ON
    with pytest.raises(DeviceRefusedError, match="no bay"):
        actions.power("1-1.5", "off")
