"""A card that cannot be read everywhere: what can be saved is saved, and nothing is erased."""

from pathlib import Path

from tests.e2e.cameras import footage, make_camera
from tests.e2e.dock import Dock


def test_unreadable_sectors_in_a_recording(dock: Dock, tmp_path: Path) -> None:
    """INV-1, INV-2, INV-5, INV-8: the bad recording is shown, all others are safe, no bit is changed."""
    bad_one = b"DCIM/100MEDIA/MOV_0002.MP4"
    recordings = footage("CAM0500", 4, 1_500_000)
    worn = make_camera(dock.machine, tmp_path, "CAM0500", recordings, file_system="exfat")
    other = make_camera(dock.machine, tmp_path, "CAM0501", footage("CAM0501", 2, 1_500_000))
    sector = worn.sector_of(bad_one, at_byte=900_000)
    untouched = worn.digest()
    since = dock.mark()

    dock.plug(worn, "1", bad_sectors=range(sector, sector + 8))
    dock.plug(other, "2")

    dock.wait_state("attention", since=since, bay="1")
    dock.wait_state("ready", since=since, bay="2")
    [quarantined] = dock.seen("recording.quarantined", since=since)
    assert (quarantined["bay"], quarantined["recording"]) == ("1", bad_one.decode())
    assert "MOV_0002.MP4: Input/output error (Clean the contacts" in quarantined["reason"]
    shown = dock.status()["1"]
    assert shown["state"] == "attention"
    assert quarantined["reason"] in shown["reason"]

    del recordings[bad_one]
    assert dock.store.held(worn.camera_id, cut_short=bad_one) == recordings
    assert dock.store.manifests(worn.camera_id) == 0
    assert dock.seen("helper.erasing", since=since, bay="1") == []
    assert dock.store.held(other.camera_id) == other.recordings
    dock.check_custody()
    dock.machine.unplug_all()
    assert worn.digest() == untouched
