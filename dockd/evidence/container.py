"""What the structure of a recording says: whole, cut off, or never finished. It describes only.

The check is fed with the same chunks as the digest. It looks at the headers of boxes and lists and
skips what they enclose by arithmetic, so its cost does not depend on the recording's size, and it
keeps a few dozen bytes. No input makes it raise: cameras write what they like.

Formats: ISO base media (ISO/IEC 14496-12: MP4, MOV, 3GP, HEIF), AVI (RIFF), Matroska and WebM
(RFC 8794, RFC 9559), JPEG (ITU-T T.81).
"""

import copy
from dataclasses import dataclass
from typing import ClassVar, Protocol

from dockd.core.model import Container, ContainerVerdict, display_name

_OK = ContainerVerdict.OK
_TRUNCATED = ContainerVerdict.TRUNCATED
_UNFINALISED = ContainerVerdict.UNFINALISED
_UNRECOGNISED = ContainerVerdict.UNRECOGNISED

_HEAD_BYTES = 64
"""Bytes at the beginning that tell all formats apart."""

_TAIL_BYTES = 2
"""Bytes kept of the end, zeros not counted."""

_MOST_PARTS = 1 << 16
"""Boxes or chunks looked at; a recording has dozens, and millions of empty ones tell nothing."""


class _Walker(Protocol):
    """Walks through one format. It wants ``need`` bytes at ``offset`` next; no need, no more steps."""

    offset: int
    need: int

    def take(self, data: bytes) -> None:
        """Look at the bytes wanted, and move on: ``offset`` never goes back."""

    def finish(self, size_bytes: int, rest: bytes, tail: bytes) -> Container:
        """Judge a recording of this size.

        ``rest`` is what came of the bytes wanted last, ``tail`` the last bytes before any zeros.
        """


class ContainerCheck:
    """Feed it every byte of a recording in order, then ask. A ``copy.copy`` goes on by itself."""

    __slots__ = ("_head", "_held", "_position", "_tail", "_walker")

    def __init__(self) -> None:
        """Build before the first byte."""
        self._position = 0
        self._head = b""
        self._held = b""
        self._tail = b""
        self._walker: _Walker | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the recording."""
        begin = self._position
        self._position += len(chunk)
        # Some cameras fill their last block with zeros.
        self._tail = (self._tail + chunk.rstrip(b"\0")[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        if self._walker is None:
            self._head += chunk[: _HEAD_BYTES - len(self._head)]
            if len(self._head) < _HEAD_BYTES:
                return
            self._walk(self._recognised(), 0, self._head)
        self._walk(self._recognised(), begin, chunk)

    def finish(self, size_bytes: int) -> Container:
        """Return what is known of a recording of this size; may be asked at any time."""
        if size_bytes == 0:
            return Container("none", _UNRECOGNISED, "the file is empty")
        check = copy.copy(self)
        walker = check._recognised()  # noqa: SLF001 - our own copy
        if self._walker is None:
            check._walk(walker, 0, check._head)  # noqa: SLF001 - our own copy
        if self._position != size_bytes:
            words = f"only {self._position} of {size_bytes} bytes were looked at"
            return Container(walker.finish(size_bytes, b"", b"").format, _UNRECOGNISED, words)
        rest = check._held if walker.need else b""  # noqa: SLF001 - our own copy
        return walker.finish(size_bytes, rest, self._tail)

    def __copy__(self) -> "ContainerCheck":
        """Return an independent check that knows the same bytes."""
        other = ContainerCheck()
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        other._walker = copy.copy(self._walker)
        return other

    def _recognised(self) -> _Walker:
        if self._walker is None:
            self._walker = _recognise(self._head)
        return self._walker

    def _walk(self, walker: _Walker, begin: int, data: bytes) -> None:
        """Give the walker what it wants of ``data``, which starts at byte ``begin``."""
        while walker.need:
            missing = walker.need - len(self._held)
            if missing > 0:
                start = walker.offset + len(self._held) - begin
                if start >= len(data):
                    return
                self._held += data[start : start + missing]
                if len(self._held) < walker.need:
                    return
            held, offset = self._held, walker.offset
            walker.take(held[: walker.need])
            self._held = held[walker.offset - offset :]


def _recognise(head: bytes) -> _Walker:
    if head[4:8] in _IsoMedia.FIRST_BOXES:
        return _IsoMedia(_IsoMedia.format_of(head))
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _Avi()
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _Matroska("webm" if b"webm" in head else "matroska")
    if head[:3] == b"\xff\xd8\xff":
        return _Jpeg()
    return _Unknown()


@dataclass(slots=True)
class _Unknown:
    offset: int = 0
    need: int = 0

    def take(self, data: bytes) -> None:
        """Nothing is wanted."""

    def finish(self, _size_bytes: int, _rest: bytes, _tail: bytes) -> Container:
        return Container("unknown", _UNRECOGNISED, "no format that dockd knows")


@dataclass(slots=True)
class _Jpeg:
    offset: int = 0
    need: int = 0

    def take(self, data: bytes) -> None:
        """Nothing is wanted."""

    def finish(self, _size_bytes: int, _rest: bytes, tail: bytes) -> Container:
        if tail == b"\xff\xd9":
            return Container("jpeg", _OK)
        return Container("jpeg", _TRUNCATED, "the end-of-image marker is missing")


@dataclass(slots=True)
class _IsoMedia:
    """Top-level boxes: 32-bit size and type, then perhaps a 64-bit size (section 4.2)."""

    FIRST_BOXES: ClassVar[frozenset[bytes]] = frozenset(
        {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}
    )
    STILLS: ClassVar[frozenset[bytes]] = frozenset({b"heic", b"heix", b"mif1", b"avif"})

    format: str
    offset: int = 0
    need: int = 8
    box: bytes = b""
    box_offset: int = 0
    index: bool = False
    media: bool = False
    junk_at: int | None = None
    parts: int = 0

    @classmethod
    def format_of(cls, head: bytes) -> str:
        """Return the short name by the major brand; files older than brands are QuickTime's."""
        brand = head[8:12] if head[4:8] == b"ftyp" else b"qt  "
        if brand in cls.STILLS:
            return "heif"
        if brand == b"qt  ":
            return "mov"
        return "3gp" if brand.startswith(b"3g") else "mp4"

    def take(self, data: bytes) -> None:
        if self.offset == self.box_offset:
            size, self.box = int.from_bytes(data[:4], "big"), data[4:8]
            if size == 1:
                self.offset += 8
                return
            header = 8
        else:
            size, header = int.from_bytes(data, "big"), 16
        if not self.box.isascii() or not self.box.strip(b"\0") or 0 < size < header:
            self.junk_at, self.need = self.box_offset, 0
            return
        self.index |= self.box == (b"meta" if self.format == "heif" else b"moov")
        self.media |= self.box == b"mdat"
        self.parts += 1
        self.offset = self.box_offset = self.box_offset + size
        if size == 0 or self.parts == _MOST_PARTS:  # size 0: the box goes on to the end
            self.need = 0

    def finish(self, size_bytes: int, rest: bytes, _tail: bytes) -> Container:
        missing = self.box_offset - size_bytes
        if missing > 0:
            words = f"box {display_name(self.box)} reaches {missing} bytes past the end"
            return Container(self.format, _TRUNCATED, words)
        if not self.index:
            words = "the index (moov) is missing: recording was not ended properly"
            return Container(self.format, _UNFINALISED, words)
        if rest or self.offset != self.box_offset:
            return Container(self.format, _TRUNCATED, "it ends inside the header of a box")
        if not self.media:
            return Container(self.format, _TRUNCATED, "the media data (mdat) is missing")
        if self.junk_at is not None:
            words = f"{size_bytes - self.junk_at} bytes after the last box are something else"
            return Container(self.format, _OK, words)
        return Container(self.format, _OK)


