"""Erasing through the helper's socket, with real receipts. Guards INV-1, and INV-5 before the permit.

The medium is a loop device over a file of the test's own, which ``LoopCamera.plugged`` proves. A
refused wipe must leave that file as it was, to the byte.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.cameras.helper_client import HelperClient
from dockd.core.errors import (
    CameraGoneError,
    CameraUnreadableError,
    DeviceRefusedError,
    HelperError,
    ManifestInvalidError,
)
from dockd.core.model import Camera, Confirm, IdentifiedBy, Presence, WipeReport, WipeRequest
from dockd.core.wipe_gate import WipeRefused
from dockd.evidence.keys import SigningKey
from dockd.evidence.manifests import sign_manifest
from dockd.helper import image, keeping
from dockd.helper.actions import Asked
from dockd.helper.block import DirectDisk
from tests.helper import loops
from tests.helper.conftest import BAY, PRESENCE, Rig
from tests.simulated.clock import START

Serve = Callable[[Any], HelperClient]
FIRST, SECOND, *_ = loops.CONTENTS
METHODS = ("delete", "format", "overwrite")
LEVELS = {
    "delete": "erase for re-use, not sanitisation (NIST SP 800-88r2)",
    "format": "erase for re-use, not sanitisation (NIST SP 800-88r2)",
    "overwrite": "clear (NIST SP 800-88r2): all addressable blocks; "
    "what the card holds back is out of reach",
}


def never() -> bool:
    return False


@pytest.fixture
def partitioned(tmp_path: Path, rig: Rig) -> Iterator[Rig]:
    """The same, with a camera whose volume is a partition."""
    camera = loops.LoopCamera(tmp_path / "partitioned.img", partitioned=True)
    camera.make(loops.CONTENTS)
    with camera.plugged():
        yield replace(rig, camera=camera)


def require_report(outcome: WipeReport | WipeRefused) -> WipeReport:
    assert isinstance(outcome, WipeReport), outcome
    return outcome


def require_empty_camera(rig: Rig) -> None:
    assert rig.camera.files() == loops.SETTINGS, "no recording is left, and the settings are whole"
    assert rig.camera.directories() == set(loops.DIRECTORIES)
    found = rig.camera.device().disks[0].volumes[0]
    assert (found.type, found.label, found.uuid) == ("ext4", loops.LABEL, loops.UUID)
    with pytest.raises(PermissionError):
        loops.write_raw(rig.camera.node)
    assert loops.is_free(rig.camera.node)
    assert list(rig.ledger.entries()) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_proved_camera_is_erased_and_keeps_what_is_its_own(
    rig: Rig, serve: Serve, method: str
) -> None:
    rig.method = method
    outcome = serve(rig.actions()).wipe(BAY, rig.request(), never)
    report = require_report(outcome)
    assert report.verified
    assert (report.method, report.level) == (method, LEVELS[method])
    assert (report.files_erased, report.bytes_erased) == (
        len(loops.CONTENTS),
        sum(map(len, loops.CONTENTS.values())),
    )
    assert report.tool.startswith("dockd ")
    require_empty_camera(rig)


def test_what_was_read_back_is_erased_where_root_chose_that(rig: Rig, serve: Serve) -> None:
    rig.proofs.confirm = Confirm.READBACK
    request = rig.request()
    assert require_report(serve(rig.actions()).wipe(BAY, request, never)).verified
    require_empty_camera(rig)


@pytest.mark.parametrize("method", METHODS)
def test_a_partition_is_erased_and_its_table_stays(partitioned: Rig, method: str) -> None:
    rig = partitioned
    rig.method = method
    table = rig.camera.content()[:512]
    outcome = erase(rig, rig.request())
    assert require_report(outcome).verified
    require_empty_camera(rig)
    assert rig.camera.content()[:512] == table


@pytest.mark.parametrize("kind", ["plain", "partitioned"])
def test_overwriting_leaves_no_byte_of_the_footage(rig: Rig, partitioned: Rig, kind: str) -> None:
    """Not in files, not in free space, and not around the partition."""
    secret = b"a face that nobody may see again".ljust(4096, b".")
    rig = rig if kind == "plain" else partitioned
    before = rig.camera.content()
    assert loops.CONTENTS[FIRST][:4096] in before
    free = [-8192] if kind == "plain" else [64 * 512, -8192]
    with rig.camera.image.open("r+b") as file:
        for place in free:
            file.seek(place, os.SEEK_SET if place > 0 else os.SEEK_END)
            file.write(secret)
    rig.method = "overwrite"
    assert require_report(erase(rig, rig.request())).verified
    after = rig.camera.content()
    assert len(after) == len(before)
    for trace in (secret, loops.CONTENTS[FIRST][:4096], loops.CONTENTS[SECOND]):
        assert trace not in after


# Refusals


def erase(rig: Rig, request: WipeRequest) -> WipeReport | WipeRefused:
    """Ask a helper that is made for this request."""
    asked = Asked(
        BAY,
        request.presence.camera.camera_id,
        request.visit_id,
        request.manifest,
        request.manifest_receipt,
        request.hold_until,
    )
    return rig.actions().wipe(asked, never)


def with_first(rig: Rig, **changes: Any) -> WipeRequest:
    """A request that speaks otherwise of the first recording."""
    entries = [
        rig.proofs.entry(name, content, loops.CAMERA) for name, content in loops.CONTENTS.items()
    ]
    entries = [replace(each, **changes) if each.path == FIRST else each for each in entries]
    return rig.proofs.request(PRESENCE, rig.proofs.manifest(loops.CAMERA, *entries))


def no_receipt(rig: Rig) -> WipeRequest:
    return with_first(rig, receipt="")


def forged_receipt(rig: Rig) -> WipeRequest:
    head, _, signature = rig.proofs.receipt(b"other bytes", loops.CAMERA).split(".")
    _, good, _ = rig.proofs.receipt(loops.CONTENTS[FIRST], loops.CAMERA).split(".")
    return with_first(rig, receipt=f"{head}.{good}.{signature}")


def receipt_of_another_key(rig: Rig) -> WipeRequest:
    key = SigningKey(Ed25519PrivateKey.generate())
    return with_first(rig, receipt=rig.proofs.receipt(loops.CONTENTS[FIRST], loops.CAMERA, key=key))


def receipts_of_another_camera(rig: Rig) -> WipeRequest:
    """Everything in order, but for another camera than the helper finds in the bay."""
    other = "1d6b:0104:CAM-0008"
    entries = [rig.proofs.entry(name, content, other) for name, content in loops.CONTENTS.items()]
    request = rig.proofs.request(
        Presence(BAY, Camera(other, IdentifiedBy.SERIAL), "x"), rig.proofs.manifest(other, *entries)
    )
    return replace(request, presence=PRESENCE)


def manifest_that_the_store_never_saw(rig: Rig) -> WipeRequest:
    receipt = rig.proofs.receipt(b"another manifest", loops.CAMERA)
    return replace(rig.request(), manifest_receipt=receipt)


def manifest_of_a_made_up_key(rig: Rig) -> WipeRequest:
    """The helper pins no dock key, so this stands or falls with the store's receipt over its bytes."""
    key = SigningKey(Ed25519PrivateKey.generate())
    request = rig.request()
    entries = [
        rig.proofs.entry(name, content, loops.CAMERA) for name, content in loops.CONTENTS.items()
    ]
    manifest = sign_manifest(key, rig.proofs.manifest(loops.CAMERA, *entries))
    return replace(request, manifest=manifest)


