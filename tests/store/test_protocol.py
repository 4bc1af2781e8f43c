"""Every status that the store answers with, and what it leaves behind."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dockd.store import receiving
from dockd.store.headers import TUS_EXTENSIONS
from tests.store.tus import (
    BYTES,
    CAMERA,
    DOCK,
    QUICK,
    VISIT,
    Time,
    Tus,
    as_arguments,
    base64_of,
    never_ending,
    objects_in,
    repr_digest,
    running,
    sending,
    sha256_hex,
    until,
    upload_checksum,
    upload_metadata,
)

CONTENT = bytes(range(256)) * 40
HALF = len(CONTENT) // 2


async def test_options_says_what_is_offered(tus: Tus) -> None:
    answer = await tus.ask("OPTIONS", headers={})
    assert answer.status == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Extension"] == TUS_EXTENSIONS
    assert answer.headers["Tus-Checksum-Algorithm"] == "sha256"
    assert int(answer.headers["Tus-Max-Size"]) == QUICK.max_size_bytes
    assert answer.headers["Dockd-Store"] == tus.store.store_id


async def test_one_request_brings_a_recording_and_its_receipt(tus: Tus, data_dir: Path) -> None:
    """INV-1: the receipt covers exactly what was sent and is held."""
    answer = await tus.send(CONTENT, upload_metadata(flagged=True))
    assert answer.status == 201
    assert answer.offset == len(CONTENT)
    claims = tus.verifier.verify(answer.receipt)
    assert (claims.sha256, claims.size_bytes) == (sha256_hex(CONTENT), len(CONTENT))
    assert (claims.dock, claims.camera, claims.visit) == (DOCK, CAMERA, VISIT)
    assert claims.custody_head == "0" * 64
    assert answer.headers["Location"].endswith(claims.upload_id)
    assert objects_in(data_dir) == {sha256_hex(CONTENT): CONTENT}
    fetched = await tus.receipt(answer.headers["Location"])
    assert (fetched.status, fetched.text) == (200, answer.receipt)
    assert fetched.headers["Content-Type"].startswith("application/jwt")


async def test_pieces_with_the_digest_known_at_the_end(tus: Tus, data_dir: Path) -> None:
    created = await tus.create(len(CONTENT))
    url = created.headers["Location"]
    assert (created.status, created.offset) == (201, 0)
    first = await tus.patch(url, 0, CONTENT[:HALF])
    assert (first.status, first.offset) == (204, HALF)
    assert "Dockd-Receipt" not in first.headers
    asked = await tus.head(url)
    assert (asked.status, asked.offset) == (200, HALF)
    assert asked.headers["Upload-Length"] == str(len(CONTENT))
    assert asked.headers["Cache-Control"] == "no-store"
    assert "filename " in asked.headers["Upload-Metadata"]
    rest = CONTENT[HALF:]
    last = await tus.patch(
        url, HALF, rest, **as_arguments(upload_checksum(rest)), **as_arguments(repr_digest(CONTENT))
    )
    assert (last.status, last.offset) == (204, len(CONTENT))
    assert tus.verifier.verify(last.receipt).sha256 == sha256_hex(CONTENT)
    assert objects_in(data_dir) == {sha256_hex(CONTENT): CONTENT}
    assert (await tus.head(url)).offset == len(CONTENT)


async def test_a_client_that_says_nothing_but_a_name(tus: Tus) -> None:
    """INV-7: nothing administrative stops footage."""
    answer = await tus.create(
        4, b"clip", Upload_Metadata=f"filename {base64_of(b'../../etc/passwd')}"
    )
    claims = tus.verifier.verify(answer.receipt)
    assert (claims.dock, claims.camera, claims.visit, claims.custody_head) == ("", "", "", "")


async def test_an_empty_recording_is_footage_too(tus: Tus, data_dir: Path) -> None:
    """INV-2."""
    answer = await tus.create(0)
    assert answer.status == 201
    assert tus.verifier.verify(answer.receipt).size_bytes == 0
    assert objects_in(data_dir) == {sha256_hex(b""): b""}


async def test_the_same_bytes_twice_are_one_object_and_two_receipts(
    tus: Tus, data_dir: Path
) -> None:
    one = await tus.send(CONTENT, upload_metadata(filename=b"a"))
    two = await tus.send(CONTENT, upload_metadata(filename=b"b"))
    ids = {tus.verifier.verify(answer.receipt).upload_id for answer in (one, two)}
    assert len(ids) == 2
    assert objects_in(data_dir) == {sha256_hex(CONTENT): CONTENT}


async def test_names_are_data_and_never_paths(tus: Tus, data_dir: Path) -> None:
    for name in (b"../../../x", b"/etc/x", b"a\nb", b"\xff\xfe", b"x" * 255, b"\0"):
        answer = await tus.send(b"clip " + name, upload_metadata(filename=name))
        assert answer.status == 201
    names = {path.name for path in data_dir.rglob("*")}
    assert not any("x" in name and len(name) < 64 for name in names)
    assert not (data_dir.parent / "x").exists()


# Refused requests


async def test_412_without_the_protocol_version(tus: Tus) -> None:
    for version in ({}, {"Tus-Resumable": "0.2.2"}):
        answer = await tus.ask("POST", headers={"Upload-Length": "1", **version})
        assert (answer.status, answer.headers["Tus-Version"]) == (412, "1.0.0")


@pytest.mark.parametrize(
    "headers",
    [
        {"Upload_Length": None},
        {"Upload_Length": "-1"},
        {"Upload_Length": "many"},
        {"Upload_Length": None, "Upload_Defer_Length": "1"},
        {"Upload_Concat": "partial"},
        {"Upload_Metadata": "a !"},
        {"Upload_Metadata": "a YQ==,a YQ=="},
        {"Upload_Metadata": f"dock {base64_of(b'x' * 5000)}"},
        {"Upload_Checksum": "sha256 x"},
        {"Repr_Digest": "sha-256=:x:"},
        {"Idempotency_Key": "x" * 300},
    ],
)
async def test_400_for_bad_headers_of_a_creation(
    tus: Tus, data_dir: Path, headers: dict[str, str | None]
) -> None:
    answer = await tus.create(4, b"clip", **headers)
    assert answer.status == 400
    assert len(answer.text.splitlines()) == 1
    assert objects_in(data_dir) == {}


async def test_400_for_headers_without_end(tus: Tus) -> None:
    answer = await tus.create(4, b"clip", Upload_Metadata=f"filename {'A' * 60_000}")
    assert answer.status == 400
    assert (await tus.send(b"clip")).status == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Upload_Offset": None},
        {"Upload_Offset": "-5"},
        {"Upload_Offset": "x"},
        {"Upload_Checksum": "md5 x"},
        {"Repr_Digest": "sha-256=1"},
    ],
)
async def test_400_for_bad_headers_of_an_append(tus: Tus, headers: dict[str, str | None]) -> None:
    url = (await tus.create(4)).headers["Location"]
    assert (await tus.patch(url, 0, b"clip", **headers)).status == 400
    assert (await tus.head(url)).offset == 0


async def test_404_for_what_never_was(tus: Tus) -> None:
    for url in (f"/files/{'0' * 32}", "/files/..%2f..%2fetc%2fpasswd", "/files/x", "/elsewhere"):
        assert (await tus.head(url)).status == 404
        assert (await tus.patch(url, 0, b"clip")).status == 404
        assert (await tus.delete(url)).status == 404
        assert (await tus.ask("GET", f"{url}/receipt", {})).status == 404


async def test_404_for_the_receipt_of_what_is_not_complete(tus: Tus) -> None:
    url = (await tus.create(4)).headers["Location"]
    assert (await tus.receipt(url)).status == 404


async def test_405_for_other_methods(tus: Tus) -> None:
    url = (await tus.create(4)).headers["Location"]
    assert (await tus.ask("PUT", url)).status == 405
    assert (await tus.ask("POST", url)).status == 405


async def test_409_for_another_offset(tus: Tus) -> None:
    url = (await tus.create(len(CONTENT), CONTENT[:HALF])).headers["Location"]
    for offset in (0, HALF - 1, HALF + 1):
        answer = await tus.patch(url, offset, b"x")
        assert answer.status == 409
        assert str(HALF) in answer.text
    assert (await tus.head(url)).offset == HALF


async def test_413_for_more_than_was_said(tus: Tus) -> None:
    assert (await tus.create(4, b"clips")).status == 413
    url = (await tus.create(4)).headers["Location"]
    assert (await tus.patch(url, 0, b"clips")).status == 413
    assert (await tus.head(url)).offset == 0
    # A body of no stated length is cut off where the upload ends.
    assert (await tus.patch(url, 0, _in_pieces(b"cli", b"ps"))).status == 413
    assert (await tus.receipt(url)).status == 200


async def test_413_for_more_than_the_store_takes(data_dir: Path) -> None:
    async with running(data_dir, replace(QUICK, max_size_bytes=10)) as tus:
        assert (await tus.create(11)).status == 413
        assert (await tus.create(10)).status == 201


async def test_415_for_other_bodies(tus: Tus) -> None:
    url = (await tus.create(4)).headers["Location"]
    assert (await tus.patch(url, 0, b"clip", Content_Type="video/mp4")).status == 415
    assert (await tus.patch(url, 0, b"clip", Content_Encoding="gzip")).status == 415
    assert (await tus.create(4, b"clip", Content_Type="video/mp4")).status == 415
    assert (await tus.head(url)).offset == 0


async def test_460_keeps_nothing_of_the_request(tus: Tus, data_dir: Path) -> None:
    url = (await tus.create(len(CONTENT), CONTENT[:HALF])).headers["Location"]
    wrong = as_arguments(upload_checksum(b"other bytes"))
    assert (await tus.patch(url, HALF, CONTENT[HALF:], **wrong)).status == 460
    assert (await tus.head(url)).offset == HALF
    assert (await tus.patch(url, HALF, CONTENT[HALF:])).status == 204
    assert objects_in(data_dir) == {sha256_hex(CONTENT): CONTENT}


async def test_460_on_creation_leaves_no_upload_and_frees_the_key(tus: Tus, data_dir: Path) -> None:
    wrong = as_arguments(upload_checksum(b"other bytes"))
    assert (await tus.create(4, b"clip", Idempotency_Key="k", **wrong)).status == 460
    assert list((data_dir / "unfinished").iterdir()) == []
    assert (await tus.create(4, b"clip", Idempotency_Key="k")).receipt


async def test_the_other_way_to_say_patch(tus: Tus) -> None:
    url = (await tus.create(4)).headers["Location"]
    fields = {
        "Tus-Resumable": "1.0.0",
        "X-HTTP-Method-Override": "PATCH",
        "Upload-Offset": "0",
        "Content-Type": BYTES,
    }
    assert (await tus.ask("POST", url, fields, b"clip")).status == 204


# Termination and expiry


async def test_unfinished_uploads_can_be_terminated(tus: Tus, data_dir: Path) -> None:
    url = (await tus.create(len(CONTENT), CONTENT[:HALF])).headers["Location"]
    assert (await tus.delete(url)).status == 204
    assert (await tus.head(url)).status == 410
    assert (await tus.receipt(url)).status == 410
    assert list((data_dir / "unfinished").iterdir()) == []


async def test_403_for_deleting_footage(tus: Tus, data_dir: Path) -> None:
    """INV-1: what was signed for stays."""
    url = (await tus.send(CONTENT)).headers["Location"]
    assert (await tus.delete(url)).status == 403
    assert objects_in(data_dir) == {sha256_hex(CONTENT): CONTENT}


async def test_410_once_nothing_came_for_too_long(data_dir: Path) -> None:
    time = Time()
    async with running(data_dir, now=time.now) as tus:
        created = await tus.create(len(CONTENT), CONTENT[:HALF], Idempotency_Key="k")
        url = created.headers["Location"]
        assert created.headers["Upload-Expires"].endswith(" GMT")
        assert (await tus.head(url)).headers["Upload-Expires"].endswith(" GMT")
        time.ahead = QUICK.expire_after - timedelta(minutes=1)
        assert (await tus.head(url)).status == 200
        time.ahead = QUICK.expire_after + timedelta(minutes=1)
        assert (await tus.head(url)).status == 410
        assert (await tus.patch(url, HALF, CONTENT[HALF:])).status == 410
        again = await tus.create(len(CONTENT), CONTENT, Idempotency_Key="k")
        assert again.headers["Location"] != url
        assert again.receipt
        assert (await tus.receipt(url)).status == 410
    assert list((data_dir / "unfinished").iterdir()) == []


async def test_expired_uploads_are_swept_and_footage_is_not(data_dir: Path) -> None:
    time = Time()
    async with running(data_dir, replace(QUICK, sweep_s=0.01), now=time.now) as tus:
        await tus.create(len(CONTENT), CONTENT[:HALF])
        held = await tus.send(CONTENT)
        time.ahead = timedelta(days=400)

        async def swept() -> bool:
            return list((data_dir / "unfinished").iterdir()) == []

        await until(swept)
        assert (await tus.receipt(held.headers["Location"])).text == held.receipt


async def test_looking_for_what_has_expired_locks_nobody_out(data_dir: Path) -> None:
    """A start looks through all unfinished uploads just when the docks come back to them."""
    async with running(data_dir, replace(QUICK, sweep_s=0.0)) as tus:
        url = (await tus.create(len(CONTENT))).headers["Location"]
        for begin in range(0, len(CONTENT), 256):
            answer = await tus.patch(url, begin, CONTENT[begin : begin + 256])
            assert answer.status == 204


# One upload, many requests


async def test_the_same_key_is_the_same_upload(tus: Tus, data_dir: Path) -> None:
    first = await tus.create(len(CONTENT), CONTENT[:HALF], Idempotency_Key="k")
    again = await tus.create(len(CONTENT), CONTENT, Idempotency_Key="k")
    assert (again.status, again.offset) == (201, HALF)
    assert again.headers["Location"] == first.headers["Location"]
    done = await tus.patch(first.headers["Location"], HALF, CONTENT[HALF:])
    answer = await tus.create(len(CONTENT), CONTENT, Idempotency_Key="k")
    assert (answer.status, answer.offset, answer.receipt) == (201, len(CONTENT), done.receipt)
    assert len(objects_in(data_dir)) == 1


async def test_a_key_belongs_to_its_dock(tus: Tus) -> None:
    one = await tus.create(4, Idempotency_Key="k")
    two = await tus.create(4, Idempotency_Key="k", Upload_Metadata=f"dock {base64_of(b'dock-2')}")
    assert one.headers["Location"] != two.headers["Location"]


async def test_the_same_key_at_the_same_time_is_one_upload(tus: Tus, data_dir: Path) -> None:
    answers = await asyncio.gather(
        *(tus.create(len(CONTENT), CONTENT, Idempotency_Key="k") for _ in range(20))
    )
    assert {answer.status for answer in answers} == {201}
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert len(objects_in(data_dir)) == 1


async def test_423_while_another_request_sends_and_not_after_it_died(
    tus: Tus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-3, INV-8: a connection that died holds nothing up, and what it brought is kept."""
    monkeypatch.setattr(receiving, "PIECE_BYTES", HALF)
    url = (await tus.create(len(CONTENT))).headers["Location"]
    async with sending(tus, url, 0, CONTENT[:HALF]):
        assert (await tus.patch(url, 0, CONTENT)).status == 423
        assert (await tus.delete(url)).status == 423
        await until(lambda: _offset_is(tus, url, HALF))
    await until(lambda: _unlocked(tus, url))
    answer = await tus.patch(url, HALF, CONTENT[HALF:])
    assert answer.status == 204
    assert tus.verifier.verify(answer.receipt).sha256 == sha256_hex(CONTENT)


