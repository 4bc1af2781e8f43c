"""A camera that is done charges with its data off, and its bay says "take it" until it is taken."""

from pathlib import Path

from tests.e2e.cameras import footage, make_camera, record
from tests.e2e.dock import Dock
from tests.e2e.helper_questions import ask_helper

PORT = "/sys/bus/usb/devices/1-1.1"
"""Bay 1, as the guest's kernel names it."""


def test_a_ready_camera_stays_ready_until_it_is_really_pulled(dock: Dock, tmp_path: Path) -> None:
    """INV-3: neither switching its data off nor a restart begins another visit; docking anew does."""
    first, both = footage("CAM1001", 1, 1_000_000), footage("CAM1001", 2, 1_000_000)
    camera = make_camera(dock.machine, tmp_path, "CAM1001", first)
    since = dock.mark()
    plugged = dock.plug(camera, "1")
    dock.wait_state("ready", since=since, camera=camera.camera_id)
    assert _charges_only(dock)
    assert dock.status()["1"]["power"] == "on"

    restarted = dock.mark()
    dock.machine.check("systemctl stop dockd-helper.service && systemctl restart dockd")
    dock.wait_state("ready", since=restarted, camera=camera.camera_id, cause="found_ready")
    before_kill = dock.mark()
    dock.machine.check("systemctl kill --signal=KILL dockd")
    dock.wait_state("ready", since=before_kill, camera=camera.camera_id, cause="found_ready")
    assert _charges_only(dock)
    assert dock.status()["1"]["state"] == "ready"
    assert len(dock.seen("visit.started", since=since, camera=camera.camera_id)) == 1
    assert dock.store.manifests(camera.camera_id) == 1

    dock.machine.unplug(plugged)
    dock.wait_state("empty", since=before_kill, bay="1")
    record(dock.machine, camera, {path: both[path] for path in both if path not in first})
    docked_again = dock.mark()
    dock.plug(camera, "1")
    dock.wait("visit.started", since=docked_again, camera=camera.camera_id)
    dock.wait_state("ready", since=docked_again, camera=camera.camera_id)
    assert dock.store.held(camera.camera_id) == both
    assert dock.store.manifests(camera.camera_id) == 2


def test_a_bay_recovers_when_its_port_is_switched_off_and_on(dock: Dock, tmp_path: Path) -> None:
    """INV-3: a power cycle in mid-upload is like pulling: the next visit finishes by itself."""
    camera = make_camera(dock.machine, tmp_path, "CAM1002", footage("CAM1002", 1, 6_000_000))
    since, before = dock.mark(), dock.store.unfinished_bytes()
    dock.plug(camera, "1", bytes_per_s=1_000_000)
    dock.store.wait_unfinished(before + 2_000_000)

    cycle = {"do": "power", "bay": "1", "action": "cycle"}
    assert ask_helper(dock.machine, cycle) == [{"power": "on"}]

    first = dock.wait("visit.finished", since=since, camera=camera.camera_id)
    assert first["verdict"] == "interrupted"
    dock.wait("visit.finished", since=since, camera=camera.camera_id, verdict="wiped")
    dock.wait_state("ready", since=since, camera=camera.camera_id)
    assert len(dock.seen("visit.started", since=since, camera=camera.camera_id)) == 2
    assert dock.store.held(camera.camera_id) == camera.recordings


def _charges_only(dock: Dock) -> bool:
    """Whether the device is still there, with its data off and so without a disk."""
    off = dock.machine.check(f"cat {PORT}/authorized").strip() == "0"
    return off and dock.machine.run(f"ls {PORT}/*/host*").code != 0
