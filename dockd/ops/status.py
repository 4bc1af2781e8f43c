"""Answers ``dockd status`` over a unix socket: HTTP with JSON, so that curl can ask as well."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

from dockd.core.errors import DockdError

ANSWER_WITHIN_S = 5.0


class DaemonNotRunningError(DockdError):
    """Nobody answers on the status socket."""

    advice = "Start the daemon with: dockd run -c FILE"


class StatusServer:
    """Serves ``GET /status`` on a socket that only its owner and group may use."""

    def __init__(self, socket: Path, answer: Callable[[], dict[str, object]]) -> None:
        """Build; ``answer`` is asked on the event loop and must be quick."""
        self._socket = socket
        self._answer = answer
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        """Listen; a socket left over by a process that was killed is replaced."""
        app = web.Application()
        app.router.add_get("/status", self._status)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        self._socket.unlink(missing_ok=True)
        # The name may be longer than a socket address can be (unix(7): 107 bytes); its directory's
        # descriptor gives a short one.
        directory = os.open(self._socket.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            await web.UnixSite(
                self._runner, f"/proc/self/fd/{directory}/{self._socket.name}"
            ).start()
        finally:
            os.close(directory)
        self._socket.chmod(0o660)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.unlink(missing_ok=True)

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response(self._answer())


async def ask_status(socket: Path) -> dict[str, Any]:
    """Ask a running daemon; raise DaemonNotRunningError when nobody answers in time."""
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY) if socket.parent.is_dir() else -1
    try:
        async with (
            asyncio.timeout(ANSWER_WITHIN_S),
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(f"/proc/self/fd/{directory}/{socket.name}")
            ) as session,
            session.get("http://dockd/status") as answer,
        ):
            status: dict[str, Any] = await answer.json()
            return status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise DaemonNotRunningError(f"no daemon answers on {socket}") from error
    finally:
        if directory >= 0:
            os.close(directory)
