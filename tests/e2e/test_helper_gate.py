"""The helper erases on the store's word only, whoever asks it and whatever he brings (INV-1).

An intruder who has become the daemon's user holds the socket and the dock's key. Here he asks through
the package's own client, with a manifest and receipts of a real visit as his material.
"""

import dataclasses
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import read_receipt, sign_receipt
from tests.e2e.cameras import CameraImage, files_on, footage, make_camera, record
from tests.e2e.dock import Dock
from tests.e2e.guest_disk import find_disk
from tests.e2e.helper_questions import Proof, ask_helper, composed_anew, tampered, to_wipe

BAY, OTHER_BAY = "1", "2"


@pytest.fixture
def recordings() -> dict[bytes, bytes]:
    """Return what both cameras have recorded: the very same bytes."""
    return footage("CAM08", 2, 1_000_000)


@pytest.fixture
def camera(dock: Dock, tmp_path: Path, recordings: dict[bytes, bytes]) -> CameraImage:
    """Return the camera that the intruder wants erased."""
    return make_camera(dock.machine, tmp_path, "CAM0801", recordings)


def test_nothing_but_the_stores_own_word_erases_a_camera(
    dock: Dock, tmp_path: Path, camera: CameraImage, recordings: dict[bytes, bytes]
) -> None:
    """INV-1: no receipt, a forged one, another key's, another camera's: refused, nothing written."""
    other = make_camera(dock.machine, tmp_path, "CAM0802", recordings)
    before = camera.digest()
    honest, others = _proved(dock, [camera, other])
    plugged = dock.plug(camera, BAY)
    disk = find_disk(dock.machine, camera)
    store, stranger = dock.store.receipt_key(), SigningKey(Ed25519PrivateKey.generate())

    def by_stranger(receipt: str) -> str:
        return sign_receipt(stranger, read_receipt(receipt, store.public))

    expected = (
        ("no receipt for a recording", composed_anew(honest, store, store, lambda _: ""), {7}),
        ("no receipt for the manifest", dataclasses.replace(honest, receipt=""), {14}),
        ("forged for recordings", composed_anew(honest, store, store, tampered), {7}),
        (
            "forged for the manifest",
            dataclasses.replace(honest, receipt=tampered(honest.receipt)),
            {14},
        ),
        ("from another key", composed_anew(honest, store, stranger, by_stranger), {7, 14}),
        ("for a camera with the same footage", others, {1, 9, 14}),
    )

    *answers, answer_for_other = ask_helper(
        dock.machine,
        *(to_wipe(BAY, camera.camera_id, proof) for _, proof, _ in expected),
        to_wipe(BAY, other.camera_id, others),
    )

    for (what, _, checks), answer in zip(expected, answers, strict=True):
        assert set(answer.get("checks", ())) == checks, (what, answer)
    words = f"camera {camera.camera_id} is in the bay, not {other.camera_id}"
    assert words in answer_for_other["error"]
    stranger_asks = to_wipe(BAY, camera.camera_id, honest)
    (answer,) = ask_helper(dock.machine, stranger_asks, user="daemon")
    assert "Permission denied" in answer["error"]
    assert disk.written_sectors() == 0
    disk.require_unused()
    dock.machine.unplug(plugged)
    assert camera.digest() == before


def test_a_camera_that_holds_more_or_other_than_was_proved_is_not_erased(
    dock: Dock, tmp_path: Path, camera: CameraImage, recordings: dict[bytes, bytes]
) -> None:
    """INV-1: after a file was added or changed the honest proof is refused; on what it proves, not."""
    (honest,) = _proved(dock, [camera])
    path, data = next(iter(recordings.items()))
    for what, files, check in (
        ("added", {b"DCIM/100MEDIA/MOV_0003.MP4": data}, 5),
        ("changed", {path: data[:-1] + bytes([data[-1] ^ 1])}, 6),
    ):
        copy = dataclasses.replace(camera, image=tmp_path / f"{what}.img")
        shutil.copy(camera.image, copy.image)
        record(dock.machine, copy, files)
        before = copy.digest()
        plugged = dock.plug(copy, BAY)
        disk = find_disk(dock.machine, copy)

        (answer,) = ask_helper(dock.machine, to_wipe(BAY, camera.camera_id, honest))

        assert answer.get("checks") == [check], answer
        assert disk.written_sectors() == 0
        dock.machine.unplug(plugged)
        assert copy.digest() == before

    plugged = dock.plug(camera, BAY)
    find_disk(dock.machine, camera)
    (answer,) = ask_helper(dock.machine, to_wipe(BAY, camera.camera_id, honest))
    assert answer["report"]["verified"] is True, answer
    dock.machine.unplug(plugged)
    assert files_on(dock.machine, camera) == {}


def _proved(dock: Dock, cameras: list[CameraImage]) -> list[Proof]:
    """Have cameras visited up to their hold, then stop the daemon and pull them."""
    dock.configure(hold_s=3600)
    since = dock.mark()
    plugged = [
        dock.plug(camera, bay) for camera, bay in zip(cameras, (BAY, OTHER_BAY), strict=False)
    ]
    for camera in cameras:
        dock.wait_state("holding", since=since, camera=camera.camera_id)
    dock.machine.check("systemctl stop dockd")
    for name in plugged:
        dock.machine.unplug(name)
    return [Proof(*dock.store.proof(camera.camera_id)) for camera in cameras]
