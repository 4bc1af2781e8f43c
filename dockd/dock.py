"""All bays of a dock: tells them who is there, reports those that stall, and keeps them going."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from dockd.bay import Bay, Observation
from dockd.core.charging import share_power
from dockd.core.interfaces import CameraSource
from dockd.core.lifecycle import BayState
from dockd.core.model import Presence
from dockd.ops import events
from dockd.recheck import recheck_for_ever
from dockd.services import Services
from dockd.status import dock_status, outlook
from dockd.worker import BayThread, Worker

STALL_S = 60.0
"""A call on a camera that lasts longer is reported."""

BAY_RESTART_S = 5.0
"""Pause before a bay that failed as a whole begins anew."""


class Dock:
    """All bays of a dock over their sources of cameras: reconciles, reports stalls, keeps them going."""

    def __init__(
        self,
        services: Services,
        sources: Sequence[CameraSource],
        new_worker: Callable[[str], Worker] = lambda bay: BayThread(f"bay-{bay}"),
        reconciled: Callable[["Dock"], None] = lambda _: None,
    ) -> None:
        """Build with empty bays; :meth:`run` brings them to life.

        ``reconciled`` is called after each look at all bays.
        """
        self.services = services
        self.bays: dict[str, Bay] = {}
        self._sources = sources
        self._new_worker = new_worker
        self._reconciled = reconciled
        self._look = asyncio.Event()
        self._stalled: set[str] = set()
        self._crowded: dict[str, Sequence[str]] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        # The watcher of hints is in place before the first look, so that nothing falls in between.
        async with asyncio.TaskGroup() as group:
            group.create_task(recheck_for_ever(self.services))
            for source in self._sources:
                group.create_task(self._listen(source))
                for name in source.bays:
                    group.create_task(self._keep(name, source))
            await self._reconcile_for_ever()

    async def _keep(self, name: str, source: CameraSource) -> None:
        """Run a bay; one that fails as a whole begins anew and does not touch the others (INV-8)."""
        while True:
            worker, may_draw = self._new_worker(name), partial(self._may_draw, name)
            bay = Bay(name, self.services, source, worker, may_draw)
            self.bays[name] = bay
            self._look.set()
            try:
                await bay.run()
            except Exception as error:  # noqa: BLE001 - logged in full, and the bay begins anew
                events.BAY_FAULT.log(bay=name, work="run", error=error)
            await asyncio.sleep(BAY_RESTART_S)

    async def _listen(self, source: CameraSource) -> None:
        async with contextlib.aclosing(source.hints()) as hints:
            async for _ in hints:
                self._look.set()

    async def _reconcile_for_ever(self) -> None:
        """Compare what is there with what the bays believe: on every hint, and every few seconds."""
        looker = self._new_worker("enumeration")
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.services.config().cameras.reconcile_s):
                        await self._look.wait()
                self._look.clear()
                self._observe(await looker.start(self._enumerate))
                self._report_stalls()
                self._reconciled(self)
        finally:
            looker.close()

    def _enumerate(self) -> Mapping[str, Sequence[Presence]]:
        seen: dict[str, Sequence[Presence]] = {}
        for source in self._sources:
            seen.update(source.enumerate_cameras())
        return seen

    def _observe(self, seen: Mapping[str, Sequence[Presence]]) -> None:
        taken: dict[str, str] = {}
        chosen = {name: self._choose(bay, seen.get(name, ())) for name, bay in self.bays.items()}
        # Bays at work come first, so that a clash refuses the newcomer.
        for name, bay in sorted(self.bays.items(), key=lambda item: item[1].state in _IDLE):
            presence = chosen[name]
            refusal = presence.refusal if presence is not None else None
            if presence is not None and refusal is None:
                other = taken.setdefault(presence.camera.camera_id, name)
                if other != name:
                    camera = presence.camera.camera_id
                    refusal = f"camera {camera} is in bay {other} as well; their ids clash"
            bay.observe(Observation(presence, refusal))

    def _choose(self, bay: Bay, seen: Sequence[Presence]) -> Presence | None:
        """Stay with the camera at hand; others in the same bay wait and are shown."""
        current = bay.visit.camera.camera_id if bay.visit is not None else None
        ordered = sorted(seen, key=lambda one: (one.camera.camera_id != current, one.where))
        waiting = [presence.camera.camera_id for presence in ordered[1:]]
        if waiting != self._crowded.get(bay.name, []):
            self._crowded[bay.name] = waiting
            if waiting:
                events.BAY_CROWDED.log(bay=bay.name, waiting=waiting)
        return ordered[0] if ordered else None

    def status(self) -> dict[str, object]:
        """Return the truth about every bay; see :mod:`dockd.status`."""
        bays, budget_ma = self.bays.values(), self.services.config().charge.budget_ma
        ahead = outlook(self.services, bays)
        return dock_status(self.services.dock, bays, self._crowded, ahead, budget_ma)

    def _may_draw(self, name: str) -> bool:
        """Whether a bay's camera may draw from its port now, beside what the others draw."""
        budget_ma = self.services.config().charge.budget_ma
        demands = [bay.demand for bay in self.bays.values()]
        asked = [demand for demand in demands if demand is not None]
        return budget_ma is None or name in share_power(asked, budget_ma)

    def _report_stalls(self) -> None:
        for name, bay in self.bays.items():
            stalled = bay.busy_s > STALL_S and not bay.erases
            if stalled and name not in self._stalled:
                events.BAY_STALLED.log(bay=name, busy_s=round(bay.busy_s))
            (self._stalled.add if stalled else self._stalled.discard)(name)


_IDLE = frozenset({BayState.EMPTY, BayState.REFUSED})