@dataclass(slots=True)
class _Avi:
    """Chunks: type and 32-bit size; a LIST has a second type. Large files are several RIFFs."""

    OPENED: ClassVar[frozenset[bytes]] = frozenset({b"AVI ", b"AVIX", b"hdrl", b"strl"})
    """Lists whose chunks are looked at; the other lists are skipped."""

    offset: int = 0
    need: int = 8
    end: int = 0
    unsized: bool = False
    index: bool = False
    media: bool = False
    parts: int = 0

    def take(self, data: bytes) -> None:
        name, size, kind = data[:4], int.from_bytes(data[4:8], "little"), data[8:]
        if name in (b"RIFF", b"LIST") and not kind:
            self.need = 12
            return
        self.need = 8
        if name == b"RIFF":
            self.end = self.offset + 8 + size
            self.unsized |= size in (0, 0xFFFFFFFF)
        elif self.offset >= self.end:
            self.need = 0  # something else after the last RIFF
            return
        self.index |= name in (b"idx1", b"indx")
        self.media |= name == b"LIST" and kind == b"movi"
        self.offset += 12 if kind in self.OPENED else 8 + size + size % 2
        self.parts += 1
        if self.parts == _MOST_PARTS:
            self.need = 0

    def finish(self, size_bytes: int, _rest: bytes, _tail: bytes) -> Container:
        if self.unsized:
            return Container("avi", _UNFINALISED, "its size was never filled in")
        if self.end > size_bytes:
            words = f"{self.end - size_bytes} bytes are missing at the end"
            return Container("avi", _TRUNCATED, words)
        if not self.media:
            return Container("avi", _TRUNCATED, "the media data (movi) is missing")
        if not self.index:
            return Container("avi", _UNFINALISED, "the index (idx1) is missing")
        return Container("avi", _OK)


@dataclass(slots=True)
class _Matroska:
    """The EBML header, then the Segment; its size is unknown while it is being written."""

    SEGMENT: ClassVar[bytes] = b"\x18\x53\x80\x67"

    format: str
    offset: int = 0
    need: int = 12
    found: bool = False
    end: int | None = None

    def take(self, data: bytes) -> None:
        size, length = _variable_size(data[4:])
        if self.offset == 0 and size is not None:
            self.offset = 4 + length + size
            return
        self.found = data[:4] == self.SEGMENT
        self.need = 0
        if self.found and size is not None:
            self.end = self.offset + 4 + length + size

    def finish(self, size_bytes: int, _rest: bytes, _tail: bytes) -> Container:
        if not self.found:
            return Container(self.format, _TRUNCATED, "there is no segment")
        if self.end is None:
            words = "the size of its segment was never filled in"
            return Container(self.format, _UNFINALISED, words)
        if self.end > size_bytes:
            words = f"{self.end - size_bytes} bytes are missing at the end"
            return Container(self.format, _TRUNCATED, words)
        return Container(self.format, _OK)


def _variable_size(data: bytes) -> tuple[int | None, int]:
    """Return an EBML size and its own length; None for "unknown" (RFC 8794 section 6.2)."""
    length = 9 - data[0].bit_length()
    if length > 8:
        return None, 1
    bits = 7 * length
    value = int.from_bytes(data[:length], "big") & ((1 << bits) - 1)
    return (None if value == (1 << bits) - 1 else value), length
