"""The container check over real small files (made with ffmpeg), files made by hand, and nonsense."""

import copy
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.model import Container, ContainerVerdict
from dockd.evidence.container import ContainerCheck

MEDIA = Path(__file__).parent / "media"
OK, TRUNCATED = ContainerVerdict.OK, ContainerVerdict.TRUNCATED
UNFINALISED, UNRECOGNISED = ContainerVerdict.UNFINALISED, ContainerVerdict.UNRECOGNISED


def check(data: bytes, chunk_bytes: int = 1 << 20) -> Container:
    check = ContainerCheck()
    for begin in range(0, len(data), chunk_bytes):
        check.feed(data[begin : begin + chunk_bytes])
    return check.finish(len(data))


def box(kind: bytes, content: bytes = b"", *, large: bool = False) -> bytes:
    if large:
        return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), kind) + content


def riff(kind: bytes, *chunks: bytes) -> bytes:
    return chunk(b"RIFF", kind + b"".join(chunks))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)


FTYP = box(b"ftyp", b"isom\0\0\2\0isomiso2")
MOVI = chunk(b"LIST", b"movi" + chunk(b"00dc", b"frame"))


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("whole.mp4", "mp4"),
        ("faststart.mp4", "mp4"),
        ("fragmented.mp4", "mp4"),
        ("whole.3gp", "3gp"),
        ("whole.avi", "avi"),
        ("whole.mkv", "matroska"),
        ("whole.webm", "webm"),
        ("whole.jpg", "jpeg"),
    ],
)
def test_real_files(name: str, format_: str) -> None:
    data = (MEDIA / name).read_bytes()
    assert check(data) == Container(format_, OK)
    assert check(data[: len(data) * 2 // 3]).verdict is TRUNCATED
    assert check(data[:-1]).verdict is TRUNCATED
    assert check(data + bytes(40_000)).verdict is OK, "cameras fill the last block with zeros"


@pytest.mark.parametrize(("name", "format_"), [("live.mkv", "matroska"), ("live.avi", "avi")])
def test_real_files_whose_writer_never_came_back(name: str, format_: str) -> None:
    found = check((MEDIA / name).read_bytes())
    assert (found.format, found.verdict) == (format_, UNFINALISED)


@pytest.mark.parametrize(
    ("data", "format_", "verdict", "words"),
    [
        (FTYP + box(b"moov", b"x" * 9) + box(b"mdat", b"y"), "mp4", OK, ""),
        (FTYP + box(b"mdat", b"y" * 99, large=True) + box(b"moov"), "mp4", OK, ""),
        (FTYP + box(b"moov") + struct.pack(">I4s", 0, b"mdat") + b"y" * 9, "mp4", OK, ""),
        (box(b"moov") + box(b"mdat", b"y"), "mov", OK, ""),
        (box(b"ftyp", b"qt  ") + box(b"wide") + box(b"mdat") + box(b"moov"), "mov", OK, ""),
        (box(b"ftyp", b"heic") + box(b"meta") + box(b"mdat"), "heif", OK, ""),
        (FTYP + box(b"moov") + box(b"mdat") + b"\xff" * 20, "mp4", OK, "20 bytes"),
        (FTYP + box(b"mdat", b"y" * 99), "mp4", UNFINALISED, "moov"),
        (FTYP + struct.pack(">I4s", 0, b"mdat") + b"y" * 9, "mp4", UNFINALISED, "moov"),
        (FTYP + box(b"free"), "mp4", UNFINALISED, "moov"),
        (FTYP + box(b"moov"), "mp4", TRUNCATED, "mdat"),
        (FTYP + box(b"moov") + box(b"mdat", b"y" * 99)[:-9], "mp4", TRUNCATED, "9 bytes past"),
        (FTYP + box(b"moov") + box(b"mdat", b"", large=True)[:12], "mp4", TRUNCATED, "header"),
        (FTYP + box(b"moov") + box(b"mdat") + b"\0\0\0", "mp4", TRUNCATED, "header"),
        (FTYP + struct.pack(">I4sQ", 1, b"mdat", 1 << 63), "mp4", TRUNCATED, "past the end"),
        (riff(b"AVI ", MOVI, chunk(b"idx1", b"i")), "avi", OK, ""),
        (
            riff(b"AVI ", chunk(b"LIST", b"hdrl" + chunk(b"LIST", b"strl" + chunk(b"indx", b"")))
                 + MOVI) + riff(b"AVIX", MOVI),
            "avi", OK, "",
        ),
        (riff(b"AVI ", MOVI), "avi", UNFINALISED, "idx1"),
        (riff(b"AVI ", chunk(b"JUNK", b"x" * 9)), "avi", TRUNCATED, "movi"),
        (b"\x1a\x45\xdf\xa3\x80", "matroska", TRUNCATED, "segment"),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x82xy" + b"\0" * 9, "matroska", OK, ""),
        (b"\xff\xd8\xff\xe0 and no end", "jpeg", TRUNCATED, "end-of-image"),
        (b"", "none", UNRECOGNISED, "empty"),
        (b"\0" * 4096, "unknown", UNRECOGNISED, ""),
        (b"date,time,latitude\n", "unknown", UNRECOGNISED, ""),
    ],
)  # fmt: skip
def test_files_made_by_hand(
    data: bytes, format_: str, verdict: ContainerVerdict, words: str
) -> None:
    found = check(data)
    assert (found.format, found.verdict) == (format_, verdict)
    assert words in found.detail


SAMPLES = [file.read_bytes() for file in sorted(MEDIA.iterdir())]


@given(st.sampled_from(SAMPLES), st.integers(1, 200), st.data())
def test_chunks_make_no_difference(sample: bytes, chunk_bytes: int, data: st.DataObject) -> None:
    sample = sample[: data.draw(st.integers(0, len(sample)))]
    assert check(sample, chunk_bytes) == check(sample)


@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=9))))
def test_damage_never_raises(sample: bytes, damage: list[tuple[int, bytes]]) -> None:
    """INV-2: a damaged recording is footage too."""
    broken = bytearray(sample)
    for offset, garbage in damage:
        broken[offset : offset + len(garbage)] = garbage
    assert check(bytes(broken), 50) == check(bytes(broken))


