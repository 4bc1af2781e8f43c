"""A dock whose power is short, on a hub that really switches: cameras charge in turns."""

from pathlib import Path

from tests.e2e.cameras import CameraImage, footage, make_camera
from tests.e2e.dock import Dock

CHARGE = """
[charge]
minimum_s = 20.0
budget_ma = 500
"""
"""Enough for one camera."""


def test_cameras_charge_in_turns_and_a_killed_daemon_leaves_no_bay_dark(
    dock: Dock, tmp_path: Path
) -> None:
    """INV-2, INV-3, INV-8: footage has power first; who waits is not taken for pulled, nor forgotten."""
    dock.configure(more=CHARGE)
    cameras = {
        bay: make_camera(dock.machine, tmp_path, serial, footage(serial, 1, 500_000))
        for bay, serial in (("1", "CAM1401"), ("2", "CAM1402"), ("3", "CAM1403"))
    }
    # One after the other: when QEMU's hub gives power to one port, devices at its other dark ports appear.
    since = dock.mark()
    dock.plug(cameras["1"], "1")
    dock.wait_state("charging", since=since, bay="1")
    _plug_into_the_dark(dock, cameras["2"], "2")
    killed = dock.mark()
    dock.machine.check("systemctl kill --signal=KILL dockd")
    # It counts as docked anew when its port has power, for nobody saw whether it was pulled meanwhile.
    dock.wait("visit.finished", since=killed, bay="2", verdict="empty")
    dock.wait_state("charging", since=killed, bay="2")

    _plug_into_the_dark(dock, cameras["3"], "3")
    waiting = dock.status()["3"]
    assert (waiting["state"], waiting["power"], waiting["draw_ma"]) == ("charging", "off", 0)
    assert "waits for its turn" in waiting["reason"]
    dock.wait_state("ready", since=killed, bay="2")
    dock.wait("visit.finished", since=killed, bay="3", verdict="empty")
    for bay, camera in cameras.items():
        dock.wait_state("ready", since=killed, bay=bay)
        assert not _is_dark(dock, bay)
        assert dock.store.held(camera.camera_id) == camera.recordings
        assert dock.store.manifests(camera.camera_id) == 1


def _plug_into_the_dark(dock: Dock, camera: CameraImage, bay: str) -> None:
    """Dock a camera whose turn to charge it is not yet: it is read, and then its port is switched off."""
    since = dock.mark()
    dock.plug(camera, bay)
    dock.wait("visit.finished", since=since, bay=bay, verdict="wiped")
    dock.wait("charge.waits", since=since, bay=bay, power="off")
    assert _is_dark(dock, bay)
    assert dock.seen("bay.state", since=since, bay=bay, state="empty") == []


def _is_dark(dock: Dock, bay: str) -> bool:
    """Whether the hub gives this bay's port no power."""
    switch = f"/sys/bus/usb/devices/1-1:1.0/1-1-port{bay}/disable"
    return dock.machine.check(f"cat {switch}").strip() == "1"
