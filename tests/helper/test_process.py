"""``dockd-helper`` as systemd starts it: with its socket as descriptor 3, and stopped by SIGTERM."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockd.cameras.helper_client import HelperClient
from dockd.core.errors import CameraGoneError, DeviceRefusedError
from dockd.helper.server import listening_socket
from tests.helper.test_config import write


@pytest.fixture
def root_only() -> Iterator[Path]:
    """A directory on a way that nobody but root can change."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the helper trusts only files that are root's")
    with tempfile.TemporaryDirectory(prefix="dockd-test-", dir="/run") as path:
        yield Path(path)


def test_it_takes_the_socket_of_the_service_manager(root_only: Path) -> None:
    config = write(root_only)
    path = root_only / "helper.sock"
    with listening_socket(str(path)) as listener:
        # LISTEN_PID must be its own, which only the process itself knows: the shell becomes it.
        script = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", sys.executable, "-m", "dockd.helper", "-c", str(config)],
            pass_fds=[listener.fileno()], stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            client = HelperClient(path)
            assert client.ping().bays == ("1", "2")
            with pytest.raises(CameraGoneError):
                client.open_volume("1", "camera")
            with pytest.raises(DeviceRefusedError):
                client.charge("7")
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["event"] for line in lines] == [
        "helper.started", "helper.refused", "helper.refused", "helper.stopped",
    ]  # fmt: skip
    assert lines[0]["bays"] == ["1", "2"]
    assert path.exists(), "the socket is the service manager's to remove"
