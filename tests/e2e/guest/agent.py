"""Runs in the virtual machine: runs the shell commands that the host sends, and answers.

One JSON object a line over a virtio-serial port: ``{"id", "command", "user", "timeout_s"}`` in,
``{"id", "code", "output"}`` out. Part of the test image, not of dockd.
"""

import base64
import json
import subprocess
import threading
import time
from typing import Any, BinaryIO

_PORT = "/dev/virtio-ports/e2e.agent"
_one_writer = threading.Lock()


def _run(request: dict[str, Any]) -> tuple[int, bytes]:
    argv = ["/bin/sh", "-c", request["command"]]
    if request["user"] is not None:
        argv = [
            "setpriv",
            "--reuid",
            request["user"],
            "--regid",
            request["user"],
            "--init-groups",
            *argv,
        ]
    try:
        ended = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=request["timeout_s"],
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return 124, error.output or b""
    return ended.returncode, ended.stdout


def _answer(port: BinaryIO, request: dict[str, Any]) -> None:
    code, output = _run(request)
    answer = {"id": request["id"], "code": code, "output": base64.b64encode(output).decode()}
    line = json.dumps(answer).encode() + b"\n"
    with _one_writer:
        while line:
            line = line[port.write(line) :]


def main() -> None:
    """Serve for ever. Each command has its thread, so that one that hangs holds up no other."""
    with open(_PORT, "r+b", buffering=0) as port:  # noqa: PTH123 (unbuffered)
        pending = b""
        while True:
            pending += (piece := port.read(4096) or b"")
            if not piece:
                time.sleep(0.1)  # nobody is connected
            *lines, pending = pending.split(b"\n")
            for line in lines:
                threading.Thread(target=_answer, args=(port, json.loads(line))).start()


if __name__ == "__main__":
    main()
