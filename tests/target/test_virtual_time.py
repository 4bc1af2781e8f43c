"""The virtual loop keeps its promises; every test of waiting rests on them."""

import asyncio
import itertools
import threading
import time

import pytest

from tests.simulated.clock import (
    START,
    DeadlockError,
    EndlessError,
    SimulatedClock,
    VirtualTimeLoop,
    run_virtual,
    virtual_time,
)


def test_hours_pass_in_no_time_and_timers_fire_in_order() -> None:
    seen: list[tuple[str, float]] = []

    async def wait(name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        seen.append((name, asyncio.get_running_loop().time()))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name, delay_s in (("late", 7200.0), ("early", 1.5), ("middle", 60.0)):
                group.create_task(wait(name, delay_s))

    began = time.monotonic()
    run_virtual(main())
    assert [name for name, _ in seen] == ["early", "middle", "late"]
    assert [at for _, at in seen] == pytest.approx([1.5, 60.0, 7200.0])
    assert time.monotonic() - began < 5


@virtual_time
async def test_timeouts_run_on_virtual_time() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() == pytest.approx(3600)


@virtual_time
async def test_the_clock_stands_still_while_a_thread_works() -> None:
    async with asyncio.timeout(0.01):
        await asyncio.to_thread(time.sleep, 0.05)
    assert asyncio.get_running_loop().time() < 0.01


@virtual_time
async def test_a_thread_that_waits_for_the_loop_does_not_stop_time() -> None:
    release = threading.Event()
    thread = asyncio.create_task(asyncio.to_thread(release.wait))
    await asyncio.sleep(60)
    release.set()
    assert await thread is True


@virtual_time
async def test_announced_work_of_other_threads_holds_the_clock() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    done = loop.create_future()
    threading.Timer(0.02, loop.call_soon_threadsafe, (done.set_result, None)).start()
    with loop.outside_work():
        async with asyncio.timeout(0.01):
            await done


def test_a_hang_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulated.clock.DEADLOCK_S", 0.01)

    async def main() -> None:
        await asyncio.Event().wait()

    loop = VirtualTimeLoop()
    task = loop.create_task(main())
    with pytest.raises(DeadlockError):
        loop.run_until_complete(task)
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()


def test_running_in_circles_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulated.clock.MOST_JUMPS", 50)

    async def main() -> None:
        for _ in itertools.count():
            await asyncio.sleep(1)

    with pytest.raises(EndlessError):
        run_virtual(main())


@virtual_time
async def test_the_simulated_clock_follows_the_loop() -> None:
    clock = SimulatedClock(asyncio.get_running_loop())
    await asyncio.sleep(90)
    assert (clock.now() - START).total_seconds() == pytest.approx(90)
    assert clock.monotonic_s() == pytest.approx(90)
