"""What connections are made with, kept up to date with its files while the dock runs.

Whoever renews a certificate replaces two files, one after the other; between the two they do not
belong together. So files are read only once they have been left alone for a moment, and whatever is
broken then changes nothing.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyObserver
from yarl import URL

from dockd.core.errors import KeyFileError
from dockd.evidence.certificates import read_secret
from dockd.ops import events
from dockd.target.connection import Connection
from dockd.target.tls import client_context

SETTLE_S = 1.0
LOOK_EVERY_S = 60.0
"""How often the files are looked at without being told to: the system may refuse to tell."""

_CHANGES: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]

_Seen = tuple[tuple[int, ...] | None, ...]


class Credentials:
    """TLS context, proxy and its password, as new connections use them. Use as a context manager.

    ``tls``, ``proxy`` and ``proxy_headers`` are for aiohttp. Entering raises KeyFileError.
    """

    def __init__(self, connection: Connection, *, settle_s: float = SETTLE_S) -> None:
        """Build for a connection; nothing is read yet."""
        self._connection = connection
        self._settle_s = settle_s
        files = (
            connection.ca_file,
            connection.certificate,
            connection.private_key,
            connection.proxy_password_file,
        )
        self._files = tuple(file for file in files if file is not None)
        self._seen: _Seen = ()
        self._changed = asyncio.Event()
        self._observer: InotifyObserver | None = None
        self._following: asyncio.Task[None] | None = None
        proxy = URL(connection.proxy) if connection.proxy is not None else None
        self._proxy_user = proxy.user if proxy is not None else None
        self.proxy: URL | None = proxy.with_user(None) if proxy is not None else None
        self.proxy_headers: Mapping[str, str] | None = None
        self.tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        """Read the files, and follow them from now on."""
        self._seen = await asyncio.to_thread(self._look)
        await self._load()
        if self._files:
            await asyncio.to_thread(self._watch, asyncio.get_running_loop())
            self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Follow them no longer."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        if self._observer is not None:
            self._observer.stop()
            await asyncio.to_thread(self._observer.join)

    async def _load(self) -> None:
        tls, password = await asyncio.to_thread(self._read)
        self.tls = tls
        if self._proxy_user is not None:
            login = aiohttp.encode_basic_auth(self._proxy_user, password)
            self.proxy_headers = {"Proxy-Authorization": login}

    def _read(self) -> tuple[ssl.SSLContext, str]:
        file = self._connection.proxy_password_file
        try:
            lines = read_secret(file).decode().splitlines() if file is not None else []
        except UnicodeDecodeError:
            # Not chained: the error would carry the password into a traceback.
            raise KeyFileError(f"{file}: not text in UTF-8") from None
        return client_context(self._connection), lines[0] if lines else ""

    # Following the files

    def _look(self) -> _Seen:
        return tuple(_identity(file) for file in self._files)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        observer = InotifyObserver()
        handler = _Handler(loop, self._changed)
        try:
            observer.start()
            self._observer = observer
            for directory in {file.parent for file in self._files}:
                observer.schedule(handler, str(directory), event_filter=_CHANGES)
        except OSError as error:
            events.TARGET_FILES_UNWATCHED.log(
                files=[str(file) for file in self._files], reason=str(error.strerror or error)
            )

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._changed.wait()
            seen = await self._settled()
            if seen == self._seen:
                continue
            self._seen = seen
            files = [str(file) for file in self._files]
            try:
                await self._load()
            except KeyFileError as error:
                events.TARGET_FILES_REFUSED.log(files=files, problem=str(error))
            else:
                events.TARGET_FILES_RELOADED.log(files=files)

    async def _settled(self) -> _Seen:
        """Return what the files are once they have stayed the same for a moment."""
        self._changed.clear()
        seen = await asyncio.to_thread(self._look)
        while seen != self._seen:
            await asyncio.sleep(self._settle_s)
            self._changed.clear()
            before, seen = seen, await asyncio.to_thread(self._look)
            if seen == before:
                break
        return seen


class _Handler(FileSystemEventHandler):
    """Wakes the event loop from the observer's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
        self._loop = loop
        self._changed = changed

    def dispatch(self, event: FileSystemEvent) -> None:
        del event
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._changed.set)


def _identity(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
