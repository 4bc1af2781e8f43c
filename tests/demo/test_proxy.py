"""The demo's network is as slow, and as broken, as it is told to be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dockd.demo.proxy import Connection, Direction, Pace, Proxy

FAST_BYTES_S = 1e12


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """Send everything back; yields the port."""
    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if served:
            await asyncio.wait(served)


async def ask(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await reader.readexactly(len(data))
    finally:
        writer.close()


async def test_what_is_sent_arrives_both_ways_and_is_counted() -> None:
    async with echo_server() as upstream, Proxy(upstream, FAST_BYTES_S) as proxy:
        data = bytes(range(256)) * 4096
        assert await ask(proxy.port, data) == data
        assert proxy.carried_bytes == len(data)


async def test_connections_go_beside_each_other() -> None:
    async with echo_server() as upstream, Proxy(upstream, FAST_BYTES_S) as proxy:
        words = [b"%05d" % number for number in range(20)]
        assert await asyncio.gather(*(ask(proxy.port, word) for word in words)) == words


async def test_a_cut_breaks_what_is_under_way_and_what_comes_until_it_is_restored() -> None:
    async with echo_server() as upstream, Proxy(upstream, FAST_BYTES_S) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await ask(proxy.port, b"meanwhile")
        proxy.restore()
        assert await ask(proxy.port, b"after") == b"after"


async def test_an_end_of_the_client_reaches_the_server_and_ends_the_connection() -> None:
    async with echo_server() as upstream, Proxy(upstream, FAST_BYTES_S) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"all")
        assert await reader.readexactly(3) == b"all"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_a_server_that_is_not_there_is_a_broken_connection() -> None:
    async with echo_server() as upstream:
        pass
    async with Proxy(upstream, FAST_BYTES_S) as proxy:
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await ask(proxy.port, b"hello")


async def test_leaving_breaks_connections_and_leaves_nothing_behind() -> None:
    tasks = asyncio.all_tasks()
    async with echo_server() as upstream:
        async with Proxy(upstream, FAST_BYTES_S) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"hello")
            await reader.readexactly(5)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
    assert asyncio.all_tasks() == tasks


async def test_the_rate_holds_bytes_back() -> None:
    async with echo_server() as upstream, Proxy(upstream, 8_000_000) as proxy:
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        await ask(proxy.port, bytes(400_000))
        # All blocks but the last wait for those before them: at least 334,464 bytes at 8 MB/s, less
        # what the first may be late.
        assert loop.time() - begin_s > 0.04 - Pace.LATE_S


async def test_a_delay_holds_every_byte_back_both_ways() -> None:
    async with echo_server() as upstream, Proxy(upstream, delay_s=0.01) as proxy:
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        data = bytes(range(256)) * 4096
        assert await ask(proxy.port, data) == data
        # The handshake and the echo, each there and back.
        assert loop.time() - begin_s >= 0.04


async def test_what_carries_may_do_as_it_likes() -> None:
    async def shout(connection: Connection, direction: Direction, block: bytes) -> None:
        await connection.send(direction, block.upper() if direction is Direction.ANSWERS else block)

    async with echo_server() as upstream, Proxy(upstream, carry=shout) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        writer.close()


@pytest.mark.parametrize("stuck", Direction)
async def test_a_connection_that_stands_still_ends_with_the_proxy(stuck: Direction) -> None:
    async def stall(connection: Connection, direction: Direction, block: bytes) -> None:
        if direction is stuck:
            await asyncio.Event().wait()
        await connection.send(direction, block)

    async with echo_server() as upstream:
        async with Proxy(upstream, carry=stall) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"hello")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await reader.read(1)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()


def test_the_pace_is_the_rate_and_idle_time_earns_nothing() -> None:
    pace = Pace(1000)
    assert [pace.reserve(100, now_s=5.0) for _ in range(3)] == pytest.approx([0.0, 0.08, 0.18])
    assert pace.reserve(100, now_s=5.2) == pytest.approx(0.08)
    assert pace.reserve(100, now_s=60.0) == 0.0
    assert pace.reserve(100, now_s=60.0) == pytest.approx(0.08)


def test_turns_taken_a_little_late_lose_nothing() -> None:
    pace = Pace(1000)
    now_s = 5.0
    for _ in range(1000):
        now_s += pace.reserve(1, now_s) + 0.0009
    assert now_s == pytest.approx(6.0, abs=0.03)
