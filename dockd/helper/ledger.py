"""The ledger of wipes: permits that were given and must survive a power cut, and how they ended.

Formatting and overwriting destroy what a new proof would be read from, so before their first
destructive step an entry is written here, durably, and the first block of the volume is replaced by a
mark: random bytes that are in this entry and nowhere else. A medium that is found with that mark is
surely the one for which the permit was given, and its erasing is finished without another proof. Any
other medium, whatever its serial number or label, is not. After success the entry is removed.

What was done and checked is kept until the daemon has it in its journal, because the answer to a
request may never arrive.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from dockd.cameras.discovery import FileSystem
from dockd.cameras.helper_protocol import KeptWipe
from dockd.core.errors import HelperError
from dockd.core.model import Camera, EndedWipe, IdentifiedBy, WipeReport
from dockd.helper.block import BLOCK_BYTES, SECTOR_BYTES
from dockd.helper.image import Recipe
from dockd.journal import durable
from dockd.ops import events

MOST_ENTRIES = 1000
"""Beyond this the oldest are dropped: media that never came back, reports that nobody wanted."""

_LARGEST_ENTRY_BYTES = 64 << 20
_TITLE = b"dockd: this medium is being erased; dock it again to finish.\n"
_TOKEN_BYTES = 32
_ENTRIES, _REPORTS = "[0-9a-f]*.json", "report-*.json"

M = TypeVar("M", bound=BaseModel)


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SettingsFile(_Wire):
    """A file of the camera's own that is put back."""

    path_b64: str
    content_b64: str
    mtime_ns: int

    @property
    def path(self) -> bytes:
        """Its name on the camera."""
        return base64.b64decode(self.path_b64)

    @property
    def content(self) -> bytes:
        """What is in it."""
        return base64.b64decode(self.content_b64)


class Entry(_Wire):
    """One wipe under way: what the permit was for, and what the camera gets back.

    ``method`` is ``format`` or ``overwrite``; ``recordings`` and ``footage_bytes`` count what was
    permitted.
    """

    token: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    begun_at: AwareDatetime
    method: Annotated[str, Field(pattern=r"^(format|overwrite)$")]
    camera: str
    identified_by: IdentifiedBy
    visit: str
    manifest_sha256: str
    disk_bytes: int
    type: str
    label: str
    uuid: str
    volume_bytes: int
    volume_offset: int
    variant: Annotated[tuple[str, ...], Field(strict=False)]
    directories_b64: Annotated[tuple[str, ...], Field(strict=False)]
    settings: Annotated[tuple[SettingsFile, ...], Field(strict=False)]
    recordings: int
    footage_bytes: int

    @property
    def recipe(self) -> Recipe:
        """How the file system is made anew."""
        return Recipe(
            self.type, self.label, self.uuid, self.volume_bytes, self.volume_offset, self.variant
        )

    @property
    def directories(self) -> Sequence[bytes]:
        """The camera's directories, outer ones first."""
        return [base64.b64decode(path) for path in self.directories_b64]

    def is_about(self, camera: Camera, file_system: FileSystem, disk_bytes: int) -> bool:
        """Whether this may be about a medium that carries no mark but a whole file system.

        It may only be about one where formatting has come to its end; it allows no erasing.
        """
        return (self.camera, self.type, self.label, self.uuid, self.disk_bytes) == (
            camera.camera_id,
            file_system.type,
            file_system.label,
            file_system.uuid,
            disk_bytes,
        )

    def mark(self) -> bytes:
        """Return the block that replaces the first one of the volume."""
        return (_TITLE + self.token.encode() + b"\n").ljust(BLOCK_BYTES, b"\0")

    def is_marked(self, block: bytes) -> bool:
        """Whether this block carries the mark; its first sector, which no power cut tears, decides."""
        return block[:SECTOR_BYTES] == self.mark()[:SECTOR_BYTES]


class Ledger:
    """The entries, one file each, in a directory that only root may write to. Blocking."""

    def __init__(self, directory: Path) -> None:
        """Build for a directory, which is made where it is missing."""
        self._directory = directory

    def add(self, entry: Entry) -> None:
        """Write an entry; when this returns, it survives a power cut. Raises HelperError."""
        try:
            self._write(self._path(entry), entry, _ENTRIES)
        except OSError as error:
            raise HelperError(f"{self._directory}: {error.strerror}; nothing is erased") from error

    def finish(self, entry: Entry, report: WipeReport) -> None:
        """Keep the report of an entry's wipe, then forget the entry. Raises HelperError."""
        self.keep(EndedWipe(entry.visit, entry.camera, report))
        self.remove(entry)

    def remove(self, entry: Entry) -> None:
        """Forget an entry whose wipe has ended. Raises HelperError."""
        try:
            self._path(entry).unlink(missing_ok=True)
            durable.sync_directory(self._directory)
        except OSError as error:
            raise HelperError(f"{self._directory}: {error.strerror}") from error

    def entries(self) -> Iterator[Entry]:
        """Return the entries, newest first. One that cannot be read is logged, and allows nothing."""
        return self._read(_ENTRIES, Entry)

    def keep(self, ended: EndedWipe) -> None:
        """Keep the first report of a visit's wipe until it is acknowledged. Raises HelperError."""
        path = self._report_path(ended.visit_id)
        try:
            if not path.exists():
                self._write(path, KeptWipe.of(ended), _REPORTS)
        except OSError as error:
            raise HelperError(f"{self._directory}: {error.strerror}") from error

    def ended(self) -> Iterator[EndedWipe]:
        """Return what is kept of wipes that are done, newest first."""
        return (kept.ended() for kept in self._read(_REPORTS, KeptWipe))

    def acknowledge(self, visit_id: str) -> None:
        """Forget the report of a visit's wipe, which the daemon has. Raises HelperError."""
        try:
            self._report_path(visit_id).unlink(missing_ok=True)
        except OSError as error:
            raise HelperError(f"{self._directory}: {error.strerror}") from error

    def _path(self, entry: Entry) -> Path:
        return self._directory / f"{entry.token}.json"

    def _report_path(self, visit_id: str) -> Path:
        # The daemon's own words never become part of a path.
        return self._directory / f"report-{hashlib.sha256(visit_id.encode()).hexdigest()}.json"

    def _write(self, path: Path, content: BaseModel, kind: str) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.sync_directory(self._directory.parent)
        for old in self._files(kind)[MOST_ENTRIES - 1 :]:
            old.unlink(missing_ok=True)
        durable.write_file(path, content.model_dump_json().encode())

    def _read(self, kind: str, model: type[M]) -> Iterator[M]:
        for path in self._files(kind):
            try:
                with path.open("rb") as file:
                    yield model.model_validate_json(file.read(_LARGEST_ENTRY_BYTES))
            except FileNotFoundError:
                continue
            except (OSError, ValidationError) as error:
                events.HELPER_LEDGER_UNREADABLE.log(file=str(path), error=error)

    def _files(self, kind: str) -> list[Path]:
        files = []
        for path in self._directory.glob(kind):
            try:
                files.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:
                continue
        return [path for _, path in sorted(files, reverse=True)]


def new_token() -> str:
    """Return the random part of a mark."""
    return secrets.token_hex(_TOKEN_BYTES)


def settings_file(path: bytes, content: bytes, mtime_ns: int) -> SettingsFile:
    """Put a preserved file into an entry's form."""
    return SettingsFile(
        path_b64=base64.b64encode(path).decode(),
        content_b64=base64.b64encode(content).decode(),
        mtime_ns=mtime_ns,
    )
