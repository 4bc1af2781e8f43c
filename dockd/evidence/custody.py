"""The custody log: what happened to footage, in a chain that cannot be edited (INV-4).

Each entry is RFC 8785 canonical JSON that carries its number and the hash of the entry before it; the
dock signs its bytes. A change, a gap, a swap or an insertion breaks the chain. A cut tail leaves a
sound chain, so each upload carries the head of the moment and the store's receipt repeats it: a head
that a receipt knows and the log does not is proof of the cut. docs/custody-log.md tells others how to
verify a log without this program. Everything here is pure.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import rfc8785

from dockd.core.errors import CustodyBrokenError
from dockd.core.model import GENESIS, CustodyEvent, SealedEntry
from dockd.core.timestamps import to_rfc3339
from dockd.evidence.keys import SigningKey, VerifyingKey

__all__ = [
    "GENESIS",
    "VERSION",
    "ChainProblem",
    "ChainReport",
    "SealedEntry",
    "content",
    "from_export_line",
    "seal",
    "to_export_line",
    "verify_chain",
]

VERSION = 1

_FIELDS = frozenset({"v", "seq", "prev", "at", "dock", "event", "visit", "camera", "details"})
_PROBLEMS_KEPT = 100
_LARGEST_EXACT_INTEGER = 2**53 - 1


def seal(
    key: SigningKey, dock: str, previous_hash: str, seq: int, at: datetime, event: CustodyEvent
) -> SealedEntry:
    """Give an event its number, time and link, and sign it.

    Integers that not every JSON reader holds exactly become decimal text (RFC 7493 section 2.2).
    Raises ValueError when a detail is not text, an integer, a boolean, None, or a list or mapping of
    those: names that are bytes travel as a display name and base64.
    """
    entry = rfc8785.dumps(
        {
            "v": VERSION,
            "seq": seq,
            "prev": previous_hash,
            "at": to_rfc3339(at),
            "dock": dock,
            "event": event.event,
            "visit": event.visit,
            "camera": event.camera,
            "details": _plain(event.details),
        }
    )
    return SealedEntry(seq, _hash(entry), entry, key.sign(entry))


@dataclass(frozen=True, slots=True)
class ChainProblem:
    """What is wrong, and at which entry; ``seq`` is None when it is about the log as a whole."""

    seq: int | None
    text: str

    def __str__(self) -> str:
        """One line for people."""
        return self.text if self.seq is None else f"entry {self.seq}: {self.text}"


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a verification found.

    ``anchors`` counts the different heads that were looked for, ``head`` is the hash of the last
    entry. ``problems`` holds the first hundred, ``problem_count`` counts them all.
    """

    entries: int
    anchors: int
    head: str
    problems: tuple[ChainProblem, ...]
    problem_count: int

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem_count == 0


def verify_chain(
    entries: Iterable[SealedEntry], key: VerifyingKey, anchors: Iterable[str] = ()
) -> ChainReport:
    """Check a whole log, from its first entry on, and report everything that is wrong with it.

    ``anchors`` are heads that others have seen, from receipts. :data:`GENESIS` as an anchor is the head of
    the empty log, from which every log grows: no log contradicts it. Memory stays constant.
    """
    wanted = set(anchors)
    missing = wanted - {GENESIS}
    problems = _Problems()
    count, last_seq, head = 0, 0, GENESIS
    for sealed in entries:
        for text in _faults(sealed, key, last_seq, head):
            problems.add(sealed.seq, text)
        count, last_seq, head = count + 1, sealed.seq, _hash(sealed.entry)
        missing.discard(head)
    if count == 0:
        problems.add(None, "the log is empty, and even a new one has a first entry")
    for anchor in sorted(missing):
        problems.add(
            None, f"the log was cut or changed: {anchor} was its head once, and is not in it"
        )
    return ChainReport(count, len(wanted), head, tuple(problems.kept), problems.count)


def content(sealed: SealedEntry) -> object:
    """Return what an entry says, unverified: a JSON object, or mere text when it is no longer JSON."""
    try:
        return json.loads(sealed.entry)
    except (ValueError, RecursionError):
        return sealed.entry.decode("utf-8", "backslashreplace")


def to_export_line(sealed: SealedEntry) -> str:
    """Return an entry as one line of JSON for others: ``entry``, ``hash`` and ``signature`` (base64).

    An entry that is no longer JSON is exported as text, so that it is seen and does not verify.
    """
    signature = base64.b64encode(sealed.signature).decode()
    return json.dumps(
        {"entry": content(sealed), "hash": sealed.hash, "signature": signature},
        separators=(",", ":"),
    )


def from_export_line(line: str) -> SealedEntry:
    """Read such a line back. Raises :class:`CustodyBrokenError` when it is not one."""
    try:
        fields = json.loads(line)
        entry = fields["entry"]
        seq = entry.get("seq") if isinstance(entry, dict) else None
        return SealedEntry(
            seq=seq if isinstance(seq, int) else 0,
            hash=str(fields["hash"]),
            entry=rfc8785.dumps(entry),
            signature=base64.b64decode(fields["signature"], validate=True),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CustodyBrokenError(f"not a line of a custody export: {error}") from error


def _faults(sealed: SealedEntry, key: VerifyingKey, last_seq: int, head: str) -> Iterator[str]:
    if sealed.hash != _hash(sealed.entry):
        yield "its hash is not that of its content: one of them was changed"
    if not key.verifies(sealed.signature, sealed.entry):
        yield "its signature is not that of the key over this content"
    if sealed.seq != last_seq + 1:
        yield f"it comes where entry {last_seq + 1} should be"
    fields = _fields(sealed.entry)
    if fields is None:
        yield f"its content is not an entry of version {VERSION} in canonical JSON"
        return
    if fields["seq"] != sealed.seq:
        yield f"inside it says that it is entry {fields['seq']!r}"
    if fields["prev"] != head:
        yield "it does not follow the entry before it"


def _fields(entry: bytes) -> dict[str, object] | None:
    try:
        fields = json.loads(entry)
        if rfc8785.dumps(fields) != entry:
            return None
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.keys() != _FIELDS or fields["v"] != VERSION:
        return None
    return fields


class _Problems:
    def __init__(self) -> None:
        self.kept: list[ChainProblem] = []
        self.count = 0

    def add(self, seq: int | None, text: str) -> None:
        self.count += 1
        if len(self.kept) < _PROBLEMS_KEPT:
            self.kept.append(ChainProblem(seq, text))


def _hash(entry: bytes) -> str:
    return hashlib.sha256(entry).hexdigest()


def _plain(value: object) -> "_Json":
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) <= _LARGEST_EXACT_INTEGER else str(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {_name(name): _plain(item) for name, item in value.items()}
        case _:
            raise ValueError(f"a custody detail cannot be a {type(value).__name__}")


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise ValueError(f"a custody detail cannot be named by a {type(name).__name__}")  # noqa: TRY004 (as documented)
    return name


_Json = None | bool | int | str | list["_Json"] | dict[str, "_Json"]
