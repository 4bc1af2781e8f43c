"""Checksum files that a camera keeps beside its recordings: ``CLIP.MP4.sha256``, ``CLIP.MP4.md5``.

They are recordings themselves, and are read a second time to compare. The forms understood are those
of sha256sum and md5sum (GNU coreutils), their BSD ``--tag`` form, and the bare digest.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from dockd.core.model import display_name

_HEX_DIGITS = {"sha256": 64, "md5": 32}
_ESCAPES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}


class SidecarVerdict(StrEnum):
    """What a checksum file says of its recording."""

    MATCH = "match"
    MISMATCH = "mismatch"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The checksum file at ``path`` that belongs to ``recording``."""

    path: bytes
    recording: bytes
    algorithm: Literal["sha256", "md5"]

    def verdict(self, content: bytes, digest: str) -> SidecarVerdict:
        """Compare the file's content with the recording's digest by ``algorithm`` (hexadecimal).

        UNREADABLE when the content names no digest for this recording.
        """
        announced = announced_digest(content, self.algorithm, self.recording.rpartition(b"/")[2])
        if announced is None:
            return SidecarVerdict.UNREADABLE
        return SidecarVerdict.MATCH if announced == digest.lower() else SidecarVerdict.MISMATCH

    def mismatch(self, content: bytes, digest: str) -> str | None:
        """Return why the recording must not be erased, in words, or None when all is well."""
        name = display_name(self.path)
        match self.verdict(content, digest):
            case SidecarVerdict.MATCH:
                return None
            case SidecarVerdict.MISMATCH:
                return f"the {self.algorithm} that the camera wrote in {name} is another one"
            case SidecarVerdict.UNREADABLE:
                return f"the checksum file {name} cannot be understood"


def find_sidecars(paths: Collection[bytes]) -> dict[bytes, Sidecar]:
    """Return the checksum file of each recording that has one, by the recording's path.

    Of two, the SHA-256 counts. Letter case of the ending is ignored, as on the cameras' FAT. A name
    such as ``a.sha256`` without an ``a`` beside it is a recording like any other.
    """
    known = frozenset(paths)
    found: dict[bytes, Sidecar] = {}
    for path in sorted(known):
        recording, _, ending = path.rpartition(b".")
        if recording not in known:
            continue
        match ending.lower():
            case b"sha256":
                found[recording] = Sidecar(path, recording, "sha256")
            case b"md5":
                found.setdefault(recording, Sidecar(path, recording, "md5"))
    return found


def announced_digest(
    content: bytes, algorithm: Literal["sha256", "md5"], name: bytes
) -> str | None:
    """Return the digest, lower case, that a checksum file announces for the file ``name``.

    A line that names another file counts only when no line names this one and it is the only line:
    cameras rename clips and forget the name inside. Never raises.
    """
    announced = [line for line in map(_parser(algorithm), content.splitlines()) if line is not None]
    for digest, named in announced:
        if named is not None and name.lower() in _possible_names(named.lower()):
            return digest
    if len(announced) == 1:
        return announced[0][0]
    return None


@dataclass(frozen=True, slots=True)
class _Parser:
    forms: tuple[re.Pattern[bytes], ...]

    def __call__(self, line: bytes) -> tuple[str, bytes | None] | None:
        """Return digest and name of one line, None for a line of another kind."""
        for form in self.forms:
            if match := form.fullmatch(line.strip()):
                name = match["name"]
                if name is not None and match["escaped"]:
                    name = re.sub(rb"\\[\\nr]", lambda escape: _ESCAPES[escape[0]], name)
                return match["digest"].decode().lower(), name
        return None


def _parser(algorithm: Literal["sha256", "md5"]) -> _Parser:
    """Return what understands lines of this digest.

    A byte-order mark may come first; a backslash before all says that the name is escaped. Each form
    is matched in linear time, because the content may be hostile.
    """
    begin = rb"(?:\xef\xbb\xbf)?(?P<escaped>\\)?"
    digest = rb"(?P<digest>[0-9a-f]{%d})" % _HEX_DIGITS[algorithm]
    coreutils = begin + digest + rb"(?:[ \t]+\*?(?P<name>.*))?"
    tagged = begin + algorithm.encode() + rb" ?\((?P<name>.+)\) ?= ?" + digest
    return _Parser((re.compile(coreutils, re.IGNORECASE), re.compile(tagged, re.IGNORECASE)))


def _possible_names(named: bytes) -> frozenset[bytes]:
    """Return what the last component of a path may be; a backslash separates, or belongs to it."""
    name = named.rpartition(b"/")[2]
    return frozenset({name, name.rpartition(b"\\")[2]})
