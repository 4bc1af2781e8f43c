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

from tests.bench import large, links, memory, small
from tests.bench.large import Sample, Samples
from tests.bench.table import Row, Series, print_table

SMALL_ROUNDS = 3

LINKS = ((100, 20.0), (1000, 12.0))
"""Rates of links in Mbit/s, and for how many seconds there is footage."""

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
        rows += _distance_rows(root / "far")
        for mbit_s, seconds in LINKS:
            _progress.print(f"a link of {mbit_s} Mbit/s, with footage for {seconds:g} s")
            rows += _link_rows(root / f"link-{mbit_s}", mbit_s, seconds)
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


def _distance_rows(root: Path) -> list[Row]:
    _progress.print(f"{links.FILES} files over a round trip of {2 * links.DELAY_S * 1000:.0f} ms")
    one = Series([links.one_by_one_files_s(root / "one")], "files/s")
    beside = ("one by one", one.middle)
    rows = [
        Row("one request after the other, 80 ms away", one),
        Row(
            "dock, 80 ms away, docked to ready",
            Series([links.dock_files_s(root / "dock")], "files/s"),
            beside,
            "at least 8",
        ),
    ]
    for name, rclone in _others():
        rate = links.other_files_s(root / name, rclone=rclone)
        what = f"{name}, {links.STREAMS} at once, 80 ms away"
        rows.append(Row(what, Series([rate], "files/s"), beside))
    return rows


def _link_rows(root: Path, mbit_s: int, seconds: float) -> list[Row]:
    rate_bytes_s = mbit_s * 1e6 / 8
    share = links.dock_uses(root / "dock", rate_bytes_s, seconds)
    what = f"of {mbit_s} Mbit/s,"
    rows = [Row(f"{what} dock with 8 bays", _percent(share), aim="at least 97 %")]
    for name, rclone in _others():
        share = links.other_uses(root / name, rate_bytes_s, seconds, rclone=rclone)
        rows.append(Row(f"{what} {name}, {links.STREAMS} at once", _percent(share)))
    return rows


def _percent(share: float) -> Series:
    return Series([100 * share], "%")


def _others() -> list[tuple[str, bool]]:
    """Return who is there to be measured beside; the others are left out."""
    there = {"rclone": links.has_rclone(), "tus-js-client": links.has_tus_js_client()}
    for name in (name for name, is_there in there.items() if not is_there):
        _progress.print(f"{name} is not installed, and is left out")
    return [(name, name == "rclone") for name, is_there in there.items() if is_there]


if __name__ == "__main__":
    main()
