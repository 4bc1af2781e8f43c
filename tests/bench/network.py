"""A limited network before a server, as a process of its own.

``python -m tests.bench.network UPSTREAM_PORT BYTES_S DELAY_S`` prints its port. When its input closes it
prints what it had carried at which second, as JSON.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from dockd.demo.proxy import Proxy

_LOOK_EVERY_S = 0.02
_END_WITHIN_S = 30.0


async def _run(upstream_port: int, rate_bytes_s: float, delay_s: float) -> None:
    samples = []
    async with Proxy(upstream_port, rate_bytes_s, delay_s=delay_s) as proxy:
        sys.stdout.write(f"{proxy.port}\n")
        sys.stdout.flush()
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        while not ended.done():
            samples.append((time.monotonic(), proxy.carried_bytes))
            await asyncio.sleep(_LOOK_EVERY_S)
    sys.stdout.write(json.dumps(samples) + "\n")


class Network:
    """A network before the server at a URL; ``url`` is where it is reached through it."""

    def __init__(self, url: str, *, rate_bytes_s: float = 1e12, delay_s: float = 0.0) -> None:
        """Start it."""
        parts = urlsplit(url)
        limits = (str(parts.port), str(rate_bytes_s), str(delay_s))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.network", *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        self.url = parts._replace(netloc=f"127.0.0.1:{port}").geturl()

    @classmethod
    @contextlib.contextmanager
    def before(
        cls, url: str, *, rate_bytes_s: float = 1e12, delay_s: float = 0.0
    ) -> Iterator["Network"]:
        """Run one for the length of the block."""
        network = cls(url, rate_bytes_s=rate_bytes_s, delay_s=delay_s)
        try:
            yield network
        finally:
            network.end()

    def end(self) -> list[tuple[float, int]]:
        """End it; return what it had carried when, the first time that it is ended."""
        if self._process.returncode is not None:
            return []
        output, _ = self._process.communicate(timeout=_END_WITHIN_S)
        return [(at_s, carried) for at_s, carried in json.loads(output)]

    def seconds_for(self, size_bytes: int) -> float:
        """End it; return what passed between the first byte of so many and the last."""
        samples = self.end()
        began_s = max(at_s for at_s, carried in samples if carried == 0)
        return min(at_s for at_s, carried in samples if carried >= size_bytes) - began_s


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
