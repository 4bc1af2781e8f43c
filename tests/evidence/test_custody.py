import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given
from hypothesis import strategies as st

from dockd.core.errors import CustodyBrokenError
from dockd.core.model import CustodyEvent
from dockd.evidence.custody import (
    GENESIS,
    SealedEntry,
    from_export_line,
    seal,
    to_export_line,
    verify_chain,
)
from dockd.evidence.keys import SigningKey

KEY = SigningKey(Ed25519PrivateKey.generate())
OTHER = SigningKey(Ed25519PrivateKey.generate())
START = datetime(2026, 1, 1, tzinfo=UTC)
LENGTH = 8

DETAILS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=8,
)


def extend(entries: list[SealedEntry], event: CustodyEvent, key: SigningKey = KEY) -> None:
    head = entries[-1].hash if entries else GENESIS
    at = START + timedelta(seconds=len(entries))
    entries.append(seal(key, "dock-1", head, len(entries) + 1, at, event))


def build(length: int) -> list[SealedEntry]:
    entries: list[SealedEntry] = []
    for number in range(length):
        extend(entries, CustodyEvent("counted", "visit-1", "camera-1", {"number": number}))
    return entries


CHAIN = build(LENGTH)


def altered(sealed: SealedEntry, **changes: object) -> SealedEntry:
    """Another content, its hash with it, under the old signature."""
    entry = rfc8785.dumps(json.loads(sealed.entry) | changes)
    return replace(sealed, entry=entry, hash=hashlib.sha256(entry).hexdigest())


def numbers(entries: list[SealedEntry], *anchors: str) -> list[int | None]:
    return [problem.seq for problem in verify_chain(entries, KEY.public, anchors).problems]


def test_entry_has_exactly_the_documented_fields() -> None:
    at = datetime(2026, 1, 1, 12, 30, 15, 250, UTC)
    event = CustodyEvent("visit.began", "visit-1", "camera-1", {"bay": "1", "sizes": (1, 2**60)})
    sealed = seal(KEY, "dock-1", GENESIS, 1, at, event)
    assert json.loads(sealed.entry) == {
        "v": 1,
        "seq": 1,
        "prev": GENESIS,
        "at": "2026-01-01T12:30:15.000250Z",
        "dock": "dock-1",
        "event": "visit.began",
        "visit": "visit-1",
        "camera": "camera-1",
        "details": {"bay": "1", "sizes": [1, "1152921504606846976"]},
    }
    assert sealed.entry == rfc8785.dumps(json.loads(sealed.entry))
    assert sealed.hash == hashlib.sha256(sealed.entry).hexdigest()
    assert KEY.public.verifies(sealed.signature, sealed.entry)


@pytest.mark.parametrize("value", [1.5, b"name", {1: 2}, [object()], "\ud800"])
def test_what_json_readers_do_not_share_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        seal(KEY, "dock-1", GENESIS, 1, START, CustodyEvent("x", details={"value": value}))


@given(details=st.lists(st.dictionaries(st.text(max_size=10), DETAILS, max_size=3), max_size=4))
def test_chain_of_any_details_is_sound_and_survives_export(
    details: list[dict[str, object]],
) -> None:
    entries: list[SealedEntry] = []
    extend(entries, CustodyEvent("log.started"))
    for each in details:
        extend(entries, CustodyEvent("happened", details=each))
    exported = [from_export_line(to_export_line(sealed)) for sealed in entries]
    assert exported == entries
    report = verify_chain(exported, KEY.public, [sealed.hash for sealed in entries])
    assert report.sound
    assert report.entries == len(entries)
    assert report.head == entries[-1].hash


@given(
    at=st.integers(0, LENGTH - 1),
    field=st.sampled_from(
        ["v", "seq", "prev", "at", "dock", "event", "visit", "camera", "details"]
    ),
    value=st.integers(0, 20) | st.text(max_size=5) | st.none(),
)
def test_changed_entry_is_found(at: int, field: str, value: object) -> None:
    """INV-4: a changed entry shows, even with its hash computed anew."""
    changed = altered(CHAIN[at], **{field: value})
    assume(changed != CHAIN[at])
    assert at + 1 in numbers([*CHAIN[:at], changed, *CHAIN[at + 1 :]])


