"""Charging at one bay: until its camera is charged, in its turn where the power of the dock is short."""

import asyncio
from collections.abc import Callable

from dockd.core.charging import LONGEST_TURN_S, Demand, is_charged
from dockd.core.interfaces import CameraSource
from dockd.core.model import ChargeStatus, Power, Presence
from dockd.ops import events
from dockd.services import Services
from dockd.worker import Worker

CHARGE_POLL_S = 5.0
"""How often a charging camera is asked how it goes, and a waiting one looks whether it is its turn."""


class Charger:
    """Charges the cameras of one bay, one after another, and tells what they draw."""

    def __init__(
        self,
        bay: str,
        services: Services,
        source: CameraSource,
        worker: Worker,
        may_draw: Callable[[], bool],
    ) -> None:
        """Build. ``may_draw`` says whether it is this bay's turn; it looks at the demands of all."""
        self.status = ChargeStatus()
        self.waiting: str | None = None
        self._bay = bay
        self._services = services
        self._source = source
        self._worker = worker
        self._may_draw = may_draw
        self._has_switch = True
        self._presence: Presence | None = None
        self._since_s = 0.0

    def see(self, presence: Presence | None) -> None:
        """Take note of who is in the bay. Its place in the queue holds for as long as it is there."""
        known = self._presence.camera if self._presence is not None else None
        if presence is None or presence.camera != known:
            self._since_s = self._services.clock.monotonic_s()
        self._presence = presence

    def demand(self, *, at_work: bool) -> Demand | None:
        """Return what the camera asks of the dock's power; ``at_work`` when it is needed for more
        than charging.
        """
        if self._presence is None:
            return None
        fixed = at_work or not self._has_switch
        return Demand(self._bay, self._presence.draw_ma, self._since_s, fixed)

    async def run(self, presence: Presence) -> None:
        """Return when the camera is charged. Raises the errors of CameraSource.charge."""
        try:
            while not await self._charge_in_turn(presence):
                await self._wait_for_turn(presence)
        finally:
            self.waiting = None

    async def _charge_in_turn(self, presence: Presence) -> bool:
        """Charge for as long as it may; return whether the camera is charged."""
        clock = self._services.clock
        began_s = turn_began_s = clock.monotonic_s()
        while self._may_draw():
            self.status = await self._worker.start(lambda: self._source.charge(presence))
            now_s = clock.monotonic_s()
            if is_charged(self.status, now_s - began_s, self._services.config().charge.minimum_s):
                return True
            if now_s - turn_began_s >= LONGEST_TURN_S:
                self._since_s = turn_began_s = now_s
            await asyncio.sleep(CHARGE_POLL_S)
        return False

    async def _wait_for_turn(self, presence: Presence) -> None:
        """Have the port switched off until it is the bay's turn. Where it has no switch, do not wait."""
        power = await self._worker.start(lambda: self._source.rest(presence))
        self.status = ChargeStatus(power)
        events.CHARGE_WAITS.log(bay=self._bay, camera=presence.camera.camera_id, power=power)
        if power is not Power.OFF:
            self._has_switch = False
            return
        self.waiting = (
            "waits for its turn to charge; its port is switched off until then, "
            "and what is put in meanwhile is not seen"
        )
        while not self._may_draw():  # noqa: ASYNC110 - what all other bays do has no one event
            await asyncio.sleep(CHARGE_POLL_S)
        self.waiting = None
