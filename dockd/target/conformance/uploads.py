"""Checks of how bytes get to a target: clauses 1 to 4, and what a target without receipts gives back."""

import secrets
from datetime import UTC, datetime

from yarl import URL

from dockd.core.errors import ProtocolViolationError
from dockd.core.model import display_name
from dockd.target import headers as wire
from dockd.target.conformance.probe import DeviationError, NotOfferedError, Probe
from dockd.target.conformance.receipts import require_held, sha256

ODD_NAMES = (
    b"\xff\xfe not UTF-8",
    b"a line\nbreak",
    b"../../etc/passwd",
    b"C:\\footage\\1.mp4",
    b"a;b,c \"d\" 'e'",
    b"x" * 255,
    "Übergröße 日本.mp4".encode(),
    b"",
)
LARGE_BYTES = 3 << 20
SENT_BEFORE_THE_BREAK = 2 << 20


async def names_what_it_offers(probe: Probe) -> None:
    """OPTIONS names tus 1.0.0 and the extension creation."""
    reply = (await probe.options()).require(200, 204)
    try:
        wire.properties_of(reply.headers)
    except ProtocolViolationError as error:
        raise DeviationError(str(error)) from None


async def creates_uploads(probe: Probe) -> None:
    """POST creates an upload whose Location is on the same server."""
    url = await probe.new_upload(10)
    offset = (await probe.head(url)).require(200, 204).offset()
    if offset != 0:
        raise DeviationError(f"HEAD of a new upload: offset {offset}, not 0")


async def takes_bytes(probe: Probe) -> None:
    """PATCH appends and tells the new offset; HEAD tells offset and length."""
    data = secrets.token_bytes(1000)
    url = await probe.new_upload(len(data))
    for begin, end in ((0, 400), (400, 1000)):
        reply = (await probe.patch(url, begin, data[begin:end])).require(204)
        head = (await probe.head(url)).require(200, 204)
        if not reply.offset() == head.offset() == end:
            raise DeviationError(
                f"after {end} bytes PATCH says {reply.offset()} and HEAD {head.offset()}"
            )
        if head.length() != len(data):
            raise DeviationError(f"{head.request}: Upload-Length {head.length()}, not {len(data)}")
    probe.is_finished(url, len(data))


async def takes_any_name(probe: Probe) -> None:
    """Any name is taken, as data, and HEAD gives the metadata back."""
    changed = []
    for name in ODD_NAMES:
        data = secrets.token_bytes(20)
        metadata = probe.metadata() | {"filename": name, "flagged": None}
        reply = await probe.create(len(data), metadata=metadata)
        url = probe.location(reply.require(201))
        (await probe.patch(url, 0, data, digest=sha256(data))).require(204)
        probe.is_finished(url, len(data))
        head = (await probe.head(url)).require(200, 204)
        wanted = {key: value or b"" for key, value in metadata.items()}
        if wire.decode_metadata(head.headers.get("Upload-Metadata", "")) != wanted:
            changed.append(display_name(name))
    if changed:
        raise DeviationError(f"HEAD gives other metadata back for {', '.join(changed)}")


async def takes_little_metadata(probe: Probe) -> None:
    """No key of the metadata is needed, and unknown ones are no reason to refuse."""
    for metadata in (None, "filename", "filename eA==,unheard-of eA==,empty"):
        fields = {"Upload-Length": "5"}
        if metadata is not None:
            fields["Upload-Metadata"] = metadata
        (await probe.post(fields)).require(201)


async def takes_empty_recordings(probe: Probe) -> None:
    """An upload of length zero is complete when it is created."""
    url = probe.location((await probe.create(0)).require(201))
    probe.is_finished(url, 0)
    head = (await probe.head(url)).require(200, 204)
    if (head.offset(), head.length()) != (0, 0):
        raise DeviationError(f"{head.request}: {head.offset()} of {head.length()}, not 0 of 0")
    if "dockd-receipt" in probe.offers:
        (await probe.receipt(url)).require(200)


