"""What happens in the demo: cameras are docked, and things break in mid-upload, twice."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from dockd.core.lifecycle import BayState
from dockd.demo.footage import BIG_CAMERA
from dockd.demo.processes import DemoError
from dockd.demo.stage import Stage, Status

CUT_AT = 0.25
KILL_AT = 0.55
"""Parts of the big recording that are sent when the network is cut, and when the daemon is killed."""

_UPLOAD_WITHIN_S = 60.0
_READY_WITHIN_S = 90.0


class Audience(Protocol):
    """Who watches."""

    def say(self, text: str) -> None:
        """Hear what happens now."""

    def show(self, status: Status) -> None:
        """See the dock's status, many times a second."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """Something that broke, when the dock had sent ``sent_bytes`` of the big recording."""

    what: str
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Played:
    """What happened. ``carried_bytes`` went through the network, protocol and repetition included."""

    interruptions: tuple[Interruption, ...]
    carried_bytes: int
    seconds: float


async def play(stage: Stage, audience: Audience) -> Played:
    """Dock the cameras, cut the network, kill the daemon, and wait until every camera is ready.

    Raises DemoError when something does not happen in time, or an interruption was not in mid-upload.
    """
    begin_s = monotonic()
    big = _Big(stage)
    await stage.watch("four empty bays", _all_empty, show=audience.show)
    stage.dock_cameras()
    audience.say(f"docked {len(stage.bay_of)} cameras with {len(stage.made)} recordings")
    cut = await _cut_network(stage, audience, big)
    killed = await _kill_dock(stage, audience, big)
    await stage.watch(
        "every camera is ready",
        lambda status: all(
            _bay(status, bay)["state"] == BayState.READY for bay in stage.bay_of.values()
        ),
        show=audience.show,
        within_s=_READY_WITHIN_S,
    )
    return Played((cut, killed), stage.proxy.carried_bytes, monotonic() - begin_s)


async def _cut_network(stage: Stage, audience: Audience, big: "_Big") -> Interruption:
    sent_bytes = await big.reaches(CUT_AT, audience.show)
    stage.proxy.cut()
    audience.say(f"network cut, {big.words(sent_bytes)}")
    await asyncio.sleep(stage.scale.outage_s)
    # What the dock had handed over counts as sent; without a network it never becomes all of it.
    big.check_mid_upload(await stage.watch("the dock answers", bool, show=audience.show))
    stage.proxy.restore()
    audience.say(f"network back after {stage.scale.outage_s:g} s")
    return Interruption("network cut", sent_bytes)


async def _kill_dock(stage: Stage, audience: Audience, big: "_Big") -> Interruption:
    sent_bytes = await big.reaches(KILL_AT, audience.show)
    await stage.kill_dock()
    audience.say(f"daemon killed (SIGKILL), {big.words(sent_bytes)}")
    await stage.start_dock()
    audience.say("daemon started again")
    return Interruption("daemon killed", sent_bytes)


class _Big:
    """Follows the big recording through the status of its bay, which counts all its recordings."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._bay = stage.bay_of[BIG_CAMERA]
        sizes = [item.size_bytes for item in stage.made if item.camera == BIG_CAMERA]
        self._all_bytes = sum(sizes)
        self.size_bytes = max(sizes)

    async def reaches(self, part: float, show: Callable[[Status], None]) -> int:
        """Wait until this part of it is sent; return how many bytes of it are, at least."""
        status = await self._stage.watch(
            f"{part:.0%} of the big recording is sent",
            lambda status: self._sent_bytes(status) >= part * self.size_bytes,
            show=show,
            within_s=_UPLOAD_WITHIN_S,
        )
        return self.check_mid_upload(status)

    def check_mid_upload(self, status: Status) -> int:
        """Return how many bytes of it are sent, at least; raise DemoError unless it is on its way."""
        sent_bytes = self._sent_bytes(status)
        bay = _bay(status, self._bay)
        # Had the other recordings sent nothing, this one would still be incomplete.
        if not (sent_bytes > 0 and bay["bytes_sent"] < self.size_bytes):
            raise DemoError(f"the interruption was not in mid-upload: {bay}")
        return sent_bytes

    def words(self, sent_bytes: int) -> str:
        """Say how far it is."""
        return f"with {sent_bytes / 1e6:.1f} of {self.size_bytes / 1e6:.1f} MB of a recording sent"

    def _sent_bytes(self, status: Status) -> int:
        others_bytes = self._all_bytes - self.size_bytes
        return max(0, int(_bay(status, self._bay).get("bytes_sent", 0)) - others_bytes)


def _all_empty(status: Status) -> bool:
    return all(bay["state"] == BayState.EMPTY for bay in status["bays"])


def _bay(status: Status, name: str) -> Status:
    return next(bay for bay in status["bays"] if bay["bay"] == name)
