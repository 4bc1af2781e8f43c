"""``make bench``: measures everything once, in a temporary folder, and prints one table.

Nothing is asserted: the numbers are those of the machine, and of whatever else it does meanwhile.
"""

import os
import platform
import ssl
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console

from tests.bench import large, memory, small
from tests.bench.large import Sample, Samples
from tests.bench.table import Row, Series, print_table

SMALL_ROUNDS = 3

_MB = 1e6
_MIB = 1 << 20

_progress = Console(stderr=True)


def main() -> None:
    """Measure and print."""
    began_s = time.monotonic()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="dockd-bench-") as folder:
        root = Path(folder)
        _progress.print(f"one recording of {large.SIZE_BYTES // _MIB} MiB, {large.ROUNDS} rounds")
        rows = _large_rows(large.measure(root / "large"))
        _progress.print(f"{small.FILES} files of {small.FILE_BYTES} bytes, {SMALL_ROUNDS} rounds")
        rows += _small_rows(root / "small")
        _progress.print(f"{len(memory.BAYS)} bays of {memory.RECORDING_BYTES} bytes each")
        rows += _memory_rows(root / "memory")
    print_table(
        rows,
        f"{os.cpu_count()} cores, load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end; "
        f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}; "
        f"{time.monotonic() - began_s:.0f} s in all",
    )


def _large_rows(samples: Samples) -> list[Row]:
    sha256sum, sha256sum_cpu = _rates(samples.sha256sum), _cpu(samples.sha256sum)
    rows = [
        Row("sha256sum", sha256sum),
        Row("sha256sum, CPU", sha256sum_cpu),
        Row("SHA-256 of OpenSSL, which the dock uses", _rates(samples.openssl)),
    ]
    for name, curl, dock in (
        ("http", samples.curl, samples.dock),
        ("https", samples.curl_tls, samples.dock_tls),
    ):
        rate, cpu = _rates(curl), _cpu(curl)
        both_cpu_s = cpu.middle + sha256sum_cpu.middle
        rows += [
            Row(f"curl, {name}", rate),
            Row(f"curl, {name}, CPU", cpu),
            Row(f"dock, {name}", _rates(dock), ("curl", rate.middle), "at least 0.8"),
            Row(f"dock, {name}, CPU", _cpu(dock), ("curl + sha256sum", both_cpu_s), "at most 1"),
        ]
    return rows


def _rates(samples: list[Sample]) -> Series:
    return Series([large.SIZE_BYTES / sample.seconds / _MB for sample in samples], "MB/s")


def _cpu(samples: list[Sample]) -> Series:
    return Series([sample.cpu_s for sample in samples], "s")


def _small_rows(root: Path) -> list[Row]:
    dock, disk = [], []
    for number in range(SMALL_ROUNDS):
        disk.append(small.FILES / small.onto_the_disk(root / f"disk-{number}"))
        dock.append(small.FILES / small.through_dock_and_store(root / f"dock-{number}"))
    return [
        Row("create, write and fsync each file", Series(disk, "files/s")),
        Row("docked to ready, with receipts", Series(dock, "files/s"), ("disk", median(disk))),
    ]


def _memory_rows(root: Path) -> list[Row]:
    idle, busy = memory.peak_memory_bytes(root)
    return [
        Row("dockd run, bays empty", Series([idle / _MIB], "MiB")),
        Row(
            f"dockd run, {len(memory.BAYS)} bays busy",
            Series([busy / _MIB], "MiB"),
            ("aim", memory.AIM_BYTES / _MIB),
            "at most 1",
        ),
    ]


if __name__ == "__main__":
    main()
