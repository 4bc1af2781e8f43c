"""Asks for a wipe, and keeps in journal, custody log and log what came of it."""

import threading
from collections.abc import Sequence

from dockd.core.errors import ReceiptRejectedError
from dockd.core.interfaces import CameraSource
from dockd.core.model import (
    CustodyEvent,
    EndedWipe,
    Presence,
    RecordingState,
    Visit,
    WipeReport,
    WipeRequest,
)
from dockd.core.wipe_gate import WipeRefused
from dockd.ops import events
from dockd.recordings import Recordings
from dockd.services import Services
from dockd.worker import Worker

MAX_REASONS = 20
"""Reasons of a refused wipe that are kept; the first ones tell the story."""


async def wipe(
    services: Services,
    source: CameraSource,
    worker: Worker,
    presence: Presence,
    visit: Visit,
    recordings: Recordings,
) -> WipeReport | WipeRefused:
    """Have the camera read afresh and erased if the gate permits it.

    That it begins is in the custody log before the first byte is erased. Of a refusal, the recordings
    whose bytes are others by now are to be sent anew. Cancelled, the source stops at the next safe
    point. Raises the camera's, the helper's and the journal's errors.
    """
    if visit.manifest is None or visit.manifest_receipt is None or visit.hold_until is None:
        raise ReceiptRejectedError(f"bay {visit.bay}: the visit has no proved manifest")
    request = WipeRequest(
        presence,
        visit.visit_id,
        visit.manifest,
        visit.manifest_receipt,
        visit.hold_until,
        services.verifier.statements,
    )
    await services.journal.add_custody(
        _event(visit, "wipe.started", {"recordings": len(recordings.by_path)})
    )
    stop = threading.Event()
    try:
        outcome = await worker.start(lambda: source.wipe(request, stop.is_set))
    finally:
        stop.set()
    if isinstance(outcome, WipeRefused):
        await _keep_refusal(services, visit, recordings, outcome)
    else:
        await _keep_report(services, visit, recordings, outcome)
    if isinstance(outcome, WipeReport) and outcome.verified:
        await worker.start(lambda: source.acknowledge(visit.visit_id))
    return outcome


async def hear_of_ended(
    services: Services, source: CameraSource, worker: Worker, visit: Visit
) -> Sequence[EndedWipe]:
    """Take wipes into the history whose end nobody heard of: finished after a break, or while the dock
    was down. Return those of the visit's camera; the caller has to acknowledge them.

    Raises the helper's and the journal's errors.
    """
    ended = await worker.start(source.ended_wipes)
    for one in ended:
        await _keep_ended(services, visit.bay, one)
    return [one for one in ended if one.camera_id == visit.camera.camera_id]


def was_erased(visit: Visit, recordings: Recordings, ended: Sequence[EndedWipe]) -> bool:
    """Whether an empty camera is empty because a wipe came to its end in this visit."""
    meanwhile = any(one.report.finished_at >= visit.started_at for one in ended)
    return meanwhile or recordings.count(RecordingState.ERASED) > 0


async def _keep_ended(services: Services, bay: str, ended: EndedWipe) -> None:
    """Enter the end of a wipe into the history of the visit it belongs to, if it is not there yet."""
    recordings = await services.journal.recordings(ended.visit_id)
    confirmed = sum(item.state is RecordingState.CONFIRMED for item in recordings)
    details = _details(ended.report, confirmed)
    event = CustodyEvent("wipe.done", ended.visit_id, ended.camera_id, details)
    if await services.journal.end_wipe(ended.visit_id, event):
        about = {"bay": bay, "camera": ended.camera_id, "visit": ended.visit_id}
        events.WIPE_DONE.log(**about, **_facts(ended.report))


async def _keep_report(
    services: Services, visit: Visit, recordings: Recordings, report: WipeReport
) -> None:
    confirmed = recordings.count(RecordingState.CONFIRMED)
    event = _event(visit, "wipe.done", _details(report, confirmed))
    if report.verified:
        await recordings.all_erased(event)
    else:
        await services.journal.add_custody(event)
    events.WIPE_DONE.log(**_about(visit), **_facts(report))


def _facts(report: WipeReport) -> dict[str, object]:
    return {
        "method": report.method,
        "tool": report.tool,
        "wipe_level": report.level,
        "files": report.files_erased,
        "bytes": report.bytes_erased,
        "verified": report.verified,
        "verification": report.verification,
        "resumed": report.resumed,
    }


def _details(report: WipeReport, recordings: int) -> dict[str, object]:
    """Return what the custody log says of a wipe's end.

    Files are those of this run; an earlier one that was cut short may have erased some of the recordings.
    """
    return {"recordings": recordings, **_facts(report), "at": report.finished_at.isoformat()}


async def _keep_refusal(
    services: Services, visit: Visit, recordings: Recordings, refused: WipeRefused
) -> None:
    reasons = [str(reason) for reason in refused.reasons[:MAX_REASONS]]
    await services.journal.add_custody(_event(visit, "wipe.refused", {"reasons": reasons}))
    events.WIPE_REFUSED.log(**_about(visit), count=len(refused.reasons), reasons=reasons)
    for path in refused.differing_paths:
        await recordings.changed_unseen(path)


def _about(visit: Visit) -> dict[str, object]:
    return {"bay": visit.bay, "camera": visit.camera.camera_id, "visit": visit.visit_id}


def _event(visit: Visit, event: str, details: dict[str, object]) -> CustodyEvent:
    return CustodyEvent(event, visit.visit_id, visit.camera.camera_id, details)
