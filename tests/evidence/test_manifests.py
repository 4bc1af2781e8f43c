import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.errors import ManifestInvalidError
from dockd.core.model import (
    Container,
    ContainerVerdict,
    Manifest,
    ManifestEntry,
    SkippedEntry,
    SkipReason,
)
from dockd.evidence import jws
from dockd.evidence.keys import SigningKey
from dockd.evidence.manifests import TYPE, read_manifest, sign_manifest

KEY = SigningKey(Ed25519PrivateKey.generate())
OTHER = SigningKey(Ed25519PrivateKey.generate())

TEXT = st.text(max_size=20)
PATH = st.binary(min_size=1, max_size=60)
CONTAINER = st.builds(
    Container, format=TEXT, verdict=st.sampled_from(ContainerVerdict), detail=TEXT
)
ENTRY = st.builds(
    ManifestEntry,
    path=PATH,
    size_bytes=st.integers(0, 2**53),
    mtime_ns=st.integers(-(2**63), 2**63 - 1),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    receipt=TEXT,
    flagged=st.booleans(),
    container=st.none() | CONTAINER,
    blocks_wipe=st.none() | TEXT,
)
SKIPPED = st.builds(SkippedEntry, path=PATH, reason=st.sampled_from(SkipReason), detail=TEXT)
MANIFEST = st.builds(
    Manifest,
    dock=TEXT,
    camera=TEXT,
    visit=TEXT,
    bay=TEXT,
    created_at=st.datetimes(timezones=st.just(UTC)),
    custody_head=TEXT,
    recordings=st.lists(ENTRY, max_size=3).map(tuple),
    skipped=st.lists(SKIPPED, max_size=3).map(tuple),
)
ONE = Manifest(
    dock="dock-1",
    camera="camera-1",
    visit="visit-1",
    bay="1",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    custody_head="ab" * 32,
    recordings=(ManifestEntry(b"DCIM/\xff\n.MP4", 5, 2**62, "cd" * 32, "receipt"),),
    skipped=(SkippedEntry(b"link", SkipReason.SYMLINK),),
)


def payload_of(signed: str) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(jws.unverified_payload(signed))
    return payload


@given(manifest=MANIFEST)
def test_every_field_comes_back_exactly(manifest: Manifest) -> None:
    """INV-2: names of any bytes, and everything known of a recording, survive the signed form."""
    signed = sign_manifest(KEY, manifest)
    assert read_manifest(signed, KEY.public) == manifest
    assert read_manifest(signed, None) == manifest


def test_name_is_readable_beside_its_exact_bytes() -> None:
    recording = payload_of(sign_manifest(KEY, ONE))["recordings"][0]
    assert recording["path"] == r"DCIM/\xff\n.MP4"
    assert base64.b64decode(recording["path_b64"]) == b"DCIM/\xff\n.MP4"


def test_time_of_creation_may_be_given_in_any_zone() -> None:
    elsewhere = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    manifest = Manifest("d", "c", "v", "1", elsewhere, "", ())
    assert read_manifest(sign_manifest(KEY, manifest), None).created_at == elsewhere


def test_signature_of_another_key_is_refused() -> None:
    with pytest.raises(ManifestInvalidError, match="names the key"):
        read_manifest(sign_manifest(OTHER, ONE), KEY.public)


def test_key_that_a_manifest_brings_along_must_be_the_one_that_signed_it() -> None:
    """INV-4: nobody can change a manifest and keep its embedded key."""
    header, _, signature = sign_manifest(KEY, ONE).split(".")
    changed = payload_of(sign_manifest(KEY, ONE)) | {"camera": "camera-2"}
    body = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
    with pytest.raises(ManifestInvalidError, match="signature"):
        read_manifest(f"{header}.{body}.{signature}", None)


def test_manifest_without_its_key_cannot_be_read_without_one() -> None:
    bare = jws.sign(KEY, TYPE, json.dumps(payload_of(sign_manifest(KEY, ONE))).encode())
    assert read_manifest(bare, KEY.public) == ONE
    with pytest.raises(ManifestInvalidError, match="JWK"):
        read_manifest(bare, None)


def test_another_type_of_document_is_refused() -> None:
    payload = jws.unverified_payload(sign_manifest(KEY, ONE))
    with pytest.raises(ManifestInvalidError, match="type"):
        read_manifest(jws.sign(KEY, "dockd-receipt+jwt", payload), KEY.public)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é.é.é", "a.b.c\n"])
def test_what_is_no_jws_is_refused(text: str) -> None:
    with pytest.raises(ManifestInvalidError):
        read_manifest(text, None)


def recording_with(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda payload: payload["recordings"][0].update(changes)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda payload: payload.pop("dock"),
        lambda payload: payload.update(v=2),
        lambda payload: payload.update(extra=1),
        lambda payload: payload.update(created_at="2026-01-01T00:00:00"),
        lambda payload: payload.update(created_at="yesterday"),
        lambda payload: payload.update(recordings={}),
        lambda payload: payload["recordings"][0].pop("path_b64"),
        lambda payload: payload["skipped"][0].update(reason="unwanted"),
        recording_with(path_b64="not base64!"),
        recording_with(path_b64=5),
        recording_with(size=-1),
        recording_with(size="5"),
        recording_with(size=True),
        recording_with(mtime_ns=5),
        recording_with(mtime_ns="5.0"),
        recording_with(mtime_ns="-0"),
        recording_with(mtime_ns="9" * 5000),
        recording_with(sha256="CD" * 32),
        recording_with(sha256="cd" * 32 + "\n"),
        recording_with(flagged=0),
        recording_with(container={"format": "mp4", "verdict": "fine", "detail": ""}),
    ],
)
def test_ill_formed_manifest_is_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    payload = payload_of(sign_manifest(KEY, ONE))
    spoil(payload)
    signed = jws.sign(KEY, TYPE, json.dumps(payload).encode())
    with pytest.raises(ManifestInvalidError, match="not well formed"):
        read_manifest(signed, KEY.public)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(ManifestInvalidError):
        read_manifest(jws.sign(KEY, TYPE, payload), KEY.public)
