"""What is no camera of ours, or is not in a bay, is left alone and shown; the other bays carry on."""

from pathlib import Path

import pytest

from tests.e2e.cameras import CameraImage, footage, make_camera
from tests.e2e.dock import Dock, port_of
from tests.e2e.guest_disk import find_disk

NO_BAY = "2"
"""A port of the machine itself, beside the hub."""


@pytest.fixture
def neighbour(dock: Dock, tmp_path: Path) -> CameraImage:
    """Return a camera that is in order."""
    return make_camera(dock.machine, tmp_path, "CAM0601", footage("CAM0601", 1, 1_000_000))


def test_a_stick_that_no_profile_knows_is_refused(
    dock: Dock, tmp_path: Path, neighbour: CameraImage
) -> None:
    """INV-5, INV-8: somebody's own stick is shown as refused, and no bit of it is changed."""
    recordings = footage("STICK01", 1, 1_000_000)
    stick = make_camera(dock.machine, tmp_path, "STICK01", recordings, file_system="vfat")
    before, since = stick.digest(), dock.mark()

    plugged = dock.plug(stick, "2")
    dock.plug(neighbour, "1")

    dock.wait_state("refused", since=since, bay="2")
    shown = dock.wait("bay.attention", since=since, bay="2")
    assert "no profile knows USB device 46f4:0001" in str(shown["reason"])
    assert dock.status()["2"]["reason"] == shown["reason"]
    disk = find_disk(dock.machine, stick)
    assert disk.mode == 0o600
    assert disk.properties["UDISKS_IGNORE"] == "1"
    dock.wait_state("ready", since=since, bay="1")
    assert dock.seen("helper.opened", since=since, bay="2") == []
    assert disk.written_sectors() == 0
    disk.require_unused()
    dock.machine.unplug(plugged)
    dock.wait_state("empty", since=since, bay="2")
    assert stick.digest() == before
    assert dock.store.held(stick.camera_id) == {}


def test_a_camera_in_a_port_that_is_no_bay_is_left_alone(dock: Dock, tmp_path: Path) -> None:
    """INV-5: even a camera that is known is opened in a bay only; there it goes its usual way."""
    recordings = footage("CAM0602", 1, 1_000_000)
    camera = make_camera(dock.machine, tmp_path, "CAM0602", recordings)
    before, since = camera.digest(), dock.mark()

    plugged = dock.machine.plug(camera.image, NO_BAY, serial=camera.serial)

    told = dock.wait("usb.elsewhere", since=since, vendor="46f4", product="0001")
    assert str(told["port"]).endswith("-2")
    assert {bay["state"] for bay in dock.status().values()} == {"empty"}
    disk = find_disk(dock.machine, camera)
    assert disk.written_sectors() == 0
    disk.require_unused()
    dock.machine.unplug(plugged)
    assert camera.digest() == before
    assert dock.seen("helper.opened", since=since) == []
    assert dock.store.held(camera.camera_id) == {}

    dock.plug(camera, "1")
    dock.wait_state("ready", since=since, camera=camera.camera_id)
    assert dock.store.held(camera.camera_id) == recordings


def test_a_camera_that_is_also_a_keyboard_is_refused(dock: Dock, neighbour: CameraImage) -> None:
    """INV-8: a device with an interface that no camera needs is refused, whatever its ids say."""
    since = dock.mark()

    dock.machine.plug_device("usb-kbd", port_of("2"))
    dock.plug(neighbour, "1")

    dock.wait_state("refused", since=since, bay="2")
    shown = dock.wait("bay.attention", since=since, bay="2")
    assert "it is more than a camera" in str(shown["reason"])
    assert "keyboard" in str(shown["reason"])
    dock.wait_state("ready", since=since, bay="1")
    assert dock.status()["2"]["state"] == "refused"
    assert dock.seen("helper.opened", since=since, bay="2") == []
