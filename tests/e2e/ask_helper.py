"""Runs in the guest, in the package's own environment: asks the helper what anybody could ask.

Reads a list of questions from standard input, answers on standard output, both as JSON. Part of the
tests, and no part of dockd.
"""

import dataclasses
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dockd.cameras.helper_client import HelperClient
from dockd.cameras.helper_protocol import SOCKET_PATH
from dockd.core.errors import DockdError
from dockd.core.model import Camera, IdentifiedBy, Presence, WipeRequest
from dockd.core.wipe_gate import WipeRefused


def _ask(question: dict[str, Any]) -> dict[str, object]:
    client = HelperClient(Path(SOCKET_PATH))
    bay = question["bay"]
    if question["do"] == "power":
        return {"power": client.power(bay, question["action"])}
    camera = Camera(question["camera"], IdentifiedBy.SERIAL)
    outcome = client.wipe(
        bay,
        WipeRequest(
            Presence(bay, camera, "wherever"),
            question["visit"],
            question["manifest"],
            question["receipt"],
            datetime.now(UTC),
        ),
        lambda: False,
    )
    if isinstance(outcome, WipeRefused):
        return {"checks": [reason.check for reason in outcome.reasons]}
    return {"report": dataclasses.asdict(outcome)}


def _answer(question: dict[str, Any]) -> dict[str, object]:
    try:
        return _ask(question)
    except DockdError as error:
        return {"error": str(error)}


def main() -> None:
    """Ask one after the other."""
    json.dump([_answer(question) for question in json.load(sys.stdin)], sys.stdout, default=str)


if __name__ == "__main__":
    main()
