"""Each check of the demo fails for what it is there to find."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core.model import (
    GENESIS,
    Container,
    ContainerVerdict,
    Manifest,
    ManifestEntry,
    ReceiptClaims,
)
from dockd.demo.checks import check, check_stopped
from dockd.demo.footage import Made
from dockd.demo.outcome import Content, Listed, Outcome
from dockd.demo.processes import Said
from dockd.demo.scenario import Interruption, Played
from dockd.demo.stage import DOCK
from dockd.evidence.keys import SigningKey
from dockd.evidence.manifests import sign_manifest
from dockd.evidence.receipts import ReceiptVerifier, sign_receipt

STORE = "store-1"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STORE_KEY = SigningKey(Ed25519PrivateKey.generate())
DOCK_KEY = SigningKey(Ed25519PrivateKey.generate())

MADE = (
    Made("cam-a", b"1.MP4", 1000, "a1" * 32, flagged=True, truncated=False),
    Made("cam-a", b"\xff.MP4", 0, "a2" * 32, flagged=False, truncated=False),
    Made("cam-b", b"1.MP4", 300, "b1" * 32, flagged=False, truncated=True),
)


def receipt_for(upload_id: str, sha256: str, size_bytes: int, camera: str) -> str:
    return sign_receipt(
        STORE_KEY,
        ReceiptClaims(
            STORE, NOW, f"r-{upload_id}", upload_id, sha256, size_bytes, DOCK, camera, "v", GENESIS
        ),
    )


def receipt_of(item: Listed) -> str:
    return receipt_for(item.upload_id, item.sha256, item.size_bytes, item.camera)


def recording(made: Made) -> Listed:
    return Listed(
        upload_id=made.sha256[:4],
        state="held",
        kind="recording",
        camera=made.camera,
        path=made.path,
        size_bytes=made.size_bytes,
        sha256=made.sha256,
        flagged=made.flagged,
        content=Content(made.size_bytes, made.sha256),
    )


def manifest_of(camera: str) -> Listed:
    entries = tuple(
        ManifestEntry(
            path=item.path,
            size_bytes=item.size_bytes,
            mtime_ns=0,
            sha256=item.sha256,
            receipt=receipt_of(recording(item)),
            container=Container(
                "mp4", ContainerVerdict.TRUNCATED if item.truncated else ContainerVerdict.OK
            ),
        )
        for item in MADE
        if item.camera == camera
    )
    text = sign_manifest(DOCK_KEY, Manifest(DOCK, camera, "v", "1", NOW, GENESIS, entries))
    content = Content(len(text), camera.encode().hex().ljust(64, "0"), text)
    return Listed(
        upload_id=f"m-{camera}",
        state="held",
        kind="manifest",
        camera=camera,
        path=b"manifest",
        size_bytes=content.size_bytes,
        sha256=content.sha256,
        flagged=False,
        content=content,
    )


def summary_of(camera: str) -> Mapping[str, Any]:
    sizes = [item.size_bytes for item in MADE if item.camera == camera]
    counts = dict.fromkeys(("recordings", "confirmed", "erased"), len(sizes))
    return {"camera": camera, "verdict": "wiped", "bytes": sum(sizes), **counts}


LISTED = (*map(recording, MADE), manifest_of("cam-a"), manifest_of("cam-b"))
NEEDED_BYTES = sum(item.size_bytes for item in LISTED)
COUNT = {"ok": 5, "damaged": 0, "missing": 0, "orphan": 0, "unfinished": 0, "quarantined": 0}
GOOD = Outcome(
    made=MADE,
    played=Played((Interruption("cut", 700), Interruption("killed", 500)), NEEDED_BYTES + 9, 1.0),
    listed=LISTED,
    receipts=tuple(map(receipt_of, LISTED)),
    object_bytes=NEEDED_BYTES,
    verifier=ReceiptVerifier(STORE, STORE_KEY.public),
    dock_key=DOCK_KEY.public,
    store_verify=Said(0, json.dumps(COUNT), ""),
    custody_verify=Said(0, "sound", ""),
    visits=(summary_of("cam-a"), summary_of("cam-b")),
    files_left=(),
    directories_lost=(),
    bays={"1": "ready", "2": "ready", "3": "empty"},
)


def with_listed(index: int, **changes: object) -> Outcome:
    listed = list(GOOD.listed)
    listed[index] = replace(listed[index], **changes)  # type: ignore[arg-type]
    return replace(GOOD, listed=listed)


def with_made(index: int, **changes: object) -> Outcome:
    made = list(GOOD.made)
    made[index] = replace(made[index], **changes)  # type: ignore[arg-type]
    return replace(GOOD, made=made)


def with_count(kind: str) -> Outcome:
    return replace(GOOD, store_verify=Said(0, json.dumps({**COUNT, kind: 1}), ""))


def failed(outcome: Outcome) -> list[str]:
    return [one.what for one in check(outcome) if not one.ok]


def test_a_good_outcome_passes_every_check() -> None:
    assert failed(GOOD) == []


BYTES = "the store holds what was docked"
TWICE = "nothing was uploaded twice"
WENT_ON = "after each interruption"
SOUND = "dockd store verify"
RECEIPTS = "every receipt verifies"
MANIFESTS = "each camera's manifest"
CUSTODY = "dockd custody verify"
FLAGGED = "the recording that the camera flagged"
CUT_SHORT = "the recording that is cut short"
SUMMARY = "each visit has exactly one summary"
EMPTY = "the cameras are empty"
READY = "three bays are ready"
FORGED = sign_receipt(DOCK_KEY, GOOD.verifier.verify(GOOD.receipts[0]))


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        (BYTES, lambda: replace(GOOD, listed=GOOD.listed[1:])),
        (BYTES, lambda: replace(GOOD, made=GOOD.made[1:])),
        (BYTES, lambda: with_listed(0, path=b"other.MP4")),
        (BYTES, lambda: with_listed(1, path=b"\xef\xbf\xbd.MP4")),
        (BYTES, lambda: with_listed(0, size_bytes=999)),
        (BYTES, lambda: with_listed(0, sha256="00" * 32)),
        (BYTES, lambda: with_listed(0, content=Content(1000, "00" * 32))),
        (BYTES, lambda: with_listed(0, content=Content(999, "a1" * 32))),
        (TWICE, lambda: replace(GOOD, listed=(*GOOD.listed, GOOD.listed[0]))),
        (TWICE, lambda: replace(GOOD, listed=(*GOOD.listed, GOOD.listed[-1]))),
        (TWICE, lambda: replace(GOOD, listed=GOOD.listed[:-1])),
        (TWICE, lambda: with_listed(2, state="receiving")),
        (TWICE, lambda: replace(GOOD, object_bytes=NEEDED_BYTES + 1)),
        (WENT_ON, lambda: replace(GOOD, played=replace(GOOD.played, carried_bytes=1))),
        (
            WENT_ON,
            lambda: replace(GOOD, played=replace(GOOD.played, carried_bytes=NEEDED_BYTES + 500)),
        ),
        (SOUND, lambda: replace(GOOD, store_verify=Said(1, "", "damaged"))),
        *((SOUND, lambda kind=kind: with_count(kind)) for kind in COUNT),
        (RECEIPTS, lambda: replace(GOOD, receipts=GOOD.receipts[1:])),
        (RECEIPTS, lambda: replace(GOOD, receipts=(*GOOD.receipts, GOOD.receipts[0]))),
        (RECEIPTS, lambda: replace(GOOD, receipts=(FORGED, *GOOD.receipts[1:]))),
        (RECEIPTS, lambda: with_listed(0, content=Content(1000, "00" * 32))),
        (RECEIPTS, lambda: with_listed(0, camera="cam-b")),
        (MANIFESTS, lambda: replace(GOOD, listed=GOOD.listed[1:])),
        (MANIFESTS, lambda: replace(GOOD, listed=GOOD.listed[:-1])),
        (MANIFESTS, lambda: replace(GOOD, dock_key=STORE_KEY.public)),
        (MANIFESTS, lambda: replace(GOOD, receipts=GOOD.receipts[1:])),
        (CUSTODY, lambda: replace(GOOD, custody_verify=Said(1, "cut", ""))),
        (FLAGGED, lambda: with_listed(0, flagged=False)),
        (FLAGGED, lambda: with_listed(1, flagged=True)),
        (CUT_SHORT, lambda: with_made(0, truncated=True)),
        (CUT_SHORT, lambda: with_made(2, truncated=False)),
        (SUMMARY, lambda: replace(GOOD, visits=GOOD.visits[1:])),
        (SUMMARY, lambda: replace(GOOD, visits=(*GOOD.visits, GOOD.visits[0]))),
        (
            SUMMARY,
            lambda: replace(
                GOOD, visits=({**GOOD.visits[0], "verdict": "attention"}, GOOD.visits[1])
            ),
        ),
        (SUMMARY, lambda: replace(GOOD, visits=({**GOOD.visits[0], "bytes": 1}, GOOD.visits[1]))),
        (EMPTY, lambda: replace(GOOD, files_left=("'cam-a/1.MP4'",))),
        (EMPTY, lambda: replace(GOOD, directories_lost=("'cam-a/DCIM'",))),
        (READY, lambda: replace(GOOD, bays={**GOOD.bays, "1": "attention"})),
        (READY, lambda: replace(GOOD, bays={**GOOD.bays, "3": "ready"})),
    ],
)
def test_what_is_wrong_is_found_by_its_check(what: str, outcome: Callable[[], Outcome]) -> None:
    assert [name for name in failed(outcome()) if name.startswith(what)] != []


@pytest.mark.parametrize(("exit_code", "ok"), [(0, True), (1, False), (-9, False), (None, False)])
def test_only_a_stop_in_order_is_one(exit_code: int | None, ok: bool) -> None:
    assert check_stopped(exit_code).ok is ok


def test_of_many_faults_a_few_are_named_and_the_others_counted() -> None:
    (one,) = (
        one
        for one in check(replace(GOOD, files_left=[str(n) for n in range(10)]))
        if one.what.startswith(EMPTY)
    )
    assert [*one.faults] == [*(f"{n} is still there" for n in range(3)), "and 7 more"]