def another_dock(rig: Rig) -> WipeRequest:
    rig.proofs.dock = "dock-2"
    request = rig.request()
    rig.proofs.dock = "dock-1"
    return request


def file_added(rig: Rig) -> WipeRequest:
    return rig.request(
        {name: content for name, content in loops.CONTENTS.items() if name != SECOND}
    )


def file_changed(rig: Rig) -> WipeRequest:
    return rig.request({**loops.CONTENTS, SECOND: loops.CONTENTS[SECOND][::-1]})


def held(rig: Rig) -> WipeRequest:
    return replace(rig.request(), hold_until=START + timedelta(hours=1))


def readback_where_the_store_must_sign(rig: Rig) -> WipeRequest:
    receipt = rig.proofs.receipt(
        loops.CONTENTS[FIRST], loops.CAMERA, key=rig.proofs.dock_key, confirm=Confirm.READBACK
    )
    return with_first(rig, receipt=receipt)


def stores_receipt_where_readback_is_pinned(rig: Rig) -> WipeRequest:
    rig.proofs.confirm = Confirm.READBACK
    receipt = rig.proofs.receipt(
        loops.CONTENTS[FIRST], loops.CAMERA, key=rig.proofs.store_key, confirm=Confirm.RECEIPT
    )
    return with_first(rig, receipt=receipt)


REFUSALS: list[tuple[int, Callable[[Rig], WipeRequest]]] = [
    (7, no_receipt),
    (7, forged_receipt),
    (7, receipt_of_another_key),
    (1, receipts_of_another_camera),
    (14, manifest_that_the_store_never_saw),
    (14, manifest_of_a_made_up_key),
    (1, another_dock),
    (5, file_added),
    (6, file_changed),
    (15, held),
    (7, readback_where_the_store_must_sign),
    (7, stores_receipt_where_readback_is_pinned),
]


