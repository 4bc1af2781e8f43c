"""The header fields, byte by byte, as tus 1.0.0, RFC 9530 and RFC 9110 have them."""

import base64
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dockd.core.errors import ProtocolViolationError
from dockd.core.model import TargetProperties
from dockd.target import headers
from tests.simulated.source import spec_of

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def parse(metadata: str) -> dict[str, bytes | None]:
    pairs = (item.partition(" ") for item in metadata.split(","))
    return {key: base64.b64decode(raw) if blank else None for key, blank, raw in pairs}


@pytest.mark.parametrize(
    "path", [b"DCIM/MOV_0001.MP4", b"\xff\xfe\n,= \x00", "Ünïcode.mp4".encode(), b"a" * 255]
)
def test_metadata_carries_names_exactly(path: bytes) -> None:
    """INV-2: a file name travels as the bytes it is."""
    spec = replace(spec_of(b"x"), path=path, flagged=True, visit="")
    assert parse(headers.metadata_of(spec)) == {
        "filename": path,
        "kind": b"recording",
        "mtime_ns": b"1700000000000000000",
        "dock": b"dock-1",
        "camera": b"camera-1",
        "visit": None,
        "custody_head": b"0" * 64,
        "flagged": None,
    }


def test_only_flagged_recordings_say_so() -> None:
    assert "flagged" not in headers.metadata_of(spec_of(b"x"))


def test_digest_fields() -> None:
    digest = bytes(range(32))
    encoded = base64.b64encode(digest).decode()
    assert headers.upload_checksum(digest) == f"sha256 {encoded}"
    assert headers.repr_digest(digest) == f"sha-256=:{encoded}:"


@pytest.mark.parametrize(
    "value",
    [None, "", "-1", "1.5", "0x10", "1e3", "twelve", "9" * 20, "\N{ARABIC-INDIC DIGIT ONE}"],
)
def test_an_offset_that_is_no_size_is_a_lie(value: str | None) -> None:
    with pytest.raises(ProtocolViolationError):
        headers.upload_offset({} if value is None else {"Upload-Offset": value})


def test_an_offset_is_a_number_of_bytes() -> None:
    assert headers.upload_offset({"Upload-Offset": " 68719476736 "}) == 68_719_476_736


@pytest.mark.parametrize(
    ("fields", "expected_s"),
    [
        ({}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": "99999999"}, 3600.0),
        ({"Retry-After": "Wed, 01 Jul 2026 12:02:00 GMT"}, 120.0),
        ({"Retry-After": "Wed, 01 Jul 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "Thu, 01 Jul 2027 12:00:00 GMT"}, 3600.0),
        ({"Retry-After": "Wed, 01 Jul 2026 12:02:00 -0000"}, 120.0),
        (
            # The dock's clock is a year behind; the server's own Date is what counts.
            {
                "Retry-After": "Thu, 01 Jul 2027 12:00:30 GMT",
                "Date": "Thu, 01 Jul 2027 12:00:00 GMT",
            },
            30.0,
        ),
    ],
)
def test_retry_after(fields: dict[str, str], expected_s: float | None) -> None:
    assert headers.retry_after_s(fields, NOW) == expected_s


def test_properties_are_what_options_offers() -> None:
    offered = {
        "Tus-Version": "1.0.0,0.2.2",
        "Tus-Extension": "creation, creation-with-upload,checksum,dockd-receipt",
        "Tus-Checksum-Algorithm": "sha1,sha256",
        "Tus-Max-Size": "1000",
    }
    assert headers.properties_of(offered) == TargetProperties(
        creation_with_upload=True, checksum_sha256=True, receipts=True, max_size_bytes=1000
    )
    bare = {"Tus-Version": "1.0.0", "Tus-Extension": "creation"}
    assert headers.properties_of(bare) == TargetProperties(
        creation_with_upload=False, checksum_sha256=False, receipts=False
    )


def test_checksum_counts_only_with_sha256() -> None:
    fields = {
        "Tus-Version": "1.0.0",
        "Tus-Extension": "creation,checksum",
        "Tus-Checksum-Algorithm": "sha1,md5",
    }
    assert not headers.properties_of(fields).checksum_sha256


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Tus-Version": "2.0.0", "Tus-Extension": "creation"},
        {"Tus-Version": "1.0.0", "Tus-Extension": "termination"},
    ],
)
def test_what_is_no_tus_server_is_not_taken_for_one(fields: dict[str, str]) -> None:
    with pytest.raises(ProtocolViolationError):
        headers.properties_of(fields)
