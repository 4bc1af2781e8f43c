"""Makes cameras full of footage, and remembers exactly what was put on them.

Clips are real, playable MP4: a short one that comes with the package, followed by a ``free`` box
(ISO/IEC 14496-12 section 8.1.2), which players skip, with bytes that no other clip has.
"""

import hashlib
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

FLAGGED = "EVENT/*"
"""Where the demo's cameras put recordings that their officer flagged."""

_BOX_HEADER_BYTES = 8
_BLOCK_BYTES = 1 << 20
_LARGEST_BOX_BYTES = 2**32 - 1
_TRUNCATED_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Made:
    """One recording as it was put on a camera, before anything else saw it."""

    camera: str
    path: bytes
    size_bytes: int
    sha256: str
    flagged: bool
    truncated: bool


@dataclass(frozen=True, slots=True)
class _Clip:
    """A clip to be made. ``share`` is its part of all the footage, in thousandths."""

    path: bytes
    share: int


_CLIPS = {
    "bwc-0417": (
        _Clip(b"DCIM/100MEDIA/MOV_0001.MP4", 520),
        _Clip(b"DCIM/100MEDIA/MOV_0002.MP4", 20),
    ),
    "bwc-0552": (
        _Clip(b"DCIM/100MEDIA/MOV_0001.MP4", 60),
        _Clip(b"DCIM/100MEDIA/MOV_0002.MP4", 50),
        _Clip(b"EVENT/MOV_0003.MP4", 60),
    ),
    "bwc-0733": (
        _Clip(b"DCIM/100MEDIA/MOV_0001.MP4", 60),
        _Clip(b"DCIM/100MEDIA/MOV_0003.MP4", 160),
        _Clip(b"DCIM/100MEDIA/Stra\xdfe 7.MP4", 70),  # Latin-1: not UTF-8
    ),
}

BIG_CAMERA = "bwc-0417"
"""The camera with one recording that is more than half of all footage."""


def make_cameras(folder: Path, total_bytes: int) -> tuple[Made, ...]:
    """Make a directory for each camera in ``folder``, about ``total_bytes`` in all. Blocking.

    The same size gives the same bytes every time.
    """
    made = []
    for camera, clips in _CLIPS.items():
        for clip in clips:
            size_bytes = clip.share * total_bytes // 1000
            seed = f"{camera}/{clip.path!r}"
            made.append(_write(folder, camera, clip.path, playable(size_bytes, seed)))
    photo = _asset("photo.jpg")
    made.append(_write(folder, "bwc-0417", b"DCIM/100MEDIA/IMG_0001.JPG", [photo]))
    made.append(_write(folder, "bwc-0552", b"DCIM/100MEDIA/MOV_0004.MP4", []))
    made.append(_write_sidecar(folder, next(item for item in made if _has_sidecar(item))))
    cut_short = _asset("clip.mp4")[:_TRUNCATED_BYTES]
    made.append(
        _write(folder, "bwc-0733", b"DCIM/100MEDIA/MOV_0002.MP4", [cut_short], truncated=True)
    )
    return tuple(made)


def playable(size_bytes: int, seed: str) -> Iterator[bytes]:
    """Yield the bytes of a playable MP4 of exactly this size, unlike that of any other seed.

    Raises ValueError when it would not have room for the clip, or is too big for one box.
    """
    clip = _asset("clip.mp4")
    box_bytes = size_bytes - len(clip)
    if not _BOX_HEADER_BYTES <= box_bytes <= _LARGEST_BOX_BYTES:
        raise ValueError(f"cannot make a clip of {size_bytes} bytes")
    yield clip
    yield box_bytes.to_bytes(4, "big") + b"free"
    yield from _noise(box_bytes - _BOX_HEADER_BYTES, seed)


def _noise(size_bytes: int, seed: str) -> Iterator[bytes]:
    """Yield pseudo-random bytes; a running number in each block makes up for repeating one block."""
    block = random.Random(seed).randbytes(_BLOCK_BYTES - 8)  # noqa: S311 (no secret)
    for number in range(-(-size_bytes // _BLOCK_BYTES)):
        left = size_bytes - number * _BLOCK_BYTES
        yield (number.to_bytes(8, "big") + block)[:left]


def _has_sidecar(made: Made) -> bool:
    return made.camera == "bwc-0552" and made.path.endswith(b"MOV_0002.MP4")


def _write_sidecar(folder: Path, made: Made) -> Made:
    name = made.path.rpartition(b"/")[2]
    line = made.sha256.encode() + b"  " + name + b"\n"
    return _write(folder, made.camera, made.path + b".sha256", [line])


def _write(
    folder: Path, camera: str, path: bytes, pieces: Iterable[bytes], *, truncated: bool = False
) -> Made:
    file = folder / camera / os.fsdecode(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    digest, size_bytes = hashlib.sha256(), 0
    with file.open("wb") as output:
        for piece in pieces:
            output.write(piece)
            digest.update(piece)
            size_bytes += len(piece)
    flagged = path.startswith(b"EVENT/")
    return Made(camera, path, size_bytes, digest.hexdigest(), flagged, truncated)


def _asset(name: str) -> bytes:
    return resources.files("dockd.demo").joinpath(name).read_bytes()