@given(st.sampled_from([b"", FTYP, b"RIFF\0\1\0\0AVI ", b"\x1a\x45\xdf\xa3"]), st.binary())
def test_nonsense_never_raises(begin: bytes, rest: bytes) -> None:
    assert check(begin + rest, 3) == check(begin + rest)


def test_a_copy_goes_on_by_itself() -> None:
    whole = (MEDIA / "whole.mp4").read_bytes()
    first = ContainerCheck()
    first.feed(whole[:50])
    earlier = copy.copy(first)
    first.feed(b"something else entirely" * 99)
    earlier.feed(whole[50:100])
    later = copy.copy(earlier)
    later.feed(whole[100:])
    assert later.finish(len(whole)) == Container("mp4", OK)
    assert later.finish(len(whole)) == Container("mp4", OK), "asking changes nothing"


def test_a_recording_not_read_to_its_end_is_not_judged() -> None:
    found = ContainerCheck()
    found.feed(FTYP)
    assert found.finish(1000) == Container(
        "mp4", UNRECOGNISED, f"only {len(FTYP)} of 1000 bytes were looked at"
    )


def test_millions_of_empty_boxes_are_given_up() -> None:
    """INV-8: one hostile file does not cost a core."""
    data = FTYP + box(b"moov") + box(b"mdat") + box(b"free") * (1 << 17)
    found = ContainerCheck()
    found.feed(data)
    assert found.finish(len(data)).verdict is OK


def test_what_is_kept_does_not_grow() -> None:
    found = ContainerCheck()
    found.feed(FTYP + struct.pack(">I4sQ", 1, b"mdat", 1 << 40))
    for _ in range(100):
        found.feed(b"y" * 100_000)
    kept = [getattr(found, name) for name in ContainerCheck.__slots__]
    assert sum(len(value) for value in kept if isinstance(value, bytes)) < 200
