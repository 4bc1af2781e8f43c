"""A dock, a camera and a store in one folder, and what must be true of them whatever happened."""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockd.core.model import RecordingState, UploadKind
from dockd.daemon import StatePaths
from dockd.evidence.custody import content, verify_chain
from dockd.evidence.keys import load_verifying_key, public_key_path
from dockd.evidence.receipts import ReceiptVerifier
from dockd.journal.journal import read_custody
from dockd.store.catalogue import Upload, UploadState
from dockd.store.layout import Layout, read_store_id
from dockd.store.objects import object_path
from dockd.store.verify import recordings
from tests.faults.processes import Dockd
from tests.faults.triggers import Trigger

_CONFIG = """\
[dock]
name = "{dock}"
state_dir = "state"
[target]
url = "{url}"
store_id = "{store_id}"
receipt_key = "{receipt_key}"
stall_timeout_s = 0.5
[cameras]
settle_s = {settle_s}
reconcile_s = 0.2
[attention]
retry_s = 0.5
"""

_BAY = '[[bay]]\nname = "{bay}"\nfolder = "bays/{bay}"\n'


@dataclass(slots=True)
class Site:
    """The folder of one dock, whose store has its directory in ``store``."""

    root: Path
    store: Layout
    bays: tuple[str, ...] = ("1",)
    docked: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def dock(self) -> str:
        """The dock's name: the store tells its footage by it from that of others."""
        return self.root.name

    @property
    def config(self) -> Path:
        return self.root / "dock.toml"

    @property
    def state(self) -> StatePaths:
        return StatePaths(self.root / "state")

    @property
    def log(self) -> Path:
        return self.root / "dock.log"

    def bay(self, name: str = "1") -> Path:
        return self.root / "bays" / name

    def prepare(self, url: str, *, settle_s: float = 0) -> None:
        """Write the configuration for a store at this URL, and make the bays."""
        for bay in self.bays:
            self.bay(bay).mkdir(parents=True)
        text = _CONFIG.format(
            dock=self.dock,
            url=url,
            store_id=read_store_id(self.store),
            receipt_key=self.store.receipt_public_key,
            settle_s=settle_s,
        )
        self.config.write_text(text + "".join(_BAY.format(bay=bay) for bay in self.bays))

    def change_config(self, text: str, into: str) -> None:
        """Change what :meth:`prepare` has written."""
        config = self.config.read_text()
        if text not in config:
            raise ValueError(f"{text!r} is not in the configuration")
        self.config.write_text(config.replace(text, into))

    def plug(self, files: Mapping[bytes, bytes], camera: str = "cam-1", bay: str = "1") -> Path:
        """Put a camera with these files into a bay, at once as a whole."""
        made = self.root / f"unplugged-{camera}"
        for path, data in files.items():
            file = os.path.join(os.fsencode(made), path)  # noqa: PTH118 - names are bytes
            os.makedirs(os.path.dirname(file), exist_ok=True)  # noqa: PTH103, PTH120
            with open(file, "wb") as writing:  # noqa: PTH123
                writing.write(data)
        self.docked.update(files)
        return made.rename(self.bay(bay) / camera)

    def pull(self, camera: str = "cam-1", bay: str = "1") -> None:
        """Take a camera out."""
        (self.bay(bay) / camera).rename(self.root / f"pulled-{camera}")

    def run(self, *triggers: Trigger) -> Dockd:
        """Start the daemon."""
        return Dockd("run", "-c", str(self.config), log=self.log, triggers=triggers)

    # What is there

    def on_camera(self, bay: str = "1") -> dict[bytes, bytes]:
        """Return the files of all cameras in a bay, by their path on the camera."""
        return {
            os.fsencode(Path(*file.relative_to(self.bay(bay)).parts[1:])): file.read_bytes()
            for file in self.bay(bay).rglob("*")
            if file.is_file() and not file.is_symlink()
        }

    def uploads(self, kind: UploadKind = UploadKind.RECORDING) -> list[Upload]:
        """Return every upload that this dock has begun, whatever became of it."""
        return [
            upload
            for upload in recordings(self.store.root)
            if upload.dock == self.dock and upload.kind is kind
        ]

    def custody(self) -> list[dict[str, Any]]:
        """Return what the custody log says happened."""
        return [dict(content(entry)) for entry in read_custody(self.state.journal)]  # type: ignore[call-overload]

    def journalled(self) -> list[tuple[bytes, str]]:
        """Return the path and state of each recording of each visit in the journal."""
        with sqlite3.connect(self.state.journal) as connection:
            rows = connection.execute("SELECT path, state FROM recordings ORDER BY path").fetchall()
        connection.close()
        return rows

    # What must be true

    def check_nothing_lost(self) -> None:
        """INV-1: the store holds, and has signed for, whatever is not on the camera any more."""
        left = self.on_camera()
        proved = {
            upload.path: self._content(upload)
            for upload in self.uploads()
            if upload.state is UploadState.HELD
        }
        for path, data in self.docked.items():
            assert left.get(path, data) == data
            if path not in left:
                assert proved[path] == data

    def check_custody(self) -> list[str]:
        """INV-4: chain, signatures and anchors; return the names of what happened."""
        receipts = [upload.receipt for upload in [*self.uploads(), *self.uploads(_MANIFEST)]]
        verifier = self._verifier()
        heads = [verifier.verify(receipt).custody_head for receipt in receipts if receipt]
        key = load_verifying_key(public_key_path(self.state.key))
        report = verify_chain(read_custody(self.state.journal), key, heads)
        assert report.sound, report.problems
        return [entry["event"] for entry in self.custody()]

    def check_finished(self, visits: int = 1, *, refused_manifests: int = 0) -> None:
        """All of INV-1 to 4, once the camera is ready."""
        assert self.on_camera() == {}
        self.check_nothing_lost()
        uploads = self.uploads()
        assert sorted(upload.path for upload in uploads) == sorted(self.docked)
        assert {upload.state for upload in uploads} == {UploadState.HELD}
        assert len(self.uploads(_MANIFEST)) == visits + refused_manifests
        happened = self.check_custody()
        for event in ("visit.started", "visit.finished", "wipe.done"):
            assert happened.count(event) == visits, event
        wiped = [entry for entry in self.custody() if entry["event"] == "wipe.done"]
        assert sum(entry["details"]["recordings"] for entry in wiped) == len(self.docked)
        erased = RecordingState.ERASED.value
        assert self.journalled() == [(path, erased) for path in sorted(self.docked)]
        self.check_no_leftovers()

    def check_no_leftovers(self) -> None:
        """No socket, lock or temporary file stays when the daemon has stopped in order."""
        stays = {"dock-key.pem", "dock-key.pub.pem", "journal.sqlite"}
        assert names_in(self.state.state_dir) == stays

    def _content(self, upload: Upload) -> bytes:
        """Return the bytes that the store really has, of an upload that it signed for."""
        claims = self._verifier().verify(upload.receipt or "")
        data = object_path(self.store.objects, claims.sha256).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (claims.sha256, claims.size_bytes)
        return data

    def _verifier(self) -> ReceiptVerifier:
        key = load_verifying_key(self.store.receipt_public_key)
        return ReceiptVerifier(read_store_id(self.store), key)


_MANIFEST = UploadKind.MANIFEST


def names_in(directory: Path) -> set[str]:
    """Return the names in a directory."""
    return {path.name for path in directory.iterdir()}


def footage(name: str, sizes_bytes: Iterable[int]) -> dict[bytes, bytes]:
    """Return recordings that no other test has."""
    return {
        f"DCIM/MOV_{number:04}.MP4".encode(): hashlib.shake_128(f"{name} {number}".encode()).digest(
            size_bytes
        )
        for number, size_bytes in enumerate(sizes_bytes, start=1)
    }
