"""Sending one recording until the target holds it: the only place in dockd that tries again.

Each attempt begins by asking for the true state (HEAD), so an attempt after any break is the same as
the first. All bytes but the last few go in one streaming request; the last few follow in a second
one, together with the digest of the whole, which only then is known from a single read.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from dockd.core.errors import (
    AdministrativeRefusalError,
    ChecksumMismatchError,
    DockdError,
    OffsetConflictError,
    ProtocolViolationError,
    ReceiptRejectedError,
    RequestTooLargeError,
    SendingPausedError,
    TargetError,
    TargetFaultError,
    TargetFullError,
    TargetRefusedError,
    TargetUnavailableError,
    UploadGoneError,
    UploadLockedError,
    UploadMovedError,
)
from dockd.core.interfaces import UploadSource, UploadTarget
from dockd.core.model import ReceiptPending, TargetProperties, UploadSpec, display_name
from dockd.ops import events
from dockd.target.pace import Pace, Turn
from dockd.target.patience import Patience, RetryRules
from dockd.target.tally import CHECKPOINT_S, Tally

T = TypeVar("T")

SMALL_BYTES = 1 << 20
"""Recordings up to this size go along with their creation, in one round trip."""

LAST_CHUNK_BYTES = 256 << 10
"""What is held back for the request that also carries the digests."""

SMALLER_BYTES = (64 << 20, 1 << 20, 64 << 10)
"""What a request with bytes shrinks to, step by step, where something on the way takes no larger one."""

SHORTEST_POLL_S = 0.05

AWAY = (TargetUnavailableError, TargetFullError, AdministrativeRefusalError)
"""What says that the target as a whole takes nothing now."""

# tenacity swallows CancelledError unless what is retried is named: allow-lists only.
RECEIPT_RETRIES = (*AWAY, TargetFaultError, UploadLockedError, ProtocolViolationError)
SEND_RETRIES = (
    *RECEIPT_RETRIES,
    OffsetConflictError,
    UploadGoneError,
    ChecksumMismatchError,
    RequestTooLargeError,
    UploadMovedError,
)


@dataclass(frozen=True, slots=True)
class Sent:
    """The target holds every byte at ``url``. ``sha256`` is hexadecimal, over the bytes as read.

    ``receipt`` is there when it was ready at once. It is not verified yet. ``resent_bytes`` were sent
    more than once.
    """

    url: str
    sha256: str
    receipt: str | None
    attempts: int
    resent_bytes: int


def _heard(_: TargetError) -> None:
    """Nobody wants to know why something is tried again; the log has it."""


@dataclass(slots=True)
class _Errand:
    """What the target is asked about, the patience that is left for it, and who hears of each retry."""

    recording: str | None
    url: str | None
    patience: Patience
    on_retry: Callable[[TargetError], None]


@dataclass(slots=True, kw_only=True)
class _Transfer(_Errand):
    """One recording on its way; the :class:`~dockd.core.interfaces.UploadTurn` of its requests."""

    spec: UploadSpec
    source: UploadSource
    on_created: Callable[[str], Awaitable[None]]
    on_progress: Callable[[int], None]
    turn: Turn
    tally: Tally
    acknowledged: int = 0
    position: int = 0
    checkpoint_s: float = CHECKPOINT_S

    def is_at(self, offset: int) -> None:
        """Take the target's word for what it holds."""
        if not 0 <= offset <= self.spec.size_bytes:
            raise ProtocolViolationError(
                f"{self.url} is at {offset} of {self.spec.size_bytes} bytes, which cannot be"
            )
        if offset < self.acknowledged:
            events.UPLOAD_OFFSET_WENT_BACK.log(
                recording=self.recording,
                url=self.url,
                acknowledged_bytes=self.acknowledged,
                offset_bytes=offset,
            )
        self.acknowledged = offset
        if self.tally.offset_from is None:
            self.tally.offset_from = self.tally.offset_to = offset
        self.patience.offset_is(offset)
        self.on_progress(offset)

    async def take(self, size_bytes: int) -> int:
        """Wait for this recording's turn; count what then goes to the network, and what goes again."""
        self.on_progress(self.position)
        granted = await self.turn.take(size_bytes)
        self.tally.hands_over(self.position, self.position + granted)
        self.position += granted
        if self.tally.time_passes() >= self.checkpoint_s:
            self.checkpoint_s = self.tally.attempt_seconds + CHECKPOINT_S
            await self.tally.keep(self.tally)
        return granted

    def rest(self) -> None:
        """See :class:`~dockd.core.interfaces.UploadTurn`."""
        self.turn.rest()


