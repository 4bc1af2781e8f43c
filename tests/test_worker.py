"""The thread of a bay."""

import asyncio
import threading

import pytest

from dockd.worker import BayThread


def hang(entered: threading.Event, leave: threading.Event) -> None:
    entered.set()
    leave.wait(5)


async def test_calls_run_in_order_in_one_thread_that_is_not_the_loops() -> None:
    worker = BayThread("bay-1")
    ran: list[tuple[int, str]] = []

    def call(number: int) -> int:
        ran.append((number, threading.current_thread().name))
        return number

    futures = [worker.start(lambda number=number: call(number)) for number in range(5)]  # type: ignore[misc]
    assert await asyncio.gather(*futures) == [0, 1, 2, 3, 4]
    assert ran == [(number, "bay-1") for number in range(5)]
    worker.close()


async def test_what_a_call_raises_comes_out_of_its_future() -> None:
    worker = BayThread("bay-1")

    def fail() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await worker.start(fail)
    assert await worker.start(lambda: 1) == 1
    worker.close()


async def test_a_call_that_nobody_waits_for_any_more_still_ends_before_the_next() -> None:
    """INV-3: closing a camera never overtakes a read that is under way."""
    worker = BayThread("bay-1")
    entered, leave, order = threading.Event(), threading.Event(), []

    def slow() -> None:
        entered.set()
        leave.wait(5)
        order.append("slow")

    waiting = worker.start(slow)
    await asyncio.to_thread(entered.wait, 5)
    waiting.cancel()
    following = worker.start(lambda: order.append("next"))
    leave.set()
    await following
    assert order == ["slow", "next"]
    worker.close()


async def test_a_hung_call_is_seen_and_stops_nobody_else() -> None:
    """INV-8."""
    hung, other = BayThread("bay-1"), BayThread("bay-2")
    entered, leave = threading.Event(), threading.Event()
    hung.start(lambda: hang(entered, leave))
    await asyncio.to_thread(entered.wait, 5)
    assert hung.busy_s > 0
    assert await other.start(lambda: "fine") == "fine"
    leave.set()
    await hung.start(lambda: None)
    hung.close()
    other.close()


def test_an_answer_after_the_loop_has_ended_is_dropped_quietly() -> None:
    worker = BayThread("bay-1")
    entered, leave = threading.Event(), threading.Event()

    async def begin() -> None:
        worker.start(lambda: hang(entered, leave))

    asyncio.run(begin())
    leave.set()
    worker.close()
    worker._thread.join(5)
    assert not worker._thread.is_alive()