async def refuses_wrong_offsets(probe: Probe) -> None:
    """PATCH elsewhere than at the offset is 409 and adds nothing; so is one that is repeated."""
    data = secrets.token_bytes(100)
    url = await probe.new_upload(len(data))
    (await probe.patch(url, 50, data[50:])).require(409)
    await _require_offset(probe, url, 0)
    (await probe.patch(url, 0, data[:60])).require(204)
    (await probe.patch(url, 0, data[:60])).require(409)
    (await probe.patch(url, 30, data[30:60])).require(409)
    await _require_offset(probe, url, 60)


async def refuses_too_many_bytes(probe: Probe) -> None:
    """A body that goes beyond Upload-Length is refused, and none of it kept."""
    data = secrets.token_bytes(100)
    url = await probe.new_upload(50)
    (await probe.patch(url, 0, data)).require_refusal()
    await _require_offset(probe, url, 0)


async def knows_what_it_does_not_have(probe: Probe) -> None:
    """HEAD and PATCH of an upload that never was are 404 or 410."""
    real = URL(await probe.new_upload(4), encoded=True)
    unknown = str(real.with_name("0" * len(real.name)))
    (await probe.head(unknown)).require(404, 410)
    (await probe.patch(unknown, 0, b"data")).require(404, 410)
    (await probe.ask_for_receipt(unknown)).require(404, 410)


async def goes_on_after_a_break(probe: Probe) -> None:
    """A broken connection costs nothing that had arrived, and leaves no lock for long."""
    data = secrets.token_bytes(LARGE_BYTES)
    url = await probe.new_upload(len(data))
    await probe.broken_patch(url, 0, data[:SENT_BEFORE_THE_BREAK], len(data))
    offset = await probe.settled_offset(url)
    if not 0 < offset <= SENT_BEFORE_THE_BREAK:
        raise DeviationError(
            f"{SENT_BEFORE_THE_BREAK} bytes were sent before the break, {offset} were kept"
        )
    await _finish(probe, url, data, offset)
    await require_held(probe, url, data)


async def lets_one_request_write(probe: Probe) -> None:
    """Two requests at once never mix: one is 423, or the other is ended for it."""
    data = secrets.token_bytes(LARGE_BYTES)
    url = await probe.new_upload(len(data))
    async with probe.held_patch(url, data, sha256(data)) as first:
        second = await probe.patch(url, 0, data, digest=sha256(data))
    second.require(423, 409, 204)
    answer = first.result()
    if second.status == 423 and (answer is None or answer.status != 204):
        raise DeviationError("the second request was 423, and the first was broken all the same")
    offset = await probe.settled_offset(url)
    await _finish(probe, url, data, offset)
    await require_held(probe, url, data)


async def lets_unfinished_uploads_expire(probe: Probe) -> None:
    """Upload-Expires is an HTTP date to come; what expired is 404 or 410."""
    probe.require_offer("expiration")
    url = await probe.new_upload(10)
    reply = (await probe.patch(url, 0, b"data")).require(204)
    head = (await probe.head(url)).require(200, 204)
    told = reply.headers.get("Upload-Expires") or head.headers.get("Upload-Expires", "")
    expires = wire.http_date(told)
    if expires is None:
        raise DeviationError(f"Upload-Expires of an unfinished upload is {told!r}, not a date")
    now = wire.http_date(head.headers.get("Date", "")) or datetime.now(UTC)
    if (seconds := (expires - now).total_seconds()) < 0:
        raise DeviationError(f"Upload-Expires is {told}, which has passed")
    if seconds < probe.subject.patience_s / 2:
        async for _ in probe.attempts("the upload has not expired"):
            if (await probe.head(url)).status in (404, 410):
                return


async def takes_bytes_with_creation(probe: Probe) -> None:
    """POST with a body creates an upload and holds it whole."""
    probe.require_offer("creation-with-upload")
    data = secrets.token_bytes(1000)
    checksum = sha256(data) if "checksum" in probe.offers else None
    created = await probe.create(len(data), body=data, digest=sha256(data), checksum=checksum)
    url = probe.location(created.require(201))
    if created.offset() != len(data):
        raise DeviationError(f"{created.request}: offset {created.offset()}, not {len(data)}")
    probe.is_finished(url, len(data))
    await _require_offset(probe, url, len(data))
    await require_held(probe, url, data)


