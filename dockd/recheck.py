"""Asks the store now and then whether it still holds what no camera holds any more.

A store that was restored from a backup has forgotten the newest of what it has signed for. While a
camera still has the bytes, its bay finds that out before it erases them (:mod:`dockd.sealing`). Of
what was erased already the dock can only tell people, at once, and for good in its custody log.
"""

import asyncio
import random
from dataclasses import replace

from dockd.core.model import CustodyEvent, Visit
from dockd.ops import events
from dockd.sealing import is_of_this_store, is_still_held
from dockd.services import Services

LONGEST_PAUSE_S = 2 * 3600.0
"""Between two looks; an hour on average, at a time of each dock's own."""


async def recheck_for_ever(services: Services) -> None:
    """Look again and again, until cancelled."""
    reported: set[str] = set()
    while True:
        await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_S))  # noqa: S311 - spreads load, no secret
        try:
            await recheck(services, reported)
        except Exception as error:  # noqa: BLE001 - logged, and nothing else hangs on it
            events.RECHECK_FAILED.log(reason=str(error) or repr(error))


async def recheck(services: Services, reported: set[str]) -> None:
    """Report each erased visit whose manifest the store has lost, the newest first.

    One that is still there vouches for those before it: a backup loses the newest. ``reported``
    visits are not asked about again. Raises TargetError and JournalError.
    """
    while (visit := await services.journal.newest_erased_visit(reported)) is not None:
        if not await is_of_this_store(services, visit) or await is_still_held(services, visit):
            return
        await _report(services, visit)
        reported.add(visit.visit_id)


async def _report(services: Services, visit: Visit) -> None:
    recordings = await services.journal.recordings(visit.visit_id)
    count = len(recordings)
    event = CustodyEvent(
        "footage.lost",
        visit=visit.visit_id,
        camera=visit.camera.camera_id,
        details={"recordings": count, "manifest_receipt": visit.manifest_receipt},
    )
    # Without its receipt it is not asked about after a restart either.
    await services.journal.update_visit(replace(visit, manifest_receipt=None), event)
    events.FOOTAGE_LOST.log(
        bay=visit.bay,
        camera=visit.camera.camera_id,
        visit=visit.visit_id,
        recordings=count,
        url=visit.manifest_url,
    )
