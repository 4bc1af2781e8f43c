"""Tells the service manager how we are: sd_notify(3), whose protocol is one datagram of lines.

The watchdog is fed by the work itself (the dock's reconcile loop) and by no timer, so that a process
which only seems alive is found out and started anew.
"""

import contextlib
import os
import socket


def alive(status: str) -> None:
    """Say that the work goes on, and in one line how; the first time ends "starting" as well."""
    _notify("READY=1", "WATCHDOG=1", "STATUS=" + " ".join(status.split()))


def stopping() -> None:
    """Say that stopping in order has begun."""
    _notify("STOPPING=1", "STATUS=stopping")


def _notify(*lines: str) -> None:
    """Send to the socket that the environment names; without one nobody wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace, unix(7)
        address = "\0" + address[1:]
    # A manager that takes nothing now judges us by our silence, as it should; waiting for it would
    # hold up every bay.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager,
    ):
        manager.setblocking(False)
        manager.sendto("\n".join(lines).encode(), address)
