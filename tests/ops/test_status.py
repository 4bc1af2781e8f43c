"""The daemon's socket: what it answers, and what it refuses."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from dockd.ops.status import (
    DaemonNotRunningError,
    RequestRefusedError,
    StatusServer,
    ask_daemon,
    ask_status,
)


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "s"
    requests = {"double": lambda values: {"twice": values["text"] * 2}}
    async with StatusServer(path, lambda: {"dock": "dock-1"}, requests):
        yield path


async def test_status_and_requests_are_answered(socket: Path) -> None:
    assert socket.stat().st_mode & 0o777 == 0o660
    assert await ask_status(socket) == {"dock": "dock-1"}
    assert await ask_daemon(socket, "double", {"text": "ab"}) == {"twice": "abab"}


async def test_what_the_daemon_does_not_do_it_says(socket: Path) -> None:
    with pytest.raises(RequestRefusedError, match="does not do halve"):
        await ask_daemon(socket, "halve", {"text": "ab"})
    with pytest.raises(RequestRefusedError, match="does not do double"):
        await ask_daemon(socket, "double", {"other": "ab"})


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"text": 1}', b'{"text": null}'])
async def test_what_is_no_request_is_refused(socket: Path, body: bytes) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
        session.post("http://dockd/double", data=body) as answer,
    ):
        assert answer.status == 400


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DaemonNotRunningError):
        await ask_daemon(tmp_path / "none", "double", {"text": "ab"})
