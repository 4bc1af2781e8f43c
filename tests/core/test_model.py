"""Plain data, and the one function that shows names to people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core import errors
from dockd.core.model import Listing, SkippedEntry, SkipReason, display_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"DCIM/MOV_0001.MP4", "DCIM/MOV_0001.MP4"),
        ("été.mp4".encode(), "été.mp4"),
        (b"\xe9t\xe9.mp4", r"\xe9t\xe9.mp4"),
        (b"two\nlines", r"two\nlines"),
        (b"back\\slash", r"back\\slash"),
        ("right\u202eleft".encode(), r"right\u202eleft"),
        (b"\x1b[31mred", r"\x1b[31mred"),
    ],
)
def test_names_are_shown_on_one_printable_line(name: bytes, shown: str) -> None:
    assert display_name(name) == shown


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_two_names_never_look_the_same(one: bytes, other: bytes) -> None:
    """INV-2: a person can tell every recording from every other."""
    assert (display_name(one) == display_name(other)) == (one == other)
    assert display_name(one).isprintable()


@pytest.mark.parametrize("reason", sorted(SkipReason))
def test_a_listing_is_complete_unless_something_can_hide_footage(reason: SkipReason) -> None:
    """INV-2: a symbolic link hides nothing of the camera, an unreadable directory may."""
    hides = {
        SkipReason.UNREADABLE,
        SkipReason.TOO_DEEP,
        SkipReason.TOO_MANY,
        SkipReason.OTHER_FILE_SYSTEM,
    }
    assert Listing((), (SkippedEntry(b"x", reason),)).complete == (reason not in hides)


def every_error() -> list[type[errors.DockdError]]:
    found, frontier = [], [errors.DockdError]
    while frontier:
        kind = frontier.pop()
        found.append(kind)
        frontier.extend(kind.__subclasses__())
    return found


@pytest.mark.parametrize("kind", every_error())
def test_every_error_says_whether_to_retry_and_what_to_do(kind: type[errors.DockdError]) -> None:
    assert isinstance(kind.retry, errors.Retry)
    assert kind.advice.endswith((".", "FILE"))
    assert kind.__doc__
