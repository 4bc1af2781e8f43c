"""Every status for every request, and the page that tells people what the dock makes of it."""

import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from dockd.core import errors
from dockd.core.errors import (
    AdministrativeRefusalError,
    ChecksumMismatchError,
    OffsetConflictError,
    ProtocolViolationError,
    ReceiptRejectedError,
    RequestTooLargeError,
    TargetError,
    TargetFaultError,
    TargetFullError,
    TargetRefusedError,
    TargetUnavailableError,
    UploadGoneError,
    UploadLockedError,
)
from dockd.target.answers import EXPECTED, Answer, Verb, error_type
from dockd.target.uploader import AWAY, RECEIPT_RETRIES, SEND_RETRIES

PAGE = Path(__file__).parents[2] / "docs" / "upload-target.md"
ROW = re.compile(
    r"\| (?P<status>[^|]+) \| (?P<verbs>[^|]+) \| `(?P<error>\w+)` \| (?P<retry>[^|]+) \|"
)


Row = tuple[str, str, type[TargetError], str]


@cache
def rows() -> tuple[Row, ...]:
    return tuple(_read_rows())


def _read_rows() -> Iterator[Row]:
    for row in ROW.finditer(PAGE.read_text(encoding="utf-8")):
        error: type[TargetError] = getattr(errors, row["error"])
        yield row["status"].strip(), row["verbs"].strip(), error, row["retry"].strip()


def on_the_page(verb: Verb, status: int) -> tuple[type[TargetError], str]:
    """Return what the page says: a status by name goes before a class of statuses."""
    fitting = [row for row in rows() if row[1] == "any" or verb.value in row[1].split(", ")]
    by_name = [row for row in fitting if str(status) in re.findall(r"\b\d{3}\b", row[0])]
    by_class = [row for row in fitting if f"{status // 100}xx" in row[0]]
    ((_, _, error, retry),) = by_name or by_class
    return error, retry


@pytest.mark.parametrize("verb", Verb)
def test_the_page_and_the_code_agree_on_every_answer(verb: Verb) -> None:
    for status in range(100, 600):
        if status in EXPECTED[verb]:
            continue
        error, retry = on_the_page(verb, status)
        assert error_type(verb, status) is error, status
        assert error.retry.value == retry.replace(" ", "_"), status


def test_every_row_of_the_page_speaks_of_something() -> None:
    used = set()
    for verb, status in itertools.product(Verb, range(100, 600)):
        if status not in EXPECTED[verb]:
            used.add(on_the_page(verb, status))
    assert {(error, retry) for _, _, error, retry in rows()} == used


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, TargetRefusedError),
        (401, AdministrativeRefusalError),
        (402, AdministrativeRefusalError),
        (403, AdministrativeRefusalError),
        (405, TargetRefusedError),
        (407, AdministrativeRefusalError),
        (408, TargetUnavailableError),
        (412, TargetRefusedError),
        (415, TargetRefusedError),
        (423, UploadLockedError),
        (429, TargetUnavailableError),
        (460, ChecksumMismatchError),
        (500, TargetFaultError),
        (501, TargetFaultError),
        (502, TargetUnavailableError),
        (503, TargetUnavailableError),
        (504, TargetUnavailableError),
        (507, TargetFullError),
        (302, ProtocolViolationError),
        (206, ProtocolViolationError),
    ],
)
@pytest.mark.parametrize("verb", Verb)
def test_what_a_status_means_whatever_was_asked(
    verb: Verb, status: int, expected: type[TargetError]
) -> None:
    answer = Answer(verb, "http://store/files/1", status, "Reason", {"Retry-After": "12"}, "words")
    with pytest.raises(TargetError) as caught:
        answer.check()
    assert type(caught.value) is expected
    assert caught.value.status == status
    assert caught.value.retry_after_s == 12


@pytest.mark.parametrize(
    ("status", "verb", "expected"),
    [
        (409, Verb.APPEND, OffsetConflictError),
        (409, Verb.RECEIPT, ReceiptRejectedError),
        (409, Verb.CREATE, TargetFaultError),
        (413, Verb.APPEND, RequestTooLargeError),
        (413, Verb.CREATE, TargetRefusedError),
        (404, Verb.OFFSET, UploadGoneError),
        (410, Verb.APPEND, UploadGoneError),
        (404, Verb.RECEIPT, UploadGoneError),
        (404, Verb.CREATE, AdministrativeRefusalError),
        (410, Verb.DISCOVER, AdministrativeRefusalError),
    ],
)
def test_what_depends_on_the_request(status: int, verb: Verb, expected: type[TargetError]) -> None:
    assert error_type(verb, status) is expected


@pytest.mark.parametrize("verb", Verb)
def test_what_is_hoped_for_is_no_error(verb: Verb) -> None:
    for status in EXPECTED[verb]:
        Answer(verb, "http://store/files/1", status, "", {}, "").check()


def test_what_never_helps_is_never_retried() -> None:
    for error in (*SEND_RETRIES, *RECEIPT_RETRIES):
        assert error.retry is not errors.Retry.NEVER
    for error in AWAY:
        assert error.retry is errors.Retry.WHEN_BACK
