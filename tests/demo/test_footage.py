"""The demo's cameras hold what the demo says they hold."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockd.demo.footage import BIG_CAMERA, Made, make_cameras, playable

TOTAL_BYTES = 3_000_000


@pytest.fixture
def made(tmp_path: Path) -> tuple[Made, ...]:
    return make_cameras(tmp_path, TOTAL_BYTES)


def boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], size
        at += size


@pytest.mark.parametrize("size_bytes", [20_000, 1_048_576, 2_500_001])
def test_a_clip_is_one_sound_mp4_of_exactly_the_size_asked_for(size_bytes: int) -> None:
    data = b"".join(playable(size_bytes, "seed"))
    assert len(data) == size_bytes
    kinds = [kind for kind, _ in boxes(data)]
    assert kinds[0] == b"ftyp"
    assert kinds.index(b"moov") < kinds.index(b"mdat")
    assert kinds[-1] == b"free"
    assert sum(size for _, size in boxes(data)) == size_bytes


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    one, again, other = (b"".join(playable(100_000, seed)) for seed in ("a", "a", "b"))
    assert one == again
    assert one != other


def test_no_block_of_a_clip_repeats() -> None:
    data = b"".join(playable(4_000_000, "seed"))
    blocks = {data[at : at + 1_000_000] for at in range(0, 4_000_000, 1_000_000)}
    assert len(blocks) == 4


@pytest.mark.parametrize("size_bytes", [0, 12_000, 2**33])
def test_a_size_that_cannot_be_made_is_refused(size_bytes: int) -> None:
    with pytest.raises(ValueError, match="cannot make a clip"):
        next(playable(size_bytes, "seed"))


def test_what_is_remembered_is_what_is_on_the_cameras(
    made: tuple[Made, ...], tmp_path: Path
) -> None:
    on_cameras = {
        (camera.name, os.fsencode(file.relative_to(camera))): file.read_bytes()
        for camera in tmp_path.iterdir()
        for file in camera.rglob("*")
        if file.is_file()
    }
    assert on_cameras.keys() == {(item.camera, item.path) for item in made}
    for item in made:
        data = on_cameras[item.camera, item.path]
        assert (item.size_bytes, item.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_cameras_hold_every_kind_of_recording(made: tuple[Made, ...], tmp_path: Path) -> None:
    assert len(made) >= 12
    assert len({item.camera for item in made}) == 3
    assert len({item.sha256 for item in made}) == len(made)
    assert sum(item.size_bytes for item in made) >= TOTAL_BYTES
    assert [item.camera for item in made if item.size_bytes > TOTAL_BYTES / 2] == [BIG_CAMERA]
    assert [item.flagged for item in made].count(True) == 1
    assert [item.size_bytes for item in made].count(0) == 1
    assert [item.path.isascii() for item in made].count(False) == 1
    (truncated,) = (item for item in made if item.truncated)
    data = (tmp_path / truncated.camera / os.fsdecode(truncated.path)).read_bytes()
    assert sum(size for _, size in boxes(data)) > len(data)


def test_the_sidecar_names_the_digest_of_the_recording_beside_it(
    made: tuple[Made, ...], tmp_path: Path
) -> None:
    (sidecar,) = (item for item in made if item.path.endswith(b".sha256"))
    (beside,) = (
        item
        for item in made
        if (item.camera, item.path + b".sha256") == (sidecar.camera, sidecar.path)
    )
    line = (tmp_path / sidecar.camera / os.fsdecode(sidecar.path)).read_text()
    assert line.split() == [beside.sha256, os.fsdecode(beside.path.rpartition(b"/")[2])]
