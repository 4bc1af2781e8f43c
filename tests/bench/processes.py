"""A real store and a real dock, as processes, with what is asked of them from outside."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from tests.bench.network import Network

_LOOK_EVERY_S = 0.1
_START_WITHIN_S = 30.0
_STOP_WITHIN_S = 10.0

_CONFIG = """\
[dock]
name = "bench"
state_dir = "state"

[target]
url = "{url}"
store_id = "{store_id}"
receipt_key = "store/receipt-key.pub.pem"

[wipe]
when = "never"
"""

_BAY = """
[[bay]]
name = "{name}"
folder = "bays/{name}"
"""


class BenchError(Exception):
    """Something did not run as it must, so there is no number to tell."""


class Logged:
    """A ``dockd`` command that runs in the background and logs to a file."""

    def __init__(self, log: Path, *arguments: str) -> None:
        """Start it."""
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dockd", *arguments], stdout=output, stderr=output
            )

    def wait_for(self, event: str, within_s: float, **values: object) -> Mapping[str, Any]:
        """Wait for a log line of this event and these values, and return it."""
        deadline_s = time.monotonic() + within_s
        with self._log.open(encoding="utf-8") as log:
            while time.monotonic() < deadline_s and self._process.poll() is None:
                for line in _new_lines(log):
                    # Others are not even parsed: looking on must not cost what is measured.
                    if f'"{event}"' in line and values.items() <= json.loads(line).items():
                        return dict(json.loads(line))
                time.sleep(_LOOK_EVERY_S)
        raise BenchError(
            f"no {event} {values} in {self._log} within {within_s:g} s, or it has ended"
        )

    def peak_memory_bytes(self) -> int:
        """Return the most memory that was resident at any time so far (VmHWM, proc(5))."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def stop(self) -> None:
        """End it in order, or by force when that takes too long."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _new_lines(log: TextIO) -> Iterator[str]:
    """Yield the lines that are whole by now."""
    while (line := log.readline()).endswith("\n"):
        yield line
    log.seek(log.tell() - len(line.encode()))


class Field:
    """A store and a dock with its bays, both running; the wipe is off."""

    def __init__(self, root: Path, store: Logged, dock: Logged, network: Network | None) -> None:
        """Build from what runs; use :func:`running_field`."""
        self.store = store
        self.network = network
        self.dock = dock
        self._root = root

    def dock_cameras(self, cameras: Mapping[str, Path]) -> float:
        """Put cameras into bays, by the bay's name; return the time, in seconds of the epoch."""
        began_s = time.time()
        for bay, camera in cameras.items():
            camera.rename(self._root / "bays" / bay / camera.name)
        return began_s

    def wait_until_ready(self, bays: Sequence[str], within_s: float) -> float:
        """Wait until every one of the bays is ready; return when the last one was."""
        lines = [self.dock.wait_for("bay.state", within_s, bay=bay, state="ready") for bay in bays]
        return max(datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines)


@contextlib.contextmanager
def running_store(root: Path) -> Iterator[tuple[Logged, Mapping[str, Any]]]:
    """Start a store, and stop it at the end; yields it and what it said when it had started."""
    root.mkdir(parents=True, exist_ok=True)
    store = Logged(
        root / "store.log",
        *("store", "serve", "--data", str(root / "store"), "--listen", "127.0.0.1:0"),
        *("--reserve-mib", "0"),
    )
    try:
        yield store, store.wait_for("store.started", _START_WITHIN_S)
    finally:
        store.stop()


@contextlib.contextmanager
def running_field(
    root: Path, bays: Sequence[str], *, limits: Mapping[str, float] | None = None
) -> Iterator[Field]:
    """Start a store and a dock with empty bays in a folder, and stop them at the end.

    ``limits`` are those of the network between them: none when there are none.
    """
    for bay in bays:
        (root / "bays" / bay).mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        store, started = stack.enter_context(running_store(root))
        network = None
        if limits is not None:
            network = stack.enter_context(Network.before(started["url"], **limits))
        config = root / "dock.toml"
        url = network.url if network is not None else started["url"]
        text = _CONFIG.format(url=url, store_id=started["store"])
        config.write_text(text + "".join(_BAY.format(name=bay) for bay in bays), encoding="utf-8")
        dock = Logged(root / "dock.log", "run", "-c", str(config))
        stack.callback(dock.stop)
        dock.wait_for("daemon.started", _START_WITHIN_S)
        yield Field(root, store, dock, network)
