"""What must be so when the demo is over. Pure: each check names all that speaks against it.

The truth that everything is measured by is what was put on the cameras before they were docked.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dockd.core.errors import DockdError, ReceiptInvalidError
from dockd.core.lifecycle import BayState
from dockd.core.model import ContainerVerdict, ManifestEntry, Verdict, display_name
from dockd.demo.footage import Made
from dockd.demo.outcome import Listed, Outcome
from dockd.demo.stage import DOCK
from dockd.evidence.manifests import read_manifest
from dockd.store.catalogue import UploadState

_FAULTS_NAMED = 3


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must be so, and what speaks against it."""

    what: str
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing does."""
        return not self.faults


def check(outcome: Outcome) -> tuple[Check, ...]:
    """Return every check of what is left when all cameras are ready."""
    return tuple(_checked(what, faults(outcome)) for what, faults in _CHECKS.items())


def check_stopped(exit_code: int | None) -> Check:
    """Return the check of a daemon that was told to stop; None means that it did not, in time."""
    faults = () if exit_code == 0 else (f"its exit code is {exit_code}",)
    return Check("told to stop (SIGTERM), the daemon stops in order and in time", faults)


def _checked(what: str, faults: Iterator[str]) -> Check:
    found: list[str] = []
    try:
        found.extend(faults)
    except DockdError as error:
        found.append(str(error))
    more = [f"and {len(found) - _FAULTS_NAMED} more"] if len(found) > _FAULTS_NAMED else []
    return Check(what, (*found[:_FAULTS_NAMED], *more))


def _holds_what_was_docked(outcome: Outcome) -> Iterator[str]:
    made = {_key(item): (item.size_bytes, item.sha256) for item in outcome.made}
    held = {_key(item): item for item in outcome.recordings}
    for key in made.keys() - held.keys():
        yield f"{_name(key)} is missing"
    for key in held.keys() - made.keys():
        yield f"{_name(key)} was never docked"
    for key in made.keys() & held.keys():
        if (held[key].size_bytes, held[key].sha256) != made[key]:
            yield f"{_name(key)} is listed with another size or digest"
        if (held[key].content.size_bytes, held[key].content.sha256) != made[key]:
            yield f"the bytes of {_name(key)} are others"


def _nothing_uploaded_twice(outcome: Outcome) -> Iterator[str]:
    for item in outcome.listed:
        if item.state != UploadState.HELD:
            yield f"an upload of {_name(_key(item))} is {item.state}"
    for key, count in Counter(_key(item) for item in outcome.recordings).items():
        if count > 1:
            yield f"{_name(key)} was uploaded {count} times"
    manifests = Counter(item.camera for item in outcome.manifests)
    if manifests != dict.fromkeys(outcome.cameras, 1):
        yield f"manifests of each camera: {dict(manifests)}"
    if outcome.object_bytes != outcome.needed_bytes:
        yield f"the store's objects are {outcome.object_bytes} bytes, not {outcome.needed_bytes}"


def _went_on_where_it_stopped(outcome: Outcome) -> Iterator[str]:
    """An upload that began anew would have sent again all that it had sent when it was broken off."""
    again = outcome.played.carried_bytes - outcome.needed_bytes
    anew = min(item.sent_bytes for item in outcome.played.interruptions)
    if not 0 <= again < anew:
        yield f"{again} bytes were sent again, and {anew} had been sent when it was broken off"


def _store_is_sound(outcome: Outcome) -> Iterator[str]:
    said = outcome.store_verify
    if said.exit_code != 0:
        yield said.errors or said.output
        return
    count = json.loads(said.output)
    odd = ("damaged", "missing", "orphan", "unfinished", "quarantined")
    yield from (f"{count[kind]} {kind}" for kind in odd if count[kind] != 0)
    if count["ok"] != len(outcome.listed):
        yield f"{count['ok']} objects are sound, of {len(outcome.listed)}"


def _custody_is_sound(outcome: Outcome) -> Iterator[str]:
    said = outcome.custody_verify
    if said.exit_code != 0:
        yield said.errors or said.output


def _receipts_prove(outcome: Outcome) -> Iterator[str]:
    proved = {}
    for receipt in outcome.receipts:
        try:
            claims = outcome.verifier.verify(receipt)
        except ReceiptInvalidError as error:
            yield str(error)
            continue
        proved[claims.upload_id] = (claims.sha256, claims.size_bytes, claims.dock, claims.camera)
    for item in outcome.listed:
        wanted = (item.content.sha256, item.content.size_bytes, DOCK, item.camera)
        if proved.get(item.upload_id) != wanted:
            yield f"no receipt proves {_name(_key(item))}"
    if len(outcome.receipts) != len(outcome.listed):
        yield f"{len(outcome.receipts)} receipts for {len(outcome.listed)} uploads"


def _manifests_list_everything(outcome: Outcome) -> Iterator[str]:
    held = {_key(item): item.sha256 for item in outcome.recordings}
    on_manifests = {key: entry.sha256 for key, entry in _on_manifests(outcome).items()}
    for key in held.keys() | on_manifests.keys():
        if held.get(key) != on_manifests.get(key):
            yield f"{_name(key)} is not the same in store and manifest"
    receipts = {entry.receipt for entry in _on_manifests(outcome).values()}
    if not receipts <= set(outcome.receipts):
        yield "a manifest carries a receipt that the store does not know"


def _flags_are_kept(outcome: Outcome) -> Iterator[str]:
    flagged = {_key(item) for item in outcome.made if item.flagged}
    for key in flagged ^ {_key(item) for item in outcome.recordings if item.flagged}:
        yield f"{_name(key)} is {'not ' if key in flagged else ''}flagged in the store"


def _cut_short_is_described(outcome: Outcome) -> Iterator[str]:
    on_manifests = _on_manifests(outcome)
    for item in outcome.made:
        entry = on_manifests.get(_key(item))
        found = entry.container.verdict if entry is not None and entry.container else None
        if (found is ContainerVerdict.TRUNCATED) != item.truncated:
            yield f"{_name(_key(item))} is described as {found}"


def _one_summary_for_each_visit(outcome: Outcome) -> Iterator[str]:
    for camera in outcome.cameras:
        verdicts = [line["verdict"] for line in outcome.visits if line["camera"] == camera]
        if verdicts != [Verdict.WIPED]:
            yield f"{camera} has the summary lines {verdicts}"
    for line in outcome.visits:
        made = [item for item in outcome.made if item.camera == line["camera"]]
        counted = (line["recordings"], line["confirmed"], line["erased"], line["bytes"])
        if counted != (len(made), len(made), len(made), sum(item.size_bytes for item in made)):
            yield f"the summary of {line['camera']} counts {counted}"


def _cameras_are_empty(outcome: Outcome) -> Iterator[str]:
    for path in outcome.files_left:
        yield f"{path} is still there"
    for path in outcome.directories_lost:
        yield f"the directory {path} is gone"


def _bays_are_ready(outcome: Outcome) -> Iterator[str]:
    states = Counter(outcome.bays.values())
    cameras = len(outcome.cameras)
    expected = {BayState.READY.value: cameras, BayState.EMPTY.value: len(outcome.bays) - cameras}
    if states != expected:
        yield f"the bays are {dict(outcome.bays)}"


_CHECKS: dict[str, Callable[[Outcome], Iterator[str]]] = {
    "the store holds what was docked, byte for byte, under the exact names": _holds_what_was_docked,
    "nothing was uploaded twice, nothing else is stored": _nothing_uploaded_twice,
    "after each interruption sending went on where it had stopped": _went_on_where_it_stopped,
    "dockd store verify: every object is sound": _store_is_sound,
    "every receipt verifies and proves its bytes": _receipts_prove,
    "each camera's manifest lists all of it": _manifests_list_everything,
    "dockd custody verify: the log is whole, by the store's receipts too": _custody_is_sound,
    "the recording that the camera flagged is flagged in the store": _flags_are_kept,
    "the recording that is cut short is described so, and no other": _cut_short_is_described,
    "each visit has exactly one summary line, over both runs of the daemon": (
        _one_summary_for_each_visit
    ),
    "the cameras are empty, their directories kept": _cameras_are_empty,
    "three bays are ready, one is empty": _bays_are_ready,
}

_Key = tuple[str, bytes]


def _key(item: Made | Listed) -> _Key:
    return item.camera, item.path


def _name(key: _Key) -> str:
    return f"{key[0]}/{display_name(key[1])}"


def _on_manifests(outcome: Outcome) -> dict[_Key, ManifestEntry]:
    manifests = (read_manifest(item.content.text, outcome.dock_key) for item in outcome.manifests)
    return {
        (manifest.camera, entry.path): entry
        for manifest in manifests
        for entry in manifest.recordings
    }