@given(at=st.integers(0, LENGTH - 1), position=st.integers(0), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(at: int, position: int, bit: int) -> None:
    """INV-4: in content or signature, a single bit is enough."""
    whole = bytearray(CHAIN[at].entry + CHAIN[at].signature)
    whole[position % len(whole)] ^= 1 << bit
    length = len(CHAIN[at].entry)
    changed = replace(CHAIN[at], entry=bytes(whole[:length]), signature=bytes(whole[length:]))
    assert at + 1 in numbers([*CHAIN[:at], changed, *CHAIN[at + 1 :]])


@given(at=st.integers(0, LENGTH - 1))
def test_changed_hash_is_found(at: int) -> None:
    """INV-4."""
    changed = replace(CHAIN[at], hash="ab" * 32)
    assert numbers([*CHAIN[:at], changed, *CHAIN[at + 1 :]]) == [at + 1]


@given(st.data())
def test_removed_entries_are_found(data: st.DataObject) -> None:
    """INV-4: whatever is taken out before the last entry leaves a gap that names what is missing."""
    kept = data.draw(st.sets(st.integers(0, LENGTH - 2), max_size=LENGTH - 2))
    entries = [CHAIN[index] for index in sorted(kept)] + [CHAIN[-1]]
    problems = verify_chain(entries, KEY.public).problems
    assert problems
    first_gap = next(number for number in range(LENGTH) if number not in kept)
    assert f"where entry {first_gap + 1} should be" in str(problems[0])


@given(order=st.permutations(CHAIN))
def test_any_other_order_is_found(order: list[SealedEntry]) -> None:
    """INV-4: swapped entries show."""
    assume(order != CHAIN)
    assert not verify_chain(order, KEY.public).sound


@given(first=st.integers(0, LENGTH - 1), second=st.integers(0, LENGTH - 1))
def test_swapped_content_under_the_old_numbers_is_found(first: int, second: int) -> None:
    """INV-4: rows keep their numbers, their contents change places."""
    assume(first != second)
    entries = list(CHAIN)
    entries[first] = replace(CHAIN[second], seq=CHAIN[first].seq)
    entries[second] = replace(CHAIN[first], seq=CHAIN[second].seq)
    assert {first + 1, second + 1} <= set(numbers(entries))


@given(at=st.integers(0, LENGTH), copied=st.integers(0, LENGTH - 1))
def test_inserted_copy_is_found(at: int, copied: int) -> None:
    """INV-4: even an entry that was signed once, played again."""
    assert numbers([*CHAIN[:at], CHAIN[copied], *CHAIN[at:]])


@given(at=st.integers(0, LENGTH))
def test_inserted_entry_of_another_key_is_found(at: int) -> None:
    """INV-4: an insertion that even renumbers what follows cannot sign it."""
    entries = CHAIN[:at]
    for number in range(at, LENGTH):
        extend(entries, CustodyEvent("forged", details={"number": number}), OTHER)
    extend(entries, CustodyEvent("forged"), OTHER)
    assert numbers(entries) == list(range(at + 1, LENGTH + 2))


@given(kept=st.integers(0, LENGTH - 1), anchor=st.integers(0, LENGTH - 1))
def test_cut_tail_is_found_by_its_anchor(kept: int, anchor: int) -> None:
    """INV-4: without a receipt a cut looks sound; with one from after the cut it does not."""
    report = verify_chain(CHAIN[:kept], KEY.public, [CHAIN[anchor].hash])
    assert report.sound == (0 <= anchor < kept)
    if anchor >= kept:
        assert any(CHAIN[anchor].hash in str(problem) for problem in report.problems)


def test_log_begun_anew_is_found_by_an_old_anchor() -> None:
    """INV-4: a whole new chain, soundly signed, does not hold the head that a receipt knows."""
    fresh: list[SealedEntry] = []
    extend(fresh, CustodyEvent("log.started"))
    assert verify_chain(fresh, KEY.public).sound
    assert numbers(fresh, CHAIN[3].hash) == [None]


def test_head_of_the_empty_log_contradicts_no_log() -> None:
    assert verify_chain(CHAIN, KEY.public, [GENESIS]).sound


def test_log_without_any_entry_is_not_sound() -> None:
    """INV-4: a new log has one entry, so none at all means that they were taken out."""
    assert numbers([]) == [None]
    assert numbers([], GENESIS) == [None]


def test_wrong_key_fails_every_entry() -> None:
    report = verify_chain(CHAIN, OTHER.public)
    assert [problem.seq for problem in report.problems] == list(range(1, LENGTH + 1))


def test_report_keeps_a_hundred_problems_and_counts_all() -> None:
    report = verify_chain(CHAIN * 20, OTHER.public)
    assert len(report.problems) == 100
    assert report.problem_count > 160
    assert not report.sound


def test_content_that_is_not_canonical_is_found_although_signed() -> None:
    entry = json.dumps(json.loads(CHAIN[0].entry)).encode()
    loose = SealedEntry(1, hashlib.sha256(entry).hexdigest(), entry, KEY.sign(entry))
    assert "canonical" in str(verify_chain([loose], KEY.public).problems[0])


def test_entry_of_another_version_is_found_although_signed() -> None:
    entry = rfc8785.dumps(json.loads(CHAIN[0].entry) | {"v": 2})
    later = SealedEntry(1, hashlib.sha256(entry).hexdigest(), entry, KEY.sign(entry))
    assert numbers([later]) == [1]


def test_entry_that_gives_itself_another_number_is_found_although_signed() -> None:
    sealed = seal(KEY, "dock-1", GENESIS, 7, START, CustodyEvent("log.started"))
    assert numbers([replace(sealed, seq=1)]) == [1]


@pytest.mark.parametrize("entry", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b"1e400"])
def test_content_that_is_no_entry_is_found_and_can_be_exported(entry: bytes) -> None:
    """INV-2: damage is shown, in an export too."""
    bad = SealedEntry(1, hashlib.sha256(entry).hexdigest(), entry, KEY.sign(entry))
    assert not verify_chain([bad], KEY.public).sound


@pytest.mark.parametrize("entry", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_unreadable_content_survives_into_an_export_that_does_not_verify(entry: bytes) -> None:
    bad = SealedEntry(1, hashlib.sha256(entry).hexdigest(), entry, KEY.sign(entry))
    exported = from_export_line(to_export_line(bad))
    assert not verify_chain([exported], KEY.public).sound


LINE = json.loads(to_export_line(CHAIN[0]))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "text",
        "[]",
        "5",
        json.dumps({"entry": LINE["entry"], "hash": LINE["hash"]}),
        json.dumps(LINE | {"signature": "not base64!"}),
        json.dumps(LINE | {"signature": 5}),
        json.dumps(LINE | {"entry": {"seq": 2**60}}),
        "[" * 100_000,
    ],
)
def test_what_is_no_export_line_is_refused(line: str) -> None:
    with pytest.raises(CustodyBrokenError):
        from_export_line(line)
