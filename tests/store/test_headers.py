"""The header fields, without a server."""

import base64
import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.store import headers
from dockd.store.headers import RequestRefusedError

DIGEST = hashlib.sha256(b"footage").digest()
ENCODED = base64.b64encode(DIGEST).decode()


@pytest.mark.parametrize("value", ["0", "1", "9223372036854775807"])
def test_lengths_that_are_taken(value: str) -> None:
    assert headers.parse_length("Upload-Length", value) == int(value)


@pytest.mark.parametrize(
    "value",
    [None, "", "-1", "+1", "1.0", "1e3", " 1", "0x10", "٣", "9223372036854775808", "1" * 5000],
)
def test_lengths_that_are_refused(value: str | None) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        headers.parse_length("Upload-Length", value)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 200


def test_metadata_keeps_the_exact_bytes_of_a_name() -> None:
    name = bytes(range(256))
    text = f"filename {base64.b64encode(name).decode()},flagged, kind {base64.b64encode(b'x').decode()}"
    assert headers.parse_metadata(text) == {"filename": name, "flagged": b"", "kind": b"x"}


@pytest.mark.parametrize("text", ["", "  "])
def test_no_metadata(text: str) -> None:
    assert headers.parse_metadata(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "a,",
        "a YQ==,a Yg==",
        "a !!!!",
        "a YQ",
        "a YQ== YQ==",
        "a Yé==",
        "\udcff YQ==",
        "a\tYQ==",
    ],
)
def test_metadata_that_is_refused(text: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        headers.parse_metadata(text)
    assert refused.value.status == 400


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (
        headers.parse_metadata,
        headers.parse_checksum,
        headers.parse_repr_digest,
        headers.parse_idempotency_key,
        lambda value: headers.parse_length("Upload-Offset", value),
    ):
        try:
            parse(text)
        except RequestRefusedError as refused:
            assert refused.status == 400  # noqa: PT017 (either outcome is right, no other error is)


@given(st.dictionaries(st.text("abcdefgh_-", min_size=1), st.binary(max_size=50)))
def test_metadata_round_trip(values: dict[str, bytes]) -> None:
    text = ",".join(f"{key} {base64.b64encode(value).decode()}" for key, value in values.items())
    assert headers.parse_metadata(text) == values


def test_checksum() -> None:
    assert headers.parse_checksum(None) is None
    assert headers.parse_checksum(f"sha256 {ENCODED}") == DIGEST


@pytest.mark.parametrize(
    "value", ["", "sha256", "md5 YQ==", f"sha1 {ENCODED}", "sha256 YQ==", "sha256 ****"]
)
def test_checksums_that_are_refused(value: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        headers.parse_checksum(value)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("sha-512=:YQ==:", None),
        (f"sha-256=:{ENCODED}:", DIGEST.hex()),
        (f"unixsum=30637, SHA-256=:{ENCODED}: , md5=:YQ==:", DIGEST.hex()),
    ],
)
def test_repr_digest(value: str | None, expected: str | None) -> None:
    assert headers.parse_repr_digest(value) == expected


@pytest.mark.parametrize(
    "value",
    ["sha-256", "sha-256=", "sha-256=:", "sha-256=::", f"sha-256={ENCODED}", "sha-256=:YQ==:"],
)
def test_repr_digests_that_are_refused(value: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        headers.parse_repr_digest(value)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"", None), (b"12", 12), (b"-5", -5), (b"1.5", None), (b"soon", None), (b"9" * 30, None)],
)
def test_a_strange_time_does_not_stop_footage(value: bytes, expected: int | None) -> None:
    """INV-7."""
    assert headers.parse_mtime_ns(value) == expected


def test_names_that_are_not_utf8_do_not_stop_footage() -> None:
    """INV-7."""
    assert headers.parse_claim("camera", b"\xff7") == "\\xff7"


def test_a_claim_too_long_for_a_receipt_is_refused() -> None:
    with pytest.raises(RequestRefusedError):
        headers.parse_claim("camera", b"x" * (headers.MAX_CLAIM_BYTES + 1))


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x7f", "a\nb"])
def test_idempotency_keys_that_are_refused(key: str) -> None:
    with pytest.raises(RequestRefusedError):
        headers.parse_idempotency_key(key)


def test_expiry_is_an_http_date() -> None:
    at = datetime(2026, 11, 20, 8, 0, 5, tzinfo=UTC)
    assert headers.format_expires(at) == "Fri, 20 Nov 2026 08:00:05 GMT"