async def test_what_a_broken_connection_brought_under_a_checksum_is_dropped(tus: Tus) -> None:
    url = (await tus.create(len(CONTENT), CONTENT[:10])).headers["Location"]
    checksum = as_arguments(upload_checksum(CONTENT[10:]))
    async with sending(tus, url, 10, CONTENT[10:HALF], **checksum):
        pass

    await until(lambda: _unlocked(tus, url))
    assert (await tus.head(url)).offset == 10
    assert (await tus.patch(url, 10, CONTENT[10:], **checksum)).receipt


async def test_408_for_a_client_that_stands_still(data_dir: Path) -> None:
    """INV-8: it gives its place back."""
    async with running(data_dir, replace(QUICK, stall_timeout_s=0.02)) as tus:
        url = (await tus.create(len(CONTENT))).headers["Location"]
        assert (await tus.patch(url, 0, never_ending(b""))).status == 408
        assert not await tus.is_locked(url)


async def test_503_for_too_many_at_once(data_dir: Path) -> None:
    async with running(data_dir, replace(QUICK, bodies_at_once=1)) as tus:
        url = (await tus.create(len(CONTENT))).headers["Location"]
        async with sending(tus, url, 0, CONTENT[:HALF]):
            answer = await tus.send(b"other")
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0


async def test_503_while_too_many_wait_to_be_checked(data_dir: Path) -> None:
    async with running(data_dir, replace(QUICK, checks_waiting=0)) as tus:
        answer = await tus.send(b"clip")
        assert (answer.status, "Retry-After" in answer.headers) == (503, True)


