"""A recording's life, and what a new listing means for known recordings."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.model import FileStat, ListedFile, Listing, Recording, RecordingState
from dockd.core.recording import (
    TRANSITIONS,
    IllegalRecordingEventError,
    RecordingEvent,
    after,
    carry_over,
    compare,
    flagged_paths,
    upload_key,
)

S, E = RecordingState, RecordingEvent


def listed(path: bytes, size_bytes: int = 10, mtime_ns: int = 5) -> ListedFile:
    return ListedFile(path, FileStat(size_bytes, mtime_ns, ctime_ns=7, inode=1))


def known(path: bytes, state: RecordingState = S.PENDING, size_bytes: int = 10) -> Recording:
    return Recording("visit", path, size_bytes, 5, state=state)


@pytest.mark.parametrize(("state", "event"), list(product(S, E)))
def test_every_pair_leads_somewhere_or_is_refused(
    state: RecordingState, event: RecordingEvent
) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalRecordingEventError):
            after(state, event)


def test_confirmed_comes_only_from_a_receipt() -> None:
    """INV-1: nothing but an accepted receipt makes a recording confirmed."""
    ways = [pair for pair, state in TRANSITIONS.items() if state is S.CONFIRMED]
    assert ways == [(S.SENT, E.RECEIPT_ACCEPTED)]


def test_only_confirmed_recordings_are_erased() -> None:
    """INV-1."""
    assert [state for (state, _), after in TRANSITIONS.items() if after is S.ERASED] == [
        S.CONFIRMED
    ]


def test_no_recording_on_the_camera_is_forgotten() -> None:
    """INV-2: a recording is "vanished" only when its file is gone, and never when it was proved."""
    ways = {pair for pair, state in TRANSITIONS.items() if state is S.VANISHED}
    assert {event for _, event in ways} == {E.FILE_GONE}
    assert S.CONFIRMED not in {state for state, _ in ways}


@pytest.mark.parametrize("state", sorted(S))
def test_a_changed_file_is_sent_again_whatever_was_known_of_it(state: RecordingState) -> None:
    """INV-1: old proof does not cover new bytes."""
    assert after(state, E.FILE_CHANGED) is S.PENDING


def test_a_listing_is_compared_with_what_is_known() -> None:
    found = compare(
        Listing((listed(b"new"), listed(b"same"), listed(b"grown", size_bytes=11))),
        [known(b"same"), known(b"grown"), known(b"gone"), known(b"proved and gone", S.CONFIRMED)],
    )
    assert [file.path for file in found.new] == [b"new"]
    assert [file.path for file in found.changed] == [b"grown"]
    assert found.vanished == (b"gone",)


def test_a_name_used_again_after_the_wipe_is_another_recording() -> None:
    """INV-1: cameras count from MOV_0001 again; the old receipt is not the new clip's."""
    erased = replace(known(b"MOV_0001.MP4", S.ERASED), receipt="old", sha256="0" * 64)
    found = compare(Listing((listed(b"MOV_0001.MP4"),)), [erased])
    assert [file.path for file in found.changed] == [b"MOV_0001.MP4"]
    assert carry_over("next", listed(b"MOV_0001.MP4"), erased).receipt is None


def test_a_receipt_of_an_earlier_visit_is_carried_over() -> None:
    earlier = replace(
        known(b"a", S.CONFIRMED), receipt="jws", sha256="1" * 64, blocks_wipe="no", upload_url="u"
    )
    carried = carry_over("next", listed(b"a"), earlier)
    assert carried == replace(earlier, visit_id="next")


@pytest.mark.parametrize("state", [S.PENDING, S.UPLOADING, S.SENT, S.QUARANTINED])
def test_an_upload_begun_in_an_earlier_visit_goes_on(state: RecordingState) -> None:
    """INV-3: an unplug in mid-upload costs no second upload."""
    earlier = replace(known(b"a", state), upload_url="url", upload_key="key", sha256="1" * 64)
    carried = carry_over("next", listed(b"a"), earlier)
    assert (carried.state, carried.upload_url, carried.upload_key) == (S.PENDING, "url", "key")
    assert carried.sha256 is None


@pytest.mark.parametrize("file", [listed(b"a", size_bytes=11), listed(b"a", mtime_ns=6)])
def test_nothing_is_carried_over_for_a_file_that_looks_different(file: ListedFile) -> None:
    earlier = replace(known(b"a", S.CONFIRMED), receipt="jws", upload_url="url")
    assert carry_over("next", file, earlier) == Recording(
        "next", b"a", file.stat.size_bytes, file.stat.mtime_ns
    )


@pytest.mark.parametrize(
    ("path", "flagged"),
    [
        (b"EVENT/MOV_1.MP4", True),
        (b"DCIM/RO/MOV_1.MP4", True),
        (b"DCIM/MOV_1.MP4", False),
        (b"event/\xff\n.mp4", True),
    ],
)
def test_flagged_recordings_are_known_by_their_path(path: bytes, flagged: bool) -> None:
    assert (path in flagged_paths([path], ["event/*", "*/Ro/*"])) is flagged


names = st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name)
keyed = st.tuples(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
    st.builds(Recording, st.just("v"), names, st.integers(0, 99), st.integers(0, 99)),
    st.none() | st.sampled_from(["0" * 64, "1" * 64]),
)


@given(keyed, keyed)
def test_upload_keys_differ_exactly_when_what_they_name_differs(
    one: tuple[str, Recording, str | None], other: tuple[str, Recording, str | None]
) -> None:
    assert (upload_key(*one) == upload_key(*other)) == (one == other)
