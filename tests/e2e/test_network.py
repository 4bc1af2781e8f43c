"""The station's network goes away in the middle of an upload, or the store does; nobody has to help."""

import time
from pathlib import Path

from tests.e2e.cameras import CameraImage, footage, make_camera
from tests.e2e.dock import Dock

SIZE_BYTES = 12_000_000
SLOW_BYTES_PER_S = 1_500_000
"""A slow card, so that an upload has a middle."""
MINUTE_S = 60.0


def test_a_minute_without_network_costs_nothing_but_time(dock: Dock, tmp_path: Path) -> None:
    """INV-3: the upload carries on where it was, and nothing arrives twice."""
    camera = make_camera(dock.machine, tmp_path, "CAM0901", footage("CAM0901", 1, SIZE_BYTES))
    since, before = dock.mark(), dock.store.unfinished_bytes()
    dock.plug(camera, "1", bytes_per_s=SLOW_BYTES_PER_S)
    dock.store.wait_unfinished(before + SIZE_BYTES // 4)

    dock.machine.set_link(up=False)
    down_since_s = time.monotonic()
    dock.wait("upload.retry", since=since)
    time.sleep(max(0.0, down_since_s + MINUTE_S - time.monotonic()))
    assert dock.status()["1"]["state"] == "ingesting"
    assert dock.store.unfinished_bytes() < before + SIZE_BYTES
    dock.machine.set_link(up=True)

    _require_proved(dock, camera, since)


def test_a_store_that_is_restarted_in_mid_upload_is_waited_for(dock: Dock, tmp_path: Path) -> None:
    """INV-3: whether the store stops in order or is killed, the upload goes on where it was."""
    camera = make_camera(dock.machine, tmp_path, "CAM0902", footage("CAM0902", 1, SIZE_BYTES))
    since, before = dock.mark(), dock.store.unfinished_bytes()
    dock.plug(camera, "1", bytes_per_s=SLOW_BYTES_PER_S)

    arrived = dock.store.wait_unfinished(before + SIZE_BYTES // 4)
    dock.store.stop()
    dock.wait("upload.retry", since=since)
    assert arrived <= dock.store.unfinished_bytes() < before + SIZE_BYTES
    dock.store.start()
    arrived, restarted = dock.store.wait_unfinished(before + SIZE_BYTES // 2), dock.mark()
    dock.store.kill()
    dock.wait("upload.retry", since=restarted)
    assert arrived <= dock.store.unfinished_bytes() < before + SIZE_BYTES
    dock.store.start()

    _require_proved(dock, camera, since)


def _require_proved(dock: Dock, camera: CameraImage, since: int) -> None:
    summary = dock.wait("visit.finished", since=since, camera=camera.camera_id)
    assert summary["verdict"] == "wiped"
    assert (summary["recordings"], summary["confirmed"], summary["erased"]) == (1, 1, 1)
    dock.wait_state("ready", since=since, camera=camera.camera_id)
    assert len(dock.seen("visit.started", since=since, camera=camera.camera_id)) == 1
    assert dock.store.held(camera.camera_id) == camera.recordings
    assert dock.store.manifests(camera.camera_id) == 1
