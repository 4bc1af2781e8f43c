"""One bay: drives the lifecycle table with what enumerations say, and does the work of each state."""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from dockd.charging import Charger
from dockd.core.charging import Demand
from dockd.core.errors import (
    CameraError,
    CameraGoneError,
    DockdError,
    HelperError,
    JournalUnwritableError,
    ReceiptRejectedError,
    Retry,
)
from dockd.core.interfaces import CameraSource, Volume
from dockd.core.lifecycle import WORK, Action, BayEvent, BayState, Work, after
from dockd.core.model import (
    CustodyEvent,
    EndedWipe,
    Listing,
    Presence,
    RecordingState,
    Verdict,
    Visit,
)
from dockd.core.recording import RecordingEvent, compare
from dockd.core.wipe_gate import WipeRefused
from dockd.erasing import hear_of_ended, was_erased, wipe
from dockd.evidence.sidecar import find_sidecars
from dockd.ingest import Ingest
from dockd.opening import list_once, open_volume
from dockd.ops import events
from dockd.recordings import Recordings
from dockd.scanning import log_skipped, take_in, what_is_hidden
from dockd.sealing import compose, is_still_held, seal, unseal
from dockd.services import Services
from dockd.summary import sum_up
from dockd.worker import Worker

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Bounds of the growing pause before work is tried again that waits for a disk or the store."""

MAX_DIFFERENCES = 3
"""How often the camera may turn out to differ just before the wipe until a person is asked."""

_SENDING = frozenset({BayState.INGESTING, BayState.SEALING, BayState.HOLDING})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Observation:
    """What the last enumeration says of a bay. ``refusal`` is why this device is not let in."""

    presence: Presence | None
    refusal: str | None = None


class Bay:
    """A bay and the camera in it. :meth:`run` is its life; :meth:`observe` its only input."""

    def __init__(
        self,
        name: str,
        services: Services,
        source: CameraSource,
        worker: Worker,
        may_draw: Callable[[], bool] = lambda: True,
    ) -> None:
        """Build an empty bay. The bay owns the worker and closes it; ``may_draw`` as in Charger."""
        self.name = name
        self.state = BayState.EMPTY
        self.reason: str | None = None
        self.visit: Visit | None = None
        self.recordings: Recordings | None = None
        self.listing = Listing(())
        self.charger = Charger(name, services, source, worker, may_draw)
        self._services = services
        self._source = source
        self._worker = worker
        self._volume: Volume | None = None
        self._presence: Presence | None = None
        self._observation: Observation | None = None
        self._news = asyncio.Event()
        self._differences = 0
        self._finishing = False
        self._ended: Sequence[EndedWipe] = ()
        self._work: dict[Work, Callable[[], Awaitable[BayEvent]]] = {
            Work.OPEN: self._open,
            Work.SCAN: self._scan,
            Work.INGEST: self._take_recordings,
            Work.SEAL: self._seal,
            Work.HOLD: self._hold,
            Work.WIPE: self._wipe,
            Work.CHARGE: self._charge,
            Work.WATCH: self._watch,
            Work.WAIT: self._wait,
        }
        self._actions: dict[Action, Callable[[], Awaitable[None]]] = {
            Action.BEGIN_VISIT: self._begin_visit,
            Action.CLOSE_VOLUME: self._close_volume,
            Action.END_VISIT: self._end_visit,
        }

    def observe(self, observation: Observation) -> None:
        """Take the newest enumeration; an event from udev or the file system is only a hint."""
        self._observation = observation
        self.charger.see(observation.presence)
        self._news.set()

    @property
    def busy_s(self) -> float:
        """Seconds that the call at hand on the camera has lasted."""
        return self._worker.busy_s

    @property
    def erases(self) -> bool:
        """Whether the call at hand is an erasing, which may last as long as the card is slow."""
        return self._finishing or self.state is BayState.WIPING

    @property
    def demand(self) -> Demand | None:
        """What it asks of the dock's power: nothing when it is empty, or its camera is charged."""
        if self.state is BayState.READY:
            return None
        return self.charger.demand(at_work=self.state is not BayState.CHARGING)

    @property
    def explanation(self) -> str | None:
        """What a person should know: why it waits or needs somebody; None when all is as it should be."""
        if self.reason is not None or self.state not in _SENDING:
            return self.reason or self.charger.waiting
        if (away := self._services.uploader.away) is not None:
            return f"waiting: {away} ({away.advice})"
        if self._services.uploader.pace.closed:
            return "waiting: [upload] in the configuration lets nothing be sent at this time"
        delay = self.recordings.delay if self.recordings is not None else None
        return f"trying again: {delay}" if delay is not None else None

    async def run(self) -> None:
        """Live until cancelled. Cancellation leaves the visit open in the journal, to be resumed."""
        try:
            await self._news.wait()
            if self._observation is None or self._observation.presence is None:
                await self._end_visit_of_another(None)
            while True:
                await self._move(await self._next_event())
        finally:
            if self._volume is not None:
                self._worker.start(self._volume.close)
            self._worker.close()

    # Events and transitions

    async def _next_event(self) -> BayEvent:
        """Return what happens first: the work of this state ends, or the camera comes or goes."""
        kind = WORK.get(self.state)
        work = asyncio.create_task(self._done(kind)) if kind is not None else None
        try:
            while True:
                event = await self._news_event()
                if event is not None:
                    return event
                self._news.clear()
                news = asyncio.create_task(self._news.wait())
                try:
                    waits = {news} if work is None else {news, work}
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                if work is not None and work.done():
                    return work.result()
        finally:
            if work is not None:
                work.cancel()
                await asyncio.wait({work})

    async def _news_event(self) -> BayEvent | None:
        observation = self._observation
        if observation is None:
            return None
        presence = observation.presence
        if self.state is BayState.EMPTY:
            if presence is None:
                return None
            self._presence = presence
            if observation.refusal is not None:
                self.reason = observation.refusal
                return BayEvent.DEVICE_REFUSED
            return await self._arrival(presence)
        gone = presence is None or self._presence is None or presence != self._presence
        refused = observation.refusal is not None
        if gone or refused != (self.state is BayState.REFUSED):
            return BayEvent.UNPLUGGED
        return None

    async def _arrival(self, presence: Presence) -> BayEvent:
        """Tell a camera that was ready before a restart from one that still has work to do."""
        known = await self._end_visit_of_another(presence)
        if known is None or known.finished_at is None:
            return BayEvent.PLUGGED
        await self._load(known)
        return BayEvent.FOUND_READY

    async def _move(self, event: BayEvent) -> None:
        previous, transition = self.state, after(self.state, event)
        if transition.verdict is not None:
            await self._finish_visit(transition.verdict)
        visit = self.visit
        for action in transition.actions:
            await self._actions[action]()
        visit = self.visit or visit
        self.state = transition.state
        if self.state not in (BayState.ATTENTION, BayState.REFUSED):
            self.reason = None
        camera = self._presence.camera.camera_id if self._presence else None
        events.BAY_STATE.log(
            bay=self.name,
            camera=camera,
            visit=visit.visit_id if visit else None,
            state=self.state,
            previous=previous,
            cause=event,
        )
        if self.state in (BayState.ATTENTION, BayState.REFUSED):
            events.BAY_ATTENTION.log(
                bay=self.name,
                camera=camera,
                visit=visit.visit_id if visit else None,
                reason=self.reason,
            )
        if self.state is BayState.EMPTY:
            self._presence = None

    async def _done(self, kind: Work) -> BayEvent:
        """Do the work of a state until it reports an event; waits out what passes by itself."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._work[kind]()
            except DockdError as error:
                self._explain(error)
                if error.retry is not Retry.WHEN_BACK:
                    if isinstance(error, CameraError | HelperError):
                        # One that is pulled fails in many ways. Whether it is gone is for the
                        # enumeration to say; if it stays, a person must look.
                        await asyncio.sleep(self._services.config().cameras.noticed_s)
                    return BayEvent.PERSON_NEEDED
                await self._pause(error, pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - logged in full and shown at the bay
                # A fault of our own stays in this bay (INV-8) and is shown; nothing is erased.
                events.BAY_FAULT.log(bay=self.name, work=kind, error=error)
                self.reason = f"fault in dockd while it did {kind}: {error!r}"
                return BayEvent.PERSON_NEEDED

    def _explain(self, error: DockdError) -> None:
        self.reason = f"{error} ({error.advice})"

    async def _pause(self, error: DockdError, pause_s: float) -> None:
        events.BAY_WAITING.log(bay=self.name, reason=str(error), wait_s=pause_s)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, no secret

    async def _surely(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write to the journal, waiting for room on the disk for as long as it takes."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await write()
            except JournalUnwritableError as error:
                self._explain(error)
                await self._pause(error, pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    # The visit

    async def _end_visit_of_another(self, here: Presence | None) -> Visit | None:
        """Return the open visit of the camera that is here; end that of one that has gone unseen."""
        known = await self._surely(lambda: self._services.journal.present_visit(self.name))
        if known is None or (
            here is not None and (here.camera, here.where) == (known.camera, known.where)
        ):
            return known
        await self._load(known)
        await self._finish_visit(Verdict.INTERRUPTED)
        await self._end_visit()
        return None

    async def _begin_visit(self) -> None:
        presence = self._here()
        known = await self._end_visit_of_another(presence)
        if known is not None:
            await self._load(known)
            events.VISIT_RESUMED.log(**self._about())
            return
        now = self._services.clock.now()
        visit = Visit(uuid.uuid4().hex, self.name, presence.camera, presence.where, now)
        details = {"bay": self.name, "identified_by": presence.camera.identified_by.value}
        event = self._custody(visit, "visit.started", details)
        await self._surely(lambda: self._services.journal.begin_visit(visit, event))
        await self._load(visit)
        events.VISIT_STARTED.log(**self._about())

    async def _load(self, visit: Visit) -> None:
        self.visit = visit
        known = await self._services.journal.recordings(visit.visit_id)
        self.recordings = Recordings(self._services, visit, known)
        self._differences = 0

    async def _finish_visit(self, verdict: Verdict) -> None:
        """Set the verdict and write the one line that sums the visit up."""
        visit, recordings = self._current()
        if visit.finished_at is None:
            await self._sum_up(visit, recordings, verdict)
        for ended in self._ended:
            # Only now: until the verdict stands, a restart has to hear of it again.
            self._worker.start(partial(self._source.acknowledge, ended.visit_id))
        self._ended = ()

    async def _sum_up(self, visit: Visit, recordings: Recordings, verdict: Verdict) -> None:
        now = self._services.clock.now()
        visit = replace(visit, finished_at=now, verdict=verdict)
        summary = sum_up(visit, recordings, self.listing, now)
        event = self._custody(visit, "visit.finished", summary)
        await self._surely(lambda: self._services.journal.update_visit(visit, event))
        self.visit = visit
        events.VISIT_FINISHED.log(**self._about(), **summary)

    async def _end_visit(self) -> None:
        visit, _ = self._current()
        ended = replace(visit, ended_at=self._services.clock.now())
        event = self._custody(ended, "visit.ended", {"bay": self.name})
        await self._surely(lambda: self._services.journal.update_visit(ended, event))
        self.visit = self.recordings = None
        self.listing = Listing(())

    async def _close_volume(self) -> None:
        volume, self._volume = self._volume, None
        if volume is not None:
            # Not waited for: a dying card may keep it, and the bay's next camera has other worries.
            self._worker.start(volume.close)

    # The work of each state

    async def _open(self) -> BayEvent:
        presence = self._here()
        visit, recordings = self._current()
        for recording in recordings.quarantined:
            await recordings.move(recording.path, RecordingEvent.TO_DO_AGAIN)
        if self._volume is None:
            if await self._worker.start(lambda: self._source.is_half_erased(presence)):
                self._finishing = True
                self.reason = "an erasing that was cut short is being finished; it may take hours"
            try:
                self._volume = await open_volume(self._source, self._worker, presence)
            finally:
                self._finishing = False
        self._ended = await hear_of_ended(self._services, self._source, self._worker, visit)
        if any(one.visit_id == visit.visit_id for one in self._ended):
            await self._load(visit)
        return BayEvent.OPENED

    async def _scan(self) -> BayEvent:
        visit, recordings = self._current()
        volume = self._opened()
        while True:
            self.listing = await self._worker.start(volume.list_files)
            await take_in(self._services, visit, recordings, self.listing)
            if recordings.waiting:
                return BayEvent.FOUND_WORK
            if not self.listing.unsettled:
                break
            self.reason = f"{len(self.listing.unsettled)} files are still being written"
            cameras = self._services.config().cameras
            # One that its writer closes counts at once, whatever the time for those that nobody closes.
            await asyncio.sleep(min(max(0.1, cameras.settle_s), cameras.reconcile_s))
        log_skipped(visit, self.listing)
        if quarantined := recordings.quarantined:
            self.reason = f"{len(quarantined)} recordings set aside: {quarantined[0].reason}"
            return BayEvent.PERSON_NEEDED
        if (hidden := what_is_hidden(self.listing)) is not None:
            self.reason = hidden
            return BayEvent.PERSON_NEEDED
        if not self.listing.files and not recordings.count(RecordingState.CONFIRMED):
            erased = was_erased(visit, recordings, self._ended)
            return BayEvent.FOUND_ERASED if erased else BayEvent.FOUND_NOTHING
        if doubtful := await self._worker.start(lambda: recordings.unproved(self.listing)):
            await recordings.prove_again(doubtful)
            return BayEvent.FOUND_WORK
        return BayEvent.ALL_CONFIRMED

    async def _take_recordings(self) -> BayEvent:
        visit, recordings = self._current()
        sidecars = find_sidecars(recordings.by_path)
        volume = self._opened()
        await Ingest(self._services, visit, recordings, volume, self._worker, sidecars).run()
        return BayEvent.ROUND_DONE

    async def _seal(self) -> BayEvent:
        visit, recordings = self._current()
        listed = list(recordings.by_path.values())
        self.visit = await compose(self._services, visit, listed, self.listing.skipped)
        try:
            self.visit = await seal(self._services, self.visit)
        except ReceiptRejectedError:
            if await recordings.ask_again():
                return BayEvent.SEAL_REFUSED
            raise
        return BayEvent.SEALED

    async def _hold(self) -> BayEvent:
        while self._services.config().wipe.when != "never":
            visit, _ = self._current()
            hold_until = visit.hold_until or self._services.clock.now()
            left_s = (hold_until - self._services.clock.now()).total_seconds()
            if left_s <= 0:
                return await self._end_hold()
            self.reason = f"copied; kept on the camera until {hold_until.isoformat()}"
            await asyncio.sleep(min(left_s, LONGEST_PAUSE_S))
        return BayEvent.WIPE_NOT_WANTED

    async def _end_hold(self) -> BayEvent:
        """Allow the wipe, unless the store has lost what it signed for: only the camera has it now."""
        visit, recordings = self._current()
        self.reason = None
        if await is_still_held(self._services, visit):
            return BayEvent.HOLD_OVER
        self.visit = await unseal(self._services, visit)
        await recordings.ask_again()
        return BayEvent.SEAL_BROKEN

    async def _wipe(self) -> BayEvent:
        visit, recordings = self._current()
        outcome = await wipe(
            self._services, self._source, self._worker, self._here(), visit, recordings
        )
        if isinstance(outcome, WipeRefused):
            self.reason = f"not erased: {outcome.reasons[0]}"
            self._differences += 1
            if outcome.camera_differs and self._differences <= MAX_DIFFERENCES:
                return BayEvent.CAMERA_DIFFERS
            return BayEvent.PERSON_NEEDED
        if not outcome.verified:
            self.reason = f"the wipe could not be verified: {outcome.verification}"
            return BayEvent.PERSON_NEEDED
        return BayEvent.WIPED

    async def _charge(self) -> BayEvent:
        await self.charger.run(self._here())
        return BayEvent.CHARGED

    async def _watch(self) -> BayEvent:
        """Look whether footage arrives on a ready camera, where the source allows it."""
        _, recordings = self._current()
        presence = self._here()
        while True:
            await asyncio.sleep(self._services.config().cameras.reconcile_s)
            if not self._source.watches_when_ready:
                continue
            try:
                listing = await self._worker.start(partial(list_once, self._source, presence))
            except CameraError as error:
                self._explain(error)
                continue
            found = compare(listing, recordings.by_path.values())
            if found.new or found.changed:
                return BayEvent.FOOTAGE_FOUND

    async def _wait(self) -> BayEvent:
        await asyncio.sleep(self._services.config().attention.retry_s)
        return BayEvent.TRY_AGAIN

    # Small helpers

    def _here(self) -> Presence:
        if self._presence is None:
            raise CameraGoneError(f"bay {self.name} is empty")
        return self._presence

    def _current(self) -> tuple[Visit, Recordings]:
        if self.visit is None or self.recordings is None:
            raise CameraGoneError(f"bay {self.name} has no visit")
        return self.visit, self.recordings

    def _opened(self) -> Volume:
        if self._volume is None:
            raise CameraGoneError(f"bay {self.name}: the camera is not open")
        return self._volume

    def _about(self) -> dict[str, object]:
        visit, _ = self._current()
        return {"bay": self.name, "camera": visit.camera.camera_id, "visit": visit.visit_id}

    def _custody(self, visit: Visit, event: str, details: Mapping[str, object]) -> CustodyEvent:
        return CustodyEvent(event, visit.visit_id, visit.camera.camera_id, details)
