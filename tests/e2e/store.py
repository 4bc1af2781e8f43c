"""A real store on the host, and what it holds; the guest reaches it through its own loopback."""

import contextlib
import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dockd.core.model import UploadKind
from dockd.evidence.keys import SigningKey, load_signing_key
from dockd.store.layout import Layout, read_store_id
from dockd.store.objects import object_path

_WITHIN_S = 60.0


class Store:
    """``dockd store serve`` as a process of its own, on one port over all its restarts."""

    def __init__(self, data: Path) -> None:
        """Build; nothing runs yet."""
        self.layout = Layout(data)
        self.log = data.with_suffix(".log")
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def store_id(self) -> str:
        """The name under which it signs; known once it has been started."""
        return read_store_id(self.layout)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "dockd", "store", "serve"),
                    *("--data", str(self.layout.root), "--reserve-mib", "0"),
                    *("--listen", f"127.0.0.1:{self.port}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + _WITHIN_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the store does not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def held(self, camera: str, *, cut_short: bytes | None = None) -> dict[bytes, bytes]:
        """Return the recordings that it holds of a camera, with the bytes that are really on its disk.

        Fails when it holds one twice, or anything that is not held in order, but for the recording
        that was ``cut_short``: of that it must have the beginning only.
        """
        held: dict[bytes, bytes] = {}
        for upload in self._uploads():
            if upload["camera"] == camera and upload["kind"] == UploadKind.RECORDING:
                path = bytes.fromhex(upload["name_hex"])
                if path == cut_short:
                    assert upload["state"] == "receiving", upload
                    continue
                assert upload["state"] == "held", upload
                data = object_path(self.layout.objects, upload["sha256"]).read_bytes()
                assert hashlib.sha256(data).hexdigest() == upload["sha256"]
                assert path not in held, f"{path!r} was uploaded twice"
                held[path] = data
        return held

    def manifests(self, camera: str) -> int:
        """Return how many manifests of a camera it holds: one for each visit that was proved."""
        return sum(
            upload["camera"] == camera and upload["kind"] == UploadKind.MANIFEST
            for upload in self._uploads()
        )

    def proof(self, camera: str) -> tuple[str, str]:
        """Return the manifest of a camera's last visit, as it was signed, and the receipt for it."""
        manifests = [
            upload
            for upload in self._uploads()
            if (upload["camera"], upload["kind"]) == (camera, UploadKind.MANIFEST)
        ]
        upload = max(manifests, key=lambda upload: str(upload["created_at"]))
        manifest = object_path(self.layout.objects, upload["sha256"]).read_text(encoding="ascii")
        url = f"http://127.0.0.1:{self.port}/files/{upload['upload']}/receipt"
        with urllib.request.urlopen(url) as answer:
            return manifest, answer.read().decode("ascii")

    def receipt_key(self) -> SigningKey:
        """Return the key that it signs with."""
        key = load_signing_key(self.layout.receipt_key)
        assert key is not None
        return key

    def unfinished_bytes(self) -> int:
        """Return how many bytes it has of uploads that are still under way."""
        total = 0
        for path in self.layout.unfinished.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def wait_unfinished(self, size_bytes: int, within_s: float = 120.0) -> int:
        """Wait until it has more than so many bytes of uploads under way; return how many."""
        deadline = time.monotonic() + within_s
        while (arrived := self.unfinished_bytes()) <= size_bytes:
            assert time.monotonic() < deadline, f"{arrived} bytes, and no more, have arrived"
            time.sleep(0.05)
        return arrived

    def _uploads(self) -> Iterator[dict[str, Any]]:
        command = [sys.executable, "-m", "dockd", "store", "list", "--json", "--data"]
        listed = subprocess.run([*command, str(self.layout.root)], check=True, capture_output=True)
        yield from json.loads(listed.stdout)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_WITHIN_S)
            self._process = None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
