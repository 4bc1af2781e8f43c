"""What a target's answer means: one table from HTTP status and request to the error it stands for.

docs/upload-target.md carries the same table for people; a test compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

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
from dockd.target.headers import retry_after_s

_SHOWN_CHARS = 200


class Verb(StrEnum):
    """The requests that a dock makes, by their HTTP method."""

    DISCOVER = "OPTIONS"
    CREATE = "POST"
    OFFSET = "HEAD"
    APPEND = "PATCH"
    RECEIPT = "GET"


EXPECTED: Mapping[Verb, frozenset[int]] = {
    Verb.DISCOVER: frozenset({200, 204}),
    Verb.CREATE: frozenset({201}),
    Verb.OFFSET: frozenset({200, 204}),
    Verb.APPEND: frozenset({204}),
    Verb.RECEIPT: frozenset({200, 202}),
}

_BY_REQUEST: Mapping[tuple[int, Verb], type[TargetError]] = {
    (409, Verb.APPEND): OffsetConflictError,
    (413, Verb.APPEND): RequestTooLargeError,
    (409, Verb.RECEIPT): ReceiptRejectedError,
    # Where uploads are created, "not found" speaks of the address, which a person can mend.
    (404, Verb.CREATE): AdministrativeRefusalError,
    (404, Verb.DISCOVER): AdministrativeRefusalError,
    (410, Verb.CREATE): AdministrativeRefusalError,
    (410, Verb.DISCOVER): AdministrativeRefusalError,
}

_BY_STATUS: Mapping[int, type[TargetError]] = {
    401: AdministrativeRefusalError,
    402: AdministrativeRefusalError,
    403: AdministrativeRefusalError,
    404: UploadGoneError,
    407: AdministrativeRefusalError,
    408: TargetUnavailableError,
    409: TargetFaultError,
    410: UploadGoneError,
    423: UploadLockedError,
    429: TargetUnavailableError,
    460: ChecksumMismatchError,
    502: TargetUnavailableError,
    503: TargetUnavailableError,
    504: TargetUnavailableError,
    507: TargetFullError,
}


def error_type(verb: Verb, status: int) -> type[TargetError]:
    """Return what an unexpected status means as the answer to a request."""
    known = _BY_REQUEST.get((status, verb)) or _BY_STATUS.get(status)
    if known is not None:
        return known
    if status >= 500:
        return TargetFaultError
    if status >= 400:
        return TargetRefusedError
    return ProtocolViolationError


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read as far as it matters. ``headers`` ignores the case of names."""

    verb: Verb
    url: str
    status: int
    reason: str
    headers: Mapping[str, str]
    text: str

    def check(self) -> None:
        """Raise the error that the status stands for, unless it is what the request hopes for."""
        if self.status not in EXPECTED[self.verb]:
            raise self.error()

    @property
    def retry_after_s(self) -> float | None:
        """How long the server wants us to wait, if it says so."""
        return retry_after_s(self.headers, datetime.now(UTC))

    def error(self) -> TargetError:
        """Return the error that the status stands for, with the server's own words."""
        words = " ".join(self.text.split())[:_SHOWN_CHARS]
        message = f"{self.verb} {self.url}: {self.status} {self.reason}"
        if 300 <= self.status < 400:
            words = f"it redirects to {self.headers.get('Location')}, and footage goes nowhere else"
        return error_type(self.verb, self.status)(
            f"{message}: {words}" if words else message,
            status=self.status,
            retry_after_s=self.retry_after_s,
        )
