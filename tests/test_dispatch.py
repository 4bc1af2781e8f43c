"""Sharing the dock's streams between bays."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dockd.core.errors import CameraGoneError, JournalUnwritableError
from dockd.core.schedule import Limits, Waiting
from dockd.dispatch import MAX_CONFIRMING, Dispatcher

LIMITS = Limits(streams=4, streams_per_bay=2, small_bytes=100)


def small(*names: str) -> list[Waiting]:
    return [Waiting(name.encode(), 10) for name in names]


class Log:
    """Steps that note what they did and how many ran at once."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.confirmed: list[bytes] = []
        self.running = self.most = 0

    async def send(self, path: bytes) -> bool:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.sent.append(path)
        return True

    async def confirm(self, path: bytes) -> None:
        self.confirmed.append(path)


async def never(_: bytes) -> bool:
    await asyncio.Event().wait()
    return True


async def test_every_recording_is_sent_once_and_confirmed() -> None:
    """INV-2."""
    log, names = Log(), [f"{number:04}" for number in range(500)]
    await Dispatcher(LIMITS).run("1", small(*names), send=log.send, confirm=log.confirm)
    assert sorted(log.sent) == sorted(log.confirmed) == [name.encode() for name in names]
    assert log.most == LIMITS.streams_per_bay


async def test_bays_together_keep_the_limit_of_the_dock() -> None:
    log, dispatcher = Log(), Dispatcher(LIMITS)
    async with asyncio.TaskGroup() as group:
        for bay in "abcdef":
            waiting = small(*(bay + str(number) for number in range(20)))
            group.create_task(dispatcher.run(bay, waiting, send=log.send, confirm=log.confirm))
    assert len(log.sent) == 120
    assert log.most == LIMITS.streams


async def test_a_bay_that_hangs_leaves_the_others_their_streams() -> None:
    """INV-8."""
    log, dispatcher = Log(), Dispatcher(LIMITS)
    hanging = asyncio.create_task(
        dispatcher.run("1", small("a", "b", "c"), send=never, confirm=log.confirm)
    )
    await asyncio.sleep(0)
    await dispatcher.run("2", small("x", "y", "z"), send=log.send, confirm=log.confirm)
    assert log.sent == [b"x", b"y", b"z"]
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_confirming_holds_no_stream() -> None:
    gate, log = asyncio.Event(), Log()

    async def confirm(path: bytes) -> None:
        await gate.wait()
        await log.confirm(path)

    names = [f"{number:04}" for number in range(MAX_CONFIRMING)]
    running = asyncio.create_task(
        Dispatcher(LIMITS).run("1", small(*names), send=log.send, confirm=confirm)
    )
    while len(log.sent) < len(names):  # noqa: ASYNC110 - every step of the loop is one of theirs
        await asyncio.sleep(0)
    gate.set()
    await running
    assert len(log.confirmed) == len(names)


@pytest.mark.parametrize("error", [CameraGoneError("gone"), JournalUnwritableError("full")])
async def test_the_first_error_stops_the_bay_and_comes_out(error: Exception) -> None:
    log = Log()

    async def send(path: bytes) -> bool:
        if path == b"1":
            raise error
        return await log.send(path)

    dispatcher = Dispatcher(Limits(1, 1, 100))
    with pytest.raises(type(error)) as caught:
        await dispatcher.run("1", small("0", "1", "2", "3"), send=send, confirm=log.confirm)
    assert caught.value is error
    assert log.sent == [b"0"]
    await dispatcher.run("1", small("4"), send=log.send, confirm=log.confirm)
    assert log.sent == [b"0", b"4"]


@pytest.mark.parametrize("hang", ["send", "confirm"])
async def test_cancelling_gives_the_streams_back(hang: str) -> None:
    log, dispatcher = Log(), Dispatcher(LIMITS)
    steps: dict[str, Callable[[bytes], Awaitable[bool]]] = {"send": log.send, hang: never}

    async def confirm(path: bytes) -> None:
        await steps.get("confirm", never)(path)

    task = asyncio.create_task(
        dispatcher.run("1", small("a", "b", "c"), send=steps["send"], confirm=confirm)
    )
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await dispatcher.run("2", small("x", "y"), send=log.send, confirm=log.confirm)
    assert log.sent[-2:] == [b"x", b"y"]
    assert len(asyncio.all_tasks()) == 1


async def test_what_is_hurried_goes_before_what_waits_and_beyond_the_limits() -> None:
    log, dispatcher = Log(), Dispatcher(Limits(1, 1, 100))
    gate = asyncio.Event()

    async def send(path: bytes) -> bool:
        if path == b"0":
            await gate.wait()
        return await log.send(path)

    names = [f"{number}" for number in range(6)]
    running = asyncio.create_task(
        dispatcher.run("1", small(*names), send=send, confirm=log.confirm)
    )
    await asyncio.sleep(0)
    dispatcher.hurry("1", {b"4", b"5"})
    dispatcher.hurry("no such bay", {b"4"})
    while len(log.sent) < 2:  # noqa: ASYNC110 - every step of the loop is one of theirs
        await asyncio.sleep(0)
    assert log.sent == [b"4", b"5"]
    gate.set()
    await running
    assert log.sent == [b"4", b"5", b"0", b"1", b"2", b"3"]


async def test_what_runs_already_may_be_hurried_too() -> None:
    log, dispatcher = Log(), Dispatcher(Limits(1, 1, 100))
    running = asyncio.create_task(
        dispatcher.run("1", small("0", "1"), send=log.send, confirm=log.confirm)
    )
    await asyncio.sleep(0)
    dispatcher.hurry("1", {b"0"})
    await running
    assert log.sent == [b"0", b"1"]


async def test_nothing_to_send_is_done_at_once() -> None:
    log = Log()
    await Dispatcher(LIMITS).run("1", [], send=log.send, confirm=log.confirm)
    assert log.sent == []
