"""Reading a recording once: digest, container check and upload always speak of the same bytes."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd import reader as module
from dockd.core.errors import CameraGoneError, CameraUnreadableError, SourceChangedError
from dockd.core.model import Camera, ContainerVerdict, IdentifiedBy, Presence, Recording
from dockd.reader import BytesSource, RecordingReader
from tests.simulated.cameras import Generated, SimulatedCamera, SimulatedSource, SimulatedVolume
from tests.simulated.clock import run_virtual
from tests.simulated.proofs import ManualClock, Proofs
from tests.simulated.worker import InlineWorker

PATH = b"DCIM/MOV_0001.MP4"
PRESENCE = Presence("1", Camera("cam-1", IdentifiedBy.SERIAL), "simulated:1/cam-1")


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 100)
    monkeypatch.setattr(module, "CHECKPOINT_BYTES", 350)


@contextmanager
def opened(camera: SimulatedCamera) -> Iterator[SimulatedVolume]:
    source = SimulatedSource(["1"], Proofs().authority, ManualClock())
    source.plug("1", camera)
    yield source.open_camera(PRESENCE)


def reader_of(
    camera: SimulatedCamera, volume: SimulatedVolume, *, md5: bool = False
) -> RecordingReader:
    stat = camera.files[PATH].stat
    recording = Recording("visit", PATH, stat.size_bytes, stat.mtime_ns)
    return RecordingReader(volume, InlineWorker(), recording, with_md5=md5)


def camera_with(data: bytes | Generated, **trouble: object) -> SimulatedCamera:
    camera = SimulatedCamera("cam-1")
    camera.record(PATH, data, **trouble)  # type: ignore[arg-type]
    return camera


async def read(reader: RecordingReader, end: int) -> bytes:
    return b"".join([chunk async for chunk in reader.chunks(end)])


@pytest.mark.parametrize("size_bytes", [0, 1, 99, 100, 101, 1_000])
async def test_one_read_gives_bytes_and_digests(size_bytes: int) -> None:
    data = bytes(range(250)) * 4
    camera = camera_with(data[:size_bytes])
    with opened(camera) as volume:
        reader = reader_of(camera, volume, md5=True)
        assert await read(reader, size_bytes) == data[:size_bytes]
        await reader.check_unchanged()
        assert reader.sha256() == hashlib.sha256(data[:size_bytes]).digest()
        assert reader.md5_hex() == hashlib.md5(data[:size_bytes]).hexdigest()
        assert reader.container().verdict is ContainerVerdict.UNRECOGNISED
        reader.close()
        assert not volume.open_files


moves = st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 1_000)), max_size=6)


@given(moves)
def test_wherever_it_is_sent_the_digest_covers_exactly_the_bytes_before(
    moves: list[tuple[int, int]],
) -> None:
    """INV-1: after any number of breaks, what is hashed is what was sent."""
    data = bytes(range(250)) * 4

    async def run() -> None:
        camera = camera_with(data)
        with opened(camera) as volume:
            reader = reader_of(camera, volume)
            for offset, end in moves:
                await reader.seek(offset)
                assert reader.position == offset
                assert reader.sha256() == hashlib.sha256(data[:offset]).digest()
                if end > offset:
                    assert await read(reader, end) == data[offset:end]
                assert reader.sha256() == hashlib.sha256(data[: max(offset, end)]).digest()

    run_virtual(run())


async def test_going_back_reads_again_from_the_nearest_checkpoint_only() -> None:
    camera, read_bytes = camera_with(Generated(10_000)), 0
    with opened(camera) as volume:

        def count(_: Presence, size_bytes: int) -> None:
            nonlocal read_bytes
            read_bytes += size_bytes

        reader = reader_of(camera, volume)
        await read(reader, 10_000)
        volume.source.on_read = count
        await reader.seek(9_900)
        assert 0 < read_bytes < 500


async def test_a_consumer_that_goes_away_in_mid_read_leaves_position_and_digest_together() -> None:
    """INV-3: cancelling an upload at any point never makes the digest lie."""
    data = bytes(range(250)) * 4
    camera = camera_with(data)
    with opened(camera) as volume:
        reader = reader_of(camera, volume)
        chunks = reader.chunks(1_000)
        assert await anext(chunks) == data[:100]
        await chunks.aclose()  # type: ignore[attr-defined]
        assert reader.sha256() == hashlib.sha256(data[: reader.position]).digest()
        await reader.seek(100)
        assert await read(reader, 1_000) == data[100:]


async def test_a_file_that_is_not_as_listed_is_not_read() -> None:
    camera = camera_with(b"x" * 300)
    with opened(camera) as volume:
        reader = reader_of(camera, volume)
        camera.record(PATH, b"y" * 300)
        with pytest.raises(SourceChangedError, match="not as it was listed"):
            await read(reader, 300)


@pytest.mark.parametrize("changes_at", [0, 150, 299])
async def test_a_file_that_changes_while_it_is_read_is_found_out(changes_at: int) -> None:
    """INV-1."""
    camera = camera_with(b"x" * 300, changes_at=changes_at, changed_content=b"y" * 300)
    with opened(camera) as volume:
        reader = reader_of(camera, volume)
        await read(reader, 300)
        with pytest.raises(SourceChangedError, match="changed while it was read"):
            await reader.check_unchanged()


async def test_a_file_that_shrinks_while_it_is_read_ends_the_reading() -> None:
    """INV-2: never short bytes taken for the whole."""
    camera = camera_with(b"x" * 300, changes_at=150, changed_content=b"y" * 50)
    with (
        opened(camera) as volume,
        pytest.raises(SourceChangedError, match="ended before its 300 bytes"),
    ):
        await read(reader_of(camera, volume), 300)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [({"fails_at": 150}, CameraUnreadableError), ({"vanishes_at": 150}, CameraGoneError)],
)
async def test_the_cameras_own_errors_come_out(
    trouble: dict[str, int], error: type[Exception]
) -> None:
    camera = camera_with(b"x" * 300, **trouble)
    with opened(camera) as volume, pytest.raises(error):
        await read(reader_of(camera, volume), 300)


async def test_bytes_in_memory_read_like_a_recording() -> None:
    source = BytesSource(bytes(range(250)))
    chunks = [chunk async for chunk in source.chunks(250)]
    assert chunks == [bytes(range(100)), bytes(range(100, 200)), bytes(range(200, 250))]
    await source.seek(10)
    assert source.sha256() == hashlib.sha256(bytes(range(10))).digest()
    await asyncio.sleep(0)