@pytest.mark.parametrize(("check", "make"), REFUSALS, ids=[make.__name__ for _, make in REFUSALS])
@pytest.mark.parametrize("method", METHODS)
def test_a_refusal_leaves_every_byte_of_the_medium(
    rig: Rig, serve: Serve, method: str, check: int, make: Callable[[Rig], WipeRequest]
) -> None:
    rig.method = method
    before = rig.camera.content()
    request = make(rig)
    outcome = serve(rig.actions()).wipe(BAY, request, never)
    assert isinstance(outcome, WipeRefused)
    assert check in {reason.check for reason in outcome.reasons}
    assert rig.camera.content() == before
    assert list(rig.ledger.entries()) == []
    with pytest.raises(PermissionError):
        loops.write_raw(rig.camera.node)


def test_a_refusal_names_the_files_by_their_exact_bytes(rig: Rig, serve: Serve) -> None:
    name = b"new\nline \xff"
    request = rig.request({**loops.CONTENTS, name: b"odd game"})
    outcome = serve(rig.actions()).wipe(BAY, request, never)
    assert isinstance(outcome, WipeRefused)
    assert outcome.differing_paths == (name,)
    assert outcome.camera_differs


def test_a_manifest_that_is_none_is_an_error(rig: Rig, serve: Serve) -> None:
    before = rig.camera.content()
    with pytest.raises(ManifestInvalidError):
        serve(rig.actions()).wipe(BAY, replace(rig.request(), manifest="a.b.c"), never)
    assert rig.camera.content() == before


def test_a_camera_that_was_swapped_meanwhile_is_not_even_read(rig: Rig) -> None:
    other = Presence(BAY, Camera("1d6b:0104:CAM-0008", IdentifiedBy.SERIAL), "x")
    before = rig.camera.content()
    with pytest.raises(CameraGoneError):
        erase(rig, rig.request(presence=other))
    assert rig.camera.content() == before


def test_a_camera_that_the_daemon_still_has_open_is_not_erased(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dockd.helper.block.RELEASE_TIMEOUT_S", 0.2)
    fd = rig.actions().open(BAY, loops.CAMERA, never)
    before = rig.camera.content()
    try:
        with pytest.raises(DeviceRefusedError):
            erase(rig, rig.request())
    finally:
        os.close(fd)
    assert rig.camera.content() == before


def test_what_cannot_be_given_back_is_not_formatted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.method = "format"
    monkeypatch.setattr(keeping, "MOST_SETTINGS_BYTES", 10)
    before = rig.camera.content()
    with pytest.raises(DeviceRefusedError, match="delete"):
        erase(rig, rig.request())
    assert rig.camera.content() == before


def test_a_file_system_that_cannot_be_made_anew_is_not_formatted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(image.MAKERS, "ext4")
    rig.method = "format"
    before = rig.camera.content()
    with pytest.raises(DeviceRefusedError, match="delete"):
        erase(rig, rig.request())
    assert rig.camera.content() == before


def test_a_mkfs_that_fails_has_erased_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = replace(loops.EXT4, make=lambda _recipe: [["/bin/false"]])
    monkeypatch.setitem(image.MAKERS, "ext4", failing)
    rig.method = "overwrite"
    before = rig.camera.content()
    with pytest.raises(HelperError, match="/bin/false"):
        erase(rig, rig.request())
    assert rig.camera.content() == before
    assert list(rig.ledger.entries()) == []


def test_a_card_that_does_not_read_back_what_was_written_is_no_verified_wipe(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worn or faked card takes every write and keeps not all of them."""
    real = DirectDisk.write

    def forgetful(self: DirectDisk, offset: int, data: bytes) -> None:
        if offset < 4 << 20:
            real(self, offset, data)

    monkeypatch.setattr(DirectDisk, "write", forgetful)
    rig.method = "overwrite"
    with pytest.raises(CameraUnreadableError, match="does not read back"):
        erase(rig, rig.request())
    (entry,) = rig.ledger.entries()
    assert entry.camera == loops.CAMERA, "the card is still known to be half erased"


def test_overwriting_refuses_a_partition_table_that_it_could_not_give_back(
    partitioned: Rig,
) -> None:
    rig = partitioned
    with rig.camera.image.open("r+b") as file:
        file.seek(446 + 4)
        file.write(b"\xee")
    rig.method = "overwrite"
    before = rig.camera.content()
    with pytest.raises(DeviceRefusedError, match="MBR"):
        erase(rig, rig.request())
    assert rig.camera.content() == before
