"""Uploads as a dock does: with a key, in two parts, and again and again until there is a receipt."""

import asyncio

import aiohttp

from dockd.core.model import ReceiptClaims
from tests.store.tus import (
    Answer,
    Tus,
    as_arguments,
    repr_digest,
    upload_checksum,
)

_FAULTS = (500, 503, 507)


class StoreGoneError(Exception):
    """The store has died; start it again."""


async def deliver(tus: Tus, content: bytes, key: str) -> ReceiptClaims:
    """Upload until the store signs; return what a receipt that verifies says.

    Raises StoreGoneError when the store no longer answers.
    """
    try:
        async with asyncio.timeout(60):
            jws = await _try(tus, content, key)
            while jws is None:
                jws = await _try(tus, content, key)
    except aiohttp.ClientError as error:
        raise StoreGoneError from error
    return tus.verifier.verify(jws)


async def _try(tus: Tus, content: bytes, key: str) -> str | None:
    created = await tus.create(len(content), Idempotency_Key=key)
    if created.status in _FAULTS:
        return None
    assert created.status == 201, created
    url = created.headers["Location"]
    answer = await _send_rest(tus, url, content, created.offset)
    if answer is not None and "Dockd-Receipt" in answer.headers:
        return answer.receipt
    receipt = await tus.receipt(url)
    if receipt.status == 200:
        return receipt.text
    assert receipt.status in (*_FAULTS, 404, 409, 410), receipt
    return None


async def _send_rest(tus: Tus, url: str, content: bytes, offset: int) -> Answer | None:
    """Send all but the last bytes, then the last with the digests, as far as that goes."""
    last = len(content) * 3 // 4
    answer = None
    if offset < last:
        answer = await tus.patch(url, offset, content[offset:last])
        if answer.status != 204:
            assert answer.status in _FAULTS, answer
            return None
        offset = answer.offset
    rest = content[offset:]
    if rest:
        answer = await tus.patch(
            url,
            offset,
            rest,
            **as_arguments(upload_checksum(rest)),
            **as_arguments(repr_digest(content)),
        )
        assert answer.status in (*_FAULTS, 204), answer
    return answer
