"""Starts real store processes, each of which kills itself (SIGKILL) just before its Nth durable step.

It imports the store once and forks for each, so that a run costs milliseconds. Orders are lines of
JSON on standard input, answers lines of JSON on standard output:

- ``{"data": directory, "step": N}`` starts a store; step 0 never comes, so that one lives on. The
  answer has its URL, id and receipt key, or is ``null`` when it was dead before it listened. Its log
  goes to ``<directory>.log``.
- ``null`` ends it with SIGTERM, if it still lives; the answer is its exit code, -9 for SIGKILL.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import structlog

from dockd.store.serve import Address, serve
from tests.store.steps import NthStep, interposed
from tests.store.tus import QUICK


def _run(data_dir: Path, step_number: int, log: int) -> None:
    os.dup2(log, 1)
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(os.fdopen(1, "w", closefd=False)),
    )
    step = NthStep(lambda _: os.kill(os.getpid(), signal.SIGKILL))
    step.arm(step_number)
    with interposed(step):
        asyncio.run(serve(data_dir, Address("127.0.0.1", 0), QUICK))


def _started(log: Path, child: int) -> dict[str, str] | None:
    """Wait until the child has said that it listens, or is dead."""
    while True:
        dead = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        for line in log.read_text().splitlines(keepends=True):
            if line.endswith("\n") and json.loads(line)["event"] == "store.started":
                started = json.loads(line)
                return {key: started[key] for key in ("url", "store", "receipt_key")}
        if dead is not None:
            return None


def main() -> None:
    child = 0
    for line in sys.stdin:
        order = json.loads(line)
        if order is None:
            os.kill(child, signal.SIGTERM)
            answer: object = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            child = 0
        else:
            log = Path(f"{order['data']}.log")
            descriptor = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o600)
            child = os.fork()
            if child == 0:
                _run(Path(order["data"]), order["step"], descriptor)
                os._exit(0)
            os.close(descriptor)
            answer = _started(log, child)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    if child:  # the test failed; nothing may outlive it
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
