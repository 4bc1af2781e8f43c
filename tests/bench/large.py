"""One large recording to an endpoint that forgets it: the dock beside curl and sha256sum.

The dock does in one process what those two do together. Each contestant reads the same file from the
page cache; rounds take turns, so that what else the machine does falls on all of them.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.certificate import write_certificate
from tests.bench.footage import write_files
from tests.bench.processes import BenchError

SIZE_BYTES = 1 << 30
ROUNDS = 5

_READ_BYTES = 1 << 20
_HASH = "import hashlib, sys; hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256')"
_END_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one transfer took: seconds by the clock, and CPU seconds of the process alone."""

    seconds: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Samples:
    """All rounds, by contestant."""

    sha256sum: list[Sample]
    openssl: list[Sample]
    curl: list[Sample]
    curl_tls: list[Sample]
    dock: list[Sample]
    dock_tls: list[Sample]


def measure(root: Path) -> Samples:
    """Take all samples."""
    write_files(root, count=1, size_bytes=SIZE_BYTES)
    (file,) = root.iterdir()
    certificate, key = write_certificate(root)
    samples = Samples([], [], [], [], [], [])
    with _endpoint() as port, _endpoint(certificate, key) as tls_port:
        plain = f"http://127.0.0.1:{port}/files/"
        tls = f"https://127.0.0.1:{tls_port}/files/"
        for _ in range(ROUNDS):
            samples.sha256sum.append(_hash(file, "sha256sum"))
            samples.openssl.append(_hash(file, sys.executable, "-c", _HASH))
            samples.curl.append(_curl(file, plain))
            samples.dock.append(_dock(file, plain))
            samples.curl_tls.append(_curl(file, tls, "--cacert", str(certificate)))
            samples.dock_tls.append(_dock(file, tls, str(certificate)))
    return samples


def _hash(file: Path, *command: str) -> Sample:
    _read(file)
    began_s = time.monotonic()
    _, cpu_s = _run(*command, str(file))
    return Sample(time.monotonic() - began_s, cpu_s)


def _curl(file: Path, url: str, *options: str) -> Sample:
    _read(file)
    output, cpu_s = _run(
        *("curl", "--silent", "--show-error", "--fail", "--upload-file", str(file)),
        *("--request", "PATCH", "--header", "Upload-Offset: 0", "--header", "Expect:"),
        *("--write-out", "%{time_total}", *options, f"{url}1"),
    )
    return Sample(float(output), cpu_s)


def _dock(file: Path, *arguments: str) -> Sample:
    # The dock drops from the page cache what it has read, so the file is read again for the next.
    _read(file)
    output, _ = _run(sys.executable, "-m", "tests.bench.sender", str(file), *arguments)
    took = json.loads(output)
    return Sample(took["seconds"], took["cpu_seconds"])


def _read(file: Path) -> None:
    """Bring a file into the page cache."""
    with file.open("rb", buffering=0) as read:
        while read.read(_READ_BYTES):
            pass


def _run(*command: str) -> tuple[str, float]:
    """Run a command to its end; return its output and the CPU seconds that it used."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise BenchError(f"{command[0]} ended with exit code {process.returncode}")
    return output, used.ru_utime + used.ru_stime


@contextlib.contextmanager
def _endpoint(*files: Path) -> Iterator[int]:
    """Run the discarding endpoint and yield its port."""
    command: Sequence[str] = (sys.executable, "-m", "tests.bench.endpoint", *map(str, files))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()
            process.wait(_END_WITHIN_S)