async def finds_altered_bytes(probe: Probe) -> None:
    """A body that is not what Upload-Checksum says is 460, and none of it kept."""
    probe.require_offer("checksum")
    data = secrets.token_bytes(1000)
    url = await probe.new_upload(len(data))
    (await probe.patch(url, 0, data[:400], checksum=sha256(data[:401]))).require(460)
    await _require_offset(probe, url, 0)
    (await probe.patch(url, 0, data[:400], checksum=sha256(data[:400]))).require(204)
    (await probe.patch(url, 400, data[400:], checksum=sha256(data))).require(460)
    await _require_offset(probe, url, 400)


async def finds_altered_creations(probe: Probe) -> None:
    """The same for a creation with a body; its key is free again."""
    probe.require_offer("checksum", "creation-with-upload")
    data, key = secrets.token_bytes(1000), secrets.token_hex(16)
    wrong = await probe.create(len(data), body=data, key=key, checksum=sha256(b"other"))
    wrong.require(460)
    right = await probe.create(len(data), key=key)
    offset = right.require(201).headers.get("Upload-Offset", "0")
    if offset != "0":
        raise DeviationError(f"{offset} bytes of a body with a wrong checksum were kept")


async def creates_once(probe: Probe) -> None:
    """A creation that is repeated finds the unfinished upload: its Location and offset."""
    data, key = secrets.token_bytes(100), secrets.token_hex(16)
    url = probe.location((await probe.create(len(data), key=key)).require(201))
    (await probe.patch(url, 0, data[:40])).require(204)
    again = (await probe.create(len(data), key=key)).require(201)
    if probe.location(again) != url:
        raise DeviationError("the same Idempotency-Key made a second upload")
    if again.offset() != 40:
        raise DeviationError(f"{again.request}: offset {again.offset()}, not 40")
    (await probe.patch(url, 40, data[40:], digest=sha256(data))).require(204)
    probe.is_finished(url, len(data))


async def loses_no_answer(probe: Probe) -> None:
    """A whole upload whose answer was lost is not stored twice when it comes again."""
    probe.require_offer("creation-with-upload")
    data, key = secrets.token_bytes(1000), secrets.token_hex(16)
    replies = [
        (await probe.create(len(data), body=data, key=key, digest=sha256(data))).require(201)
        for _ in range(2)
    ]
    first, second = map(probe.location, replies)
    if first != second:
        raise DeviationError("the same request, sent twice, made two uploads")
    if replies[1].offset() != len(data):
        raise DeviationError(f"the second answer has offset {replies[1].offset()}")


async def keeps_docks_apart(probe: Probe) -> None:
    """The same key from another dock is another upload, or none that this dock may make."""
    key = secrets.token_hex(16)
    url = probe.location((await probe.create(10, key=key)).require(201))
    other = await probe.create(10, key=key, metadata={"dock": b"another dock"})
    if other.status == 201 and probe.location(other) == url:
        raise DeviationError("another dock was given this dock's upload")
    other.require(201, 401, 403, 404)


async def gives_bytes_back(probe: Probe) -> None:
    """GET of a complete upload gives exactly its bytes, for docks that confirm by readback."""
    data = secrets.token_bytes(100_000)
    url = await probe.send(data)
    reply = await probe.get(url)
    if reply.status in (404, 405, 501):
        raise NotOfferedError("GET of an upload: not offered")
    reply.require(200)
    if "Content-Encoding" in reply.headers or reply.body != data:
        raise DeviationError(f"{reply.request}: other bytes than were sent")
    head = (await probe.head(url)).require(200, 204)
    metadata = wire.decode_metadata(head.headers.get("Upload-Metadata", ""))
    for name in ("dock", "camera", "visit", "custody_head"):
        if metadata.get(name) != probe.metadata()[name]:
            raise DeviationError(f"{head.request}: the metadata {name!r} is not given back")


async def _require_offset(probe: Probe, url: str, offset: int) -> None:
    found = (await probe.head(url)).require(200, 204).offset()
    if found != offset:
        raise DeviationError(f"the upload is at {found}, and should be at {offset}")


async def _finish(probe: Probe, url: str, data: bytes, offset: int) -> None:
    if offset < len(data):
        reply = await probe.patch(url, offset, data[offset:], digest=sha256(data))
        reply.require(204)
    probe.is_finished(url, len(data))
