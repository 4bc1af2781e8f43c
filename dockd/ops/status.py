"""The daemon's unix socket, for ``dockd status`` and other commands: HTTP with JSON, so that curl can
ask as well: ``GET /status``, and ``POST /REQUEST`` with a JSON object of the request's values.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from json import JSONDecodeError
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


class RequestRefusedError(DockdError):
    """The daemon does not know the request, or not now."""

    advice = (
        "Look at dockd doctor; a daemon that is not set up yet, or of an older version, does less."
    )


Handler = Callable[[Mapping[str, str]], Mapping[str, object]]
"""Answers a request from its values."""


class StatusServer:
    """Serves the status, and requests, on a socket that only its owner and group may use."""

    def __init__(
        self,
        socket: Path,
        answer: Callable[[], dict[str, object]],
        requests: Mapping[str, Handler] | None = None,
    ) -> None:
        """Build; ``answer`` and what ``requests`` name is asked on the event loop and must be quick."""
        self._socket = socket
        self._answer = answer
        self._requests = requests or {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        """Listen; a socket left over by a process that was killed is replaced."""
        app = web.Application()
        app.router.add_get("/status", self._status)
        for name, handler in self._requests.items():
            app.router.add_post(f"/{name}", partial(_handle, handler))
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


async def _handle(handler: Handler, request: web.Request) -> web.Response:
    try:
        values = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        values = None
    if not isinstance(values, dict) or not all(isinstance(text, str) for text in values.values()):
        raise web.HTTPBadRequest(text="the body must be a JSON object of texts")
    try:
        answer = handler(values)
    except KeyError as missing:
        raise web.HTTPBadRequest(text=f"{missing} is missing") from None
    return web.json_response(answer)


async def ask_status(socket: Path) -> dict[str, Any]:
    """Return the status of a running daemon; raises DaemonNotRunningError."""
    return await ask_daemon(socket, "status")


async def ask_daemon(
    socket: Path, request: str, values: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Ask a running daemon; raise DaemonNotRunningError when nobody answers in time.

    Raises RequestRefusedError when it does not do such a thing.
    """
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY) if socket.parent.is_dir() else -1
    try:
        async with (
            asyncio.timeout(ANSWER_WITHIN_S),
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(f"/proc/self/fd/{directory}/{socket.name}")
            ) as session,
            session.request(
                "GET" if values is None else "POST",
                f"http://dockd/{request}",
                json=values,
                raise_for_status=True,
            ) as answer,
        ):
            said: dict[str, Any] = await answer.json()
            return said
    except aiohttp.ClientResponseError as error:
        raise RequestRefusedError(f"the daemon does not do {request}: {error.message}") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise DaemonNotRunningError(f"no daemon answers on {socket}") from error
    finally:
        if directory >= 0:
            os.close(directory)