class Uploader:
    """Sends recordings to a target and fetches their receipts, through every fault that passes."""

    def __init__(
        self,
        target: UploadTarget,
        *,
        rng: random.Random,
        pace: Pace | None = None,
        rules: RetryRules = RetryRules(),  # noqa: B008 (immutable)
        small_bytes: int = SMALL_BYTES,
        last_chunk_bytes: int = LAST_CHUNK_BYTES,
    ) -> None:
        """Build over a target. ``rng`` spreads the pauses of many docks; ``pace`` limits the rate."""
        self.pace = pace if pace is not None else Pace()
        self._target = target
        self._rng = rng
        self._rules = rules
        self._small_bytes = small_bytes
        self._last_chunk_bytes = last_chunk_bytes
        self._properties: TargetProperties | None = None
        self._one_asks = asyncio.Lock()
        self._asking = Patience(rules, rng)
        self._ask_at_s = 0.0
        self._most_bytes: int | None = None
        self._away_since_s: float | None = None
        self.away: TargetError | None = None
        """Why the target takes nothing now; None while it does."""

    async def send(
        self,
        spec: UploadSpec,
        source: UploadSource,
        *,
        url: str | None,
        on_created: Callable[[str], Awaitable[None]],
        on_progress: Callable[[int], None],
        on_retry: Callable[[TargetError], None] = _heard,
        turn: Turn | None = None,
        tally: Tally | None = None,
    ) -> Sent:
        """Bring the target to hold every byte of ``source``; go on at ``url`` where there is one.

        ``on_created`` is awaited with each new upload's URL before bytes are streamed to it, which is
        never when they all went along with its creation. ``on_progress`` hears how many bytes the
        network has taken. ``turn`` is from :attr:`pace` and is closed at the end; without
        it, this goes first. ``tally`` is kept up to date.

        Raises the camera's errors as they are; TargetError when trying again cannot help, or has not
        helped often enough.
        """
        transfer = _Transfer(
            display_name(spec.path),
            url,
            Patience(self._rules, self._rng),
            on_retry,
            spec=spec,
            source=source,
            on_created=on_created,
            on_progress=on_progress,
            turn=turn if turn is not None else self.pace.turn("", lambda: True),
            tally=tally if tally is not None else Tally(),
        )
        retrying = self._retrying(SEND_RETRIES, transfer)
        try:
            return await retrying(self._attempt, transfer)
        finally:
            transfer.turn.close()

    async def receipt(self, url: str, on_retry: Callable[[TargetError], None] = _heard) -> str:
        """Return the receipt of a complete upload, waiting as long as the target is checking it.

        Raises ReceiptRejectedError when the target put the bytes aside, UploadGoneError when it knows
        nothing of them, TargetRefusedError when it gives no receipts at all.
        """
        while True:
            errand = _Errand(None, url, Patience(self._rules, self._rng), on_retry)
            retrying = self._retrying(RECEIPT_RETRIES, errand)
            answer: str | ReceiptPending = await retrying(self._ask_for_receipt, url)
            if isinstance(answer, str):
                return answer
            await asyncio.sleep(max(answer.retry_after_s, SHORTEST_POLL_S))

    # One attempt

    async def _attempt(self, transfer: _Transfer) -> Sent:
        transfer.tally.begin_attempt()
        # What an upload that was begun earlier costs from now on is known at once, whatever happens.
        transfer.checkpoint_s = CHECKPOINT_S if transfer.url is None else 0.0
        try:
            sent = await self._outlast_pauses(transfer)
        except DockdError as error:
            transfer.tally.end_attempt(error)
            await transfer.tally.keep(transfer.tally)
            raise
        transfer.tally.end_attempt(None)
        return sent

    async def _outlast_pauses(self, transfer: _Transfer) -> Sent:
        while True:
            await transfer.turn.until_open()
            try:
                return await self._send_all(transfer)
            except SendingPausedError as pause:
                events.UPLOAD_PAUSED.log(
                    recording=transfer.recording,
                    url=transfer.url,
                    acknowledged_bytes=transfer.acknowledged,
                    why=str(pause),
                )

    async def _send_all(self, transfer: _Transfer) -> Sent:
        transfer.patience.begin_attempt()
        await self._discover()
        receipt = await self._locate(transfer)
        if receipt is None and transfer.acknowledged < transfer.spec.size_bytes:
            receipt = await self._stream(transfer)
        await transfer.source.seek(transfer.spec.size_bytes)
        return Sent(
            url=transfer.url or "",
            sha256=transfer.source.sha256().hex(),
            receipt=receipt,
            attempts=transfer.tally.attempts,
            resent_bytes=transfer.tally.resent_bytes,
        )

    async def _discover(self) -> TargetProperties:
        """Return what the target can do, asking it first after a start and after it was away.

        One recording asks for all, so that a target that is away hears of each dock but now and then,
        however much waits there.
        """
        async with self._one_asks:
            if self._properties is not None:
                return self._properties
            loop = asyncio.get_running_loop()
            await asyncio.sleep(self._ask_at_s - loop.time())
            try:
                self._properties = await self._target.discover()
            except TargetError as error:
                self._asking.failed(error)
                self._ask_at_s = loop.time() + self._asking.pause_s(error)
                raise
            self._asking, self._ask_at_s = Patience(self._rules, self._rng), 0.0
            return self._properties

    async def _locate(self, transfer: _Transfer) -> str | None:
        """Find the upload, or create it; return its receipt if the target already has all of it."""
        if transfer.url is None:
            return await self._create(transfer)
        try:
            transfer.is_at(await self._target.offset(transfer.url))
        except UploadGoneError:
            finished = await self._receipt_of_gone(transfer.url)
            if finished is None:
                events.UPLOAD_GONE.log(
                    recording=transfer.recording,
                    url=transfer.url,
                    acknowledged_bytes=transfer.acknowledged,
                )
                transfer.url, transfer.acknowledged = None, 0
                return await self._create(transfer)
            transfer.is_at(transfer.spec.size_bytes)
            return finished if isinstance(finished, str) else None
        return None

    async def _receipt_of_gone(self, url: str) -> str | ReceiptPending | None:
        try:
            return await self._target.receipt(url)
        except (UploadGoneError, ReceiptRejectedError, TargetRefusedError):
            return None

    async def _create(self, transfer: _Transfer) -> str | None:
        body, sha256 = await self._whole_if_small(transfer)
        transfer.position = 0
        try:
            created = await self._target.create(transfer.spec, body, sha256, turn=transfer)
        except RequestTooLargeError as error:
            self._shrink(len(body or b""), error)
            raise
        transfer.url = created.url
        if created.offset < transfer.spec.size_bytes:
            await transfer.on_created(created.url)
        self._is_back()
        transfer.is_at(created.offset)
        return created.receipt

    async def _whole_if_small(self, transfer: _Transfer) -> tuple[bytes | None, bytes | None]:
        offered = self._properties is not None and self._properties.creation_with_upload
        size = transfer.spec.size_bytes
        if not offered or size > min(self._small_bytes, self._most_bytes or size):
            return None, None
        await transfer.source.seek(0)
        return await _collect(transfer.source, size), transfer.source.sha256()

    async def _stream(self, transfer: _Transfer) -> str | None:
        size, begin = transfer.spec.size_bytes, transfer.acknowledged
        most = self._most_bytes or size
        held_back = max(begin, size - min(self._last_chunk_bytes, most))
        await transfer.source.seek(begin)
        while transfer.acknowledged < held_back:
            end = min(held_back, transfer.acknowledged + most)
            await self._append(transfer, end, transfer.source.chunks(end))
        last = await _collect(transfer.source, size)
        return await self._append(
            transfer,
            size,
            _once(last),
            chunk_sha256=hashlib.sha256(last).digest(),
            whole_sha256=transfer.source.sha256(),
        )

    async def _append(
        self,
        transfer: _Transfer,
        end: int,
        chunks: AsyncIterator[bytes],
        *,
        chunk_sha256: bytes | None = None,
        whole_sha256: bytes | None = None,
    ) -> str | None:
        transfer.position = begin = transfer.acknowledged
        try:
            async with _closing(chunks) as body:
                appended = await self._target.append(
                    transfer.url or "",
                    begin,
                    end - begin,
                    body,
                    chunk_sha256=chunk_sha256,
                    whole_sha256=whole_sha256,
                    turn=transfer,
                )
        except RequestTooLargeError as error:
            self._shrink(end - begin, error)
            raise
        except UploadMovedError as error:
            transfer.url = error.url
            raise
        self._is_back()
        transfer.is_at(appended.offset)
        if appended.offset != end:
            raise OffsetConflictError(
                f"{transfer.url} took {appended.offset - begin} of {end - begin} bytes"
            )
        return appended.receipt

    def _shrink(self, size_bytes: int, error: RequestTooLargeError) -> None:
        """Send less at once from now on; raise TargetRefusedError where even the least is too much."""
        most = next((smaller for smaller in SMALLER_BYTES if smaller < size_bytes), None)
        if most is None:
            raise TargetRefusedError(str(error), status=error.status) from error
        self._most_bytes = min(most, self._most_bytes or most)

    async def _ask_for_receipt(self, url: str) -> str | ReceiptPending:
        properties = await self._discover()
        try:
            answer = await self._target.receipt(url)
        except UploadGoneError as error:
            if properties.receipts:
                raise
            raise TargetRefusedError(
                f"{url}: the target gives no receipts, so it never confirms", status=error.status
            ) from error
        self._is_back()
        return answer

    # Trying again

    def _retrying(self, retried: tuple[type[TargetError], ...], errand: _Errand) -> AsyncRetrying:
        def error_of(state: RetryCallState) -> TargetError:
            error = state.outcome.exception() if state.outcome is not None else None
            if not isinstance(error, TargetError):
                raise TypeError(f"{error!r} is not one of the errors that are retried")
            return error

        def failed(state: RetryCallState) -> None:
            errand.patience.failed(error_of(state))
            self._notice_absence(error_of(state))

        def log(state: RetryCallState) -> None:
            error = error_of(state)
            events.UPLOAD_RETRY.log(
                recording=errand.recording,
                url=errand.url,
                why=str(error),
                error=type(error).__name__,
                status=error.status,
                attempt=state.attempt_number,
                wait_s=round(state.upcoming_sleep, 3),
            )
            errand.on_retry(error)

        return AsyncRetrying(
            sleep=asyncio.sleep,
            retry=retry_if_exception_type(retried),
            after=failed,
            stop=lambda _: errand.patience.exhausted,
            wait=lambda state: errand.patience.pause_s(error_of(state)),
            before_sleep=log,
            reraise=True,
        )

    def _notice_absence(self, error: TargetError) -> None:
        if not isinstance(error, AWAY):
            return
        if self.away is None:
            self._away_since_s = asyncio.get_running_loop().time()
            events.TARGET_UNAVAILABLE.log(
                why=str(error), error=type(error).__name__, status=error.status
            )
        self.away = error
        # It may come back as another version of itself.
        self._properties = self._most_bytes = None

    def _is_back(self) -> None:
        if self.away is None or self._away_since_s is None:
            return
        away_s = asyncio.get_running_loop().time() - self._away_since_s
        events.TARGET_BACK.log(away_s=round(away_s, 1))
        self.away = self._away_since_s = None


@asynccontextmanager
async def _closing(chunks: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Leave no reader behind, whatever a request made of it."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def _once(chunk: bytes) -> AsyncGenerator[bytes, None]:
    yield chunk


async def _collect(source: UploadSource, end: int) -> bytes:
    return b"".join([chunk async for chunk in source.chunks(end)])
