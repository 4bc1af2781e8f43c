"""Talks to QEMU's monitor: one JSON object a line (QEMU Machine Protocol)."""

import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_ANSWER_WITHIN_S = 60.0


class QmpError(Exception):
    """QEMU refused a command, or does not answer."""


class Qmp:
    """A connection to the monitor of one QEMU process. Blocking."""

    def __init__(self, path: Path) -> None:
        """Connect to the monitor's unix socket, which must be listening."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_ANSWER_WITHIN_S)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self._events: list[Mapping[str, Any]] = []
        self._receive()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its answer. Raises QmpError."""
        request = {"execute": command, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._receive()
            if "event" in message:
                self._events.append(message)
            elif "error" in message:
                raise QmpError(f"{command} {arguments}: {message['error']['desc']}")
            else:
                return message["return"]

    def wait_event(
        self, name: str, wanted: Callable[[Mapping[str, Any]], bool], within_s: float = 60.0
    ) -> None:
        """Wait for an event whose data is as wanted; it may have come already. Raises QmpError."""
        deadline = time.monotonic() + within_s
        while True:
            for event in self._events:
                if event["event"] == name and wanted(event.get("data", {})):
                    self._events.remove(event)
                    return
            if time.monotonic() > deadline:
                raise QmpError(f"no {name} within {within_s:.0f} s")
            message = self._receive()
            if "event" in message:
                self._events.append(message)

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self._socket.close()

    def _receive(self) -> Mapping[str, Any]:
        line = self._lines.readline()
        if not line:
            raise QmpError("QEMU has closed its monitor")
        message: Mapping[str, Any] = json.loads(line)
        return message
