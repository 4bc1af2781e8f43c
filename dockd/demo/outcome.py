"""Gathers from outside what became of the footage: the store's directory and commands, logs, folders.

Nothing here asks the dock's daemon whether it did well, but for what its bays show.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockd.core.model import UploadKind
from dockd.demo.footage import Made
from dockd.demo.processes import DemoError, Said, read_events, run_command
from dockd.demo.scenario import Played
from dockd.demo.stage import DOCK, Stage
from dockd.evidence.keys import VerifyingKey, load_verifying_key, public_key_path
from dockd.evidence.receipts import ReceiptVerifier
from dockd.ops import events
from dockd.ops.status import ask_status
from dockd.store.layout import Layout, read_store_id
from dockd.store.objects import object_path


@dataclass(frozen=True, slots=True)
class Content:
    """The size and digest of an object's bytes; ``text`` is all of them for a manifest."""

    size_bytes: int
    sha256: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """One upload that the store lists, and what is really in the object that it points to."""

    upload_id: str
    state: str
    kind: str
    camera: str
    path: bytes
    size_bytes: int
    sha256: str
    flagged: bool
    content: Content


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that the checks look at.

    ``receipts`` are as the store gave them, ``object_bytes`` is what its objects weigh together,
    ``visits`` are the summary lines that the dock has logged, ``bays`` the state that each bay shows.
    """

    made: Sequence[Made]
    played: Played
    listed: Sequence[Listed]
    receipts: Sequence[str]
    object_bytes: int
    verifier: ReceiptVerifier
    dock_key: VerifyingKey
    store_verify: Said
    custody_verify: Said
    visits: Sequence[Mapping[str, Any]]
    files_left: Sequence[str]
    directories_lost: Sequence[str]
    bays: Mapping[str, str]

    @property
    def cameras(self) -> set[str]:
        """The cameras that were docked."""
        return {item.camera for item in self.made}

    @property
    def recordings(self) -> list[Listed]:
        """The recordings that the store lists."""
        return [item for item in self.listed if item.kind == UploadKind.RECORDING]

    @property
    def manifests(self) -> list[Listed]:
        """The manifests that the store lists."""
        return [item for item in self.listed if item.kind == UploadKind.MANIFEST]

    @property
    def needed_bytes(self) -> int:
        """What everything weighs that had to be sent: footage and manifests."""
        footage_bytes = sum(item.size_bytes for item in self.made)
        return footage_bytes + sum(item.size_bytes for item in self.manifests)


async def gather(stage: Stage, played: Played) -> Outcome:
    """Look everywhere. Raises DemoError when a command gives no answer."""
    paths = stage.paths
    data = str(paths.store.root)
    listed = json.loads(await _answer("store", "list", "--data", data, "--json"))
    receipts = await _answer("store", "receipts", "--data", data, "--dock", DOCK)
    anchors = paths.root / "receipts.txt"
    anchors.write_text(receipts, encoding="utf-8")
    state = str(paths.state.state_dir)
    status = await ask_status(paths.state.socket)
    return Outcome(
        made=stage.made,
        played=played,
        listed=await asyncio.to_thread(lambda: [_listed(paths.store, item) for item in listed]),
        receipts=receipts.split(),
        object_bytes=sum(file.stat().st_size for file in _files_in(paths.store.objects)),
        verifier=ReceiptVerifier(
            read_store_id(paths.store), load_verifying_key(paths.store.receipt_public_key)
        ),
        dock_key=load_verifying_key(public_key_path(paths.state.key)),
        store_verify=await run_command("store", "verify", "--data", data, "--json"),
        custody_verify=await run_command(
            "custody", "verify", "--state", state, "--anchors", str(anchors)
        ),
        visits=list(read_events(paths.dock_log, events.VISIT_FINISHED)),
        files_left=list(_files_left(stage)),
        directories_lost=list(_directories_lost(stage)),
        bays={bay["bay"]: bay["state"] for bay in status["bays"]},
    )


async def _answer(*arguments: str) -> str:
    said = await run_command(*arguments)
    if said.exit_code != 0:
        raise DemoError(f"dockd {' '.join(arguments)}: {said.errors}")
    return said.output


def _listed(store: Layout, item: Mapping[str, Any]) -> Listed:
    file = object_path(store.objects, item["sha256"] or "none")
    return Listed(
        upload_id=item["upload"],
        state=item["state"],
        kind=item["kind"],
        camera=item["camera"],
        path=bytes.fromhex(item["name_hex"]),
        size_bytes=item["size_bytes"],
        sha256=item["sha256"] or "",
        flagged=item["flagged"],
        content=_content(file, item["kind"]) if file.is_file() else Content(0, ""),
    )


def _content(file: Path, kind: str) -> Content:
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    text = file.read_text(encoding="ascii") if kind == UploadKind.MANIFEST else ""
    return Content(file.stat().st_size, sha256, text)


def _files_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir())


def _files_left(stage: Stage) -> Iterator[str]:
    for bay in stage.bay_of.values():
        folder = stage.paths.bay(bay)
        yield from (ascii(str(path.relative_to(folder))) for path in _files_in(folder))


def _directories_lost(stage: Stage) -> Iterator[str]:
    for item in stage.made:
        folder = stage.paths.bay(stage.bay_of[item.camera]) / item.camera
        directory = folder / os.fsdecode(item.path.rpartition(b"/")[0])
        if not directory.is_dir():
            yield ascii(str(directory))
