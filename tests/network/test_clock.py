"""The dock's clock is wrong by a year: nothing is erased on what it cannot judge, and nobody restarts it."""

from pathlib import Path

from dockd.core.lifecycle import BayState
from dockd.ops import events
from tests.faults.site import footage
from tests.faults.triggers import ShortPauses
from tests.network.station import LARGE_BYTES, SMALL_BYTES, Station
from tests.network.triggers import WrongClock

YEAR_DAYS = 365


async def test_a_clock_that_is_behind_is_mended(fast_path: Path) -> None:
    """INV-1: every receipt seems to come from the future, which proves nothing until the clock is right."""
    mended = fast_path / "mended"
    async with Station.built(fast_path) as station:
        site = station.site
        docked = footage(site.dock, [SMALL_BYTES, LARGE_BYTES])
        site.plug(docked)
        async with site.run(ShortPauses(), WrongClock(-YEAR_DAYS, mended)) as dock:
            assert await dock.said(events.BAY_ATTENTION)
            assert site.on_camera() == docked
            assert "future" in " ".join(
                str(line["reason"]) for line in dock.lines() if "reason" in line
            )
            requests = station.line.requests.total()
            # It tries again by itself, as often as it is told to and no more, and asks no person.
            assert await dock.said(events.BAY_STATE, state=BayState.OPENING, cause="try_again")
            assert station.line.requests.total() - requests < 30
            mended.touch()
            assert await dock.said(events.BAY_STATE, state=BayState.READY)
            assert await dock.stop() == 0
        site.check_finished()


async def test_a_clock_that_is_ahead_stops_nothing(fast_path: Path) -> None:
    """INV-1: a receipt that seems a year old is a proof all the same."""
    async with Station.built(fast_path) as station:
        station.site.plug(footage(station.site.dock, [SMALL_BYTES, LARGE_BYTES]))
        wrong = WrongClock(YEAR_DAYS, fast_path / "never")
        async with station.site.run(ShortPauses(), wrong) as dock:
            assert await dock.said(events.BAY_STATE, state=BayState.READY)
            assert await dock.stop() == 0
        station.site.check_finished()
    assert station.line.requests.total() < 25
