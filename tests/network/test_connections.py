"""Connections that break, stand still or drip at any byte: the visit ends well, and nobody helps."""

from pathlib import Path

import pytest

from dockd.demo.proxy import Direction
from tests.network.line import (
    ANSWERS,
    REQUESTS,
    Act,
    Fault,
    Place,
    closes,
    drips,
    from_body,
    from_end,
    from_start,
    in_body,
    resets,
    stalls,
)
from tests.network.station import LARGE_BYTES, SMALL_BYTES, Station

HEAD = (from_start(0), from_start(1), from_start(6), from_start(20), from_body(-1))
BODY = (from_body(0), from_body(1), in_body(0.5), from_end(1), from_end(0))
ANSWER = (from_start(0), from_start(1), from_start(10), from_start(40), from_end(1))

PLACES: dict[tuple[str, Direction], tuple[Place, ...]] = {
    ("OPTIONS", REQUESTS): HEAD,
    ("OPTIONS", ANSWERS): ANSWER,
    ("POST", REQUESTS): HEAD + BODY,
    ("POST", ANSWERS): ANSWER,
    ("PATCH", REQUESTS): HEAD + BODY,
    ("PATCH", ANSWERS): ANSWER,
}
LARGE = {"PATCH", "HEAD"}
VERY_LARGE_BYTES = 9_000_000

CUT_BODY = Fault("PATCH", REQUESTS, in_body(0.5), resets)
"""Makes the dock ask where the store is."""


def sizes_for(method: str) -> tuple[int, ...]:
    return (LARGE_BYTES,) if method in LARGE else (SMALL_BYTES,)


def everywhere(*acts: Act) -> list[Fault]:
    return [
        Fault(method, direction, place, act)
        for (method, direction), places in PLACES.items()
        for place in places
        for act in acts
        if method != "OPTIONS" or act is closes
    ]


@pytest.mark.parametrize("fault", everywhere(closes, resets), ids=str)
async def test_a_connection_breaks(fast_path: Path, fault: Fault) -> None:
    """INV-1, INV-3. What breaks in an answer breaks after the store has done its work: no second copy."""
    async with Station.built(fast_path) as station:
        retries = await station.survives(fault, sizes_bytes=sizes_for(fault.method))
    assert len(retries) <= 1


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("act", [closes, resets])
async def test_a_connection_breaks_when_the_dock_asks_how_far_the_store_is(
    fast_path: Path, direction: Direction, act: Act
) -> None:
    """INV-3."""
    async with Station.built(fast_path) as station:
        head = Fault("HEAD", direction, from_start(10), act)
        await station.survives(CUT_BODY, head, sizes_bytes=(LARGE_BYTES,))


@pytest.mark.parametrize("place", ANSWER, ids=str)
@pytest.mark.parametrize("act", [closes, resets])
async def test_a_receipt_is_cut_short(fast_path: Path, place: Place, act: Act) -> None:
    """INV-1: half a receipt proves nothing, and is asked for again."""
    async with Station.built(fast_path, receipt_wait_s=0) as station:
        fault = Fault("GET", ANSWERS, place, act)
        await station.survives(fault, sizes_bytes=(SMALL_BYTES,))


@pytest.mark.parametrize("act", [closes, resets])
async def test_a_line_that_breaks_again_and_again_still_gets_further(
    fast_path: Path, act: Act
) -> None:
    """INV-3: each connection brings a part of what is left."""
    async with Station.built(fast_path) as station:
        faults = [Fault("PATCH", REQUESTS, in_body(0.3), act)] * 12
        retries = await station.survives(*faults, sizes_bytes=(LARGE_BYTES,), most_requests=50)
    assert len(retries) >= 10


@pytest.mark.parametrize(
    "fault",
    [
        Fault("OPTIONS", REQUESTS, from_start(10), stalls),
        Fault("OPTIONS", ANSWERS, from_start(10), stalls),
        Fault("POST", REQUESTS, from_start(10), stalls),
        Fault("POST", REQUESTS, in_body(0.5), stalls),
        Fault("POST", ANSWERS, from_start(0), stalls),
        Fault("PATCH", REQUESTS, in_body(0.5), stalls),
        Fault("PATCH", REQUESTS, from_end(1), stalls),
        Fault("PATCH", ANSWERS, from_start(10), stalls),
    ],
    ids=str,
)
async def test_a_connection_stands_still(fast_path: Path, fault: Fault) -> None:
    """The store holds the upload for the connection that vanished, and the dock outlives that."""
    async with Station.built(fast_path, stall_timeout_s=0.7) as station:
        await station.survives(fault, sizes_bytes=sizes_for(fault.method), most_requests=60)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", ANSWERS, from_start(0), drips(2)),
        Fault("PATCH", REQUESTS, from_start(0), drips(24_000)),
        Fault("PATCH", ANSWERS, from_start(0), drips(4)),
    ],
    ids=str,
)
async def test_a_slow_line_is_no_broken_line(fast_path: Path, fault: Fault) -> None:
    """Each takes longer than a line may stand still, and is not given up.

    The kernel takes much of a large body at once, long before it has left the machine.
    """
    async with Station.built(fast_path) as station:
        station.site.change_config("stall_timeout_s = 0.5", "stall_timeout_s = 1.5")
        size_bytes = SMALL_BYTES if fault.method == "POST" else VERY_LARGE_BYTES
        retries = await station.survives(fault, sizes_bytes=(size_bytes,))
    assert retries == []


async def test_nothing_gets_through_for_a_while(fast_path: Path) -> None:
    """INV-3: the cable is cut in mid-upload and mended later; the dock comes back by itself."""
    async with Station.built(fast_path) as station:
        cut = Fault("PATCH", REQUESTS, in_body(0.5), station.cuts_for(1.0))
        await station.survives(cut, sizes_bytes=(LARGE_BYTES,), most_requests=20)
        assert station.proxy.connections < 60