# Bytes that are not what was announced


async def test_a_wrong_digest_puts_the_bytes_in_quarantine(tus: Tus, data_dir: Path) -> None:
    """INV-1, INV-2: no receipt, nothing dropped, the reason is beside the bytes, the key is free."""
    wrong = as_arguments(repr_digest(b"what the camera has"))
    answer = await tus.create(len(CONTENT), CONTENT, Idempotency_Key="k", **wrong)
    assert answer.status == 201
    assert "Dockd-Receipt" not in answer.headers
    url = answer.headers["Location"]
    refused = await tus.receipt(url)
    assert refused.status == 409
    body = json.loads(refused.text)
    assert sha256_hex(CONTENT) in body["error"]
    assert body["missing"] == []
    upload_id = url.rpartition("/")[2]
    assert (data_dir / "quarantine" / upload_id).read_bytes() == CONTENT
    note = json.loads((data_dir / "quarantine" / f"{upload_id}.json").read_bytes())
    assert (note["error"], note["camera"], note["name"]) == (
        body["error"],
        CAMERA,
        "DCIM/MOV_0001.MP4",
    )
    assert objects_in(data_dir) == {}
    assert (await tus.head(url)).status == 410
    again = await tus.create(len(CONTENT), CONTENT, Idempotency_Key="k")
    assert again.headers["Location"] != url
    assert again.receipt


async def _in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _offset_is(tus: Tus, url: str, offset: int) -> bool:
    return (await tus.head(url)).offset == offset


async def _unlocked(tus: Tus, url: str) -> bool:
    return not await tus.is_locked(url)
