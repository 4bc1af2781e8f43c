"""Visits of a whole dock on virtual time, from plug to ready, with trouble on the way."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from functools import partial

import pytest

from dockd.config import WipeConfig
from dockd.core.errors import (
    AdministrativeRefusalError,
    CameraUnreadableError,
    ReceiptRejectedError,
    TargetError,
    TargetFaultError,
    TargetFullError,
    TargetRefusedError,
    TargetUnavailableError,
)
from dockd.core.lifecycle import BayState
from dockd.core.model import (
    Presence,
    RecordingState,
    SkippedEntry,
    SkipReason,
    UploadKind,
    Verdict,
)
from dockd.evidence.custody import content, verify_chain
from tests.simulated.cameras import Generated
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera

DAY_S = 86_400.0


def bytes_of(camera_files: Mapping[bytes, object]) -> dict[bytes, bytes]:
    return {path: b"".join(file.chunks()) for path, file in camera_files.items()}  # type: ignore[attr-defined]


async def check_custody(dock: SimulatedDock) -> list[str]:
    """Check chain, signatures and anchors (INV-4); return the names of what happened."""
    entries = await dock.entries()
    anchors = [dock.store.claims(upload, "").custody_head for upload in dock.store.uploads.values()]
    report = verify_chain(entries, dock.key.public, anchors)
    assert not report.problems
    return [json.loads(json.dumps(content(entry)))["event"] for entry in entries]


@virtual_time
async def test_a_bad_line_is_not_taken_for_a_store_that_turns_a_recording_down() -> None:
    """INV-2: failures on the way leave a rejected recording all its chances."""
    async with SimulatedDock() as dock:
        for number in range(10):
            dock.store.cut_append(500 * (number + 1))
        dock.store.fail_next("receipt", ReceiptRejectedError("not what was announced"), times=2)
        dock.source.plug("1", body_camera("cam-1", 9_000))
        await dock.until_state("1", BayState.READY)
        assert len(dock.store.held()) == 1
        assert "recording.quarantined" not in await check_custody(dock)


@virtual_time
async def test_a_camera_is_read_proved_wiped_charged_and_ready() -> None:
    """INV-1, INV-2, INV-4: the main job."""
    async with SimulatedDock() as dock:
        camera = body_camera("cam-1", 10, 5_000, 0, 3_000_000)
        docked = bytes_of(camera.files)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        assert {spec.path: data for spec, data in dock.store.held()} == docked
        assert len(dock.store.held(UploadKind.MANIFEST)) == 1
        assert camera.files == {}
        assert len(camera.erased) == 4
        assert dock.bay().visit is not None
        assert dock.bay().visit.verdict is Verdict.WIPED  # type: ignore[union-attr]
        assert not dock.source.open_volumes
        happened = await check_custody(dock)
    assert happened.count("recording.confirmed") == 4
    for event in (
        "visit.started",
        "visit.finished",
        "manifest.confirmed",
        "wipe.started",
        "wipe.done",
    ):
        assert happened.count(event) == 1


@virtual_time
async def test_pulling_a_ready_camera_empties_the_bay_and_the_next_one_starts_anew() -> None:
    async with SimulatedDock() as dock:
        for camera_id in ("cam-1", "cam-2"):
            camera = body_camera(camera_id, 5_000)
            dock.source.plug("1", camera)
            await dock.until_state("1", BayState.READY)
            dock.source.unplug("1")
            await dock.until_state("1", BayState.EMPTY)
        assert [spec.camera for spec, _ in dock.store.held()] == ["cam-1", "cam-2"]
        happened = await check_custody(dock)
    assert happened.count("visit.finished") == happened.count("visit.ended") == 2


@virtual_time
async def test_with_wipe_off_the_camera_keeps_everything() -> None:
    """INV-5."""
    async with SimulatedDock(wipe=WipeConfig(when="never")) as dock:
        camera = body_camera("cam-1", 10, 5_000)
        before = bytes_of(camera.files)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        assert bytes_of(camera.files) == before
        assert dock.bay().visit.verdict is Verdict.KEPT  # type: ignore[union-attr]


@virtual_time
async def test_the_hold_keeps_footage_on_the_camera_for_its_time() -> None:
    async with SimulatedDock(wipe=WipeConfig(hold_s=7_200)) as dock:
        camera = body_camera("cam-1", 5_000)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.HOLDING)
        began = dock.clock.monotonic_s()
        await dock.until(lambda: not camera.files, within_s=9_000)
        assert dock.clock.monotonic_s() - began >= 7_190


@virtual_time
async def test_an_empty_camera_is_said_to_be_empty() -> None:
    async with SimulatedDock() as dock:
        dock.source.plug("1", body_camera("cam-1"))
        await dock.until_state("1", BayState.READY)
        assert dock.bay().visit.verdict is Verdict.EMPTY  # type: ignore[union-attr]
        assert not dock.store.requests


@virtual_time
async def test_a_store_that_is_down_for_a_day_is_waited_for() -> None:
    """INV-3: nobody has to do anything, and nothing is wiped meanwhile."""
    async with SimulatedDock(("1", "2")) as dock:
        dock.store.down = True
        cameras = [body_camera("cam-1", 10, 9_000), body_camera("cam-2", 7_000)]
        for bay, camera in zip("12", cameras, strict=True):
            dock.source.plug(bay, camera)
        with pytest.raises(TimeoutError):
            await dock.until_state("1", BayState.READY, within_s=DAY_S, every_s=60)
        assert dock.bay("1").state is BayState.INGESTING
        for status in dock.dock.status()["bays"]:  # type: ignore[attr-defined]
            assert "waiting: the store is down" in status["reason"]
        assert len(cameras[0].files) == 2
        assert len(dock.store.requests) < 20_000
        dock.store.down = False
        await dock.until_state("1", BayState.READY, within_s=600)
        await dock.until_state("2", BayState.READY, within_s=600)
        assert dock.bay("1").explanation is None


PASSING: list[TargetError] = [
    TargetUnavailableError("503", status=503, retry_after_s=7),
    TargetFullError("507", status=507),
    TargetFaultError("500", status=500),
    AdministrativeRefusalError("403", status=403),
]


@pytest.mark.parametrize("verb", ["create", "offset", "append", "receipt"])
@pytest.mark.parametrize("error", PASSING, ids=str)
def test_faults_that_pass_cost_only_time(verb: str, error: TargetError) -> None:
    """INV-3."""

    @virtual_time
    async def run() -> None:
        async with SimulatedDock() as dock:
            dock.store.fail_next(verb, error, times=5)
            camera = body_camera("cam-1", 10, 9_000)
            docked = bytes_of(camera.files)
            dock.source.plug("1", camera)
            await dock.until_state("1", BayState.READY)
            assert {spec.path: data for spec, data in dock.store.held()} == docked

    run()


@virtual_time
async def test_a_recording_that_the_store_refuses_is_set_aside_and_stops_the_wipe() -> None:
    """INV-1, INV-2: the others are confirmed, nothing is erased, and the bay says why."""
    async with SimulatedDock() as dock:
        dock.store.fail_next("append", TargetRefusedError("413 too large", status=413))
        camera = body_camera("cam-1", 10, 9_000, 20)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.ATTENTION)
        states = {r.path[-8:-4]: r.state for r in dock.bay().recordings.by_path.values()}  # type: ignore[union-attr]
        assert states[b"0002"] is RecordingState.QUARANTINED
        assert states[b"0001"] is states[b"0003"] is RecordingState.CONFIRMED
        assert "413 too large" in (dock.bay().reason or "")
        assert len(camera.files) == 3
        await dock.until_state("1", BayState.READY, within_s=2_000)
        assert camera.files == {}


@virtual_time
async def test_an_unreadable_recording_stops_the_wipe_and_not_the_others() -> None:
    """INV-1, INV-2."""
    async with SimulatedDock() as dock:
        camera = body_camera("cam-1", 10, 9_000)
        camera.record(b"DCIM/BAD.MP4", Generated(9_000), fails_at=4_096)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.ATTENTION)
        assert len(dock.store.held()) == 2
        assert len(camera.files) == 3
        assert "Input/output error" in (dock.bay().reason or "")
        assert dock.bay().recordings.quarantined[0].path == b"DCIM/BAD.MP4"  # type: ignore[union-attr]


@virtual_time
async def test_a_camera_pulled_while_it_is_read_is_not_taken_for_an_unreadable_one() -> None:
    """INV-2: the kernel reports read errors before it reports that the device is gone."""
    async with SimulatedDock() as dock:
        camera = body_camera("cam-1", 10_000, 20_000, 30)
        dock.source.on_read = partial(_pulled_by_and_by, dock)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.INGESTING, every_s=0)
        await dock.until_state("1", BayState.EMPTY)
        happened = await check_custody(dock)
        assert "recording.quarantined" not in happened
        assert await _verdicts(dock) == ["interrupted"]


@virtual_time
async def test_a_camera_pulled_while_it_is_erased_is_not_taken_for_an_unreadable_one() -> None:
    """INV-3: an interrupted wipe is no reason to send for a person, and is finished later."""
    async with SimulatedDock() as dock:
        camera = body_camera("cam-1", 10_000)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.SEALING, every_s=0)
        camera.unreadable = True
        await dock.until_state("1", BayState.WIPING, every_s=0)
        await asyncio.sleep(0.5)
        dock.source.unplug("1")
        await dock.until_state("1", BayState.EMPTY)
        assert await _verdicts(dock) == ["interrupted"]
        camera.unreadable = False
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        assert camera.files == {}


def _pulled_by_and_by(dock: SimulatedDock, presence: Presence, _: int) -> None:
    asyncio.get_running_loop().call_later(0.5, dock.source.unplug, presence.bay)
    raise CameraUnreadableError("Input/output error")


async def _verdicts(dock: SimulatedDock) -> list[object]:
    said = [json.loads(json.dumps(content(entry))) for entry in await dock.entries()]
    return [one["details"]["verdict"] for one in said if one["event"] == "visit.finished"]


@virtual_time
async def test_a_link_on_the_camera_is_named_on_the_manifest_and_stops_nothing() -> None:
    """INV-2."""
    async with SimulatedDock() as dock:
        camera = body_camera("cam-1", 10)
        camera.skipped.append(SkippedEntry(b"link", SkipReason.SYMLINK))
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)


@pytest.mark.parametrize("size_bytes", [3_000, 50_000])
def test_a_recording_that_changes_while_it_is_read_is_read_again(size_bytes: int) -> None:
    """INV-1: what the store holds in the end is what is on the camera in the end."""

    @virtual_time
    async def run() -> None:
        async with SimulatedDock(wipe=WipeConfig(when="never")) as dock:
            camera = body_camera("cam-1")
            camera.record(
                b"a.mp4", Generated(size_bytes, 1), changes_at=2_000, changed_content=b"new" * 2_000
            )
            dock.source.plug("1", camera)
            await dock.until_state("1", BayState.READY)
            manifest = dock.bay().visit.manifest_receipt  # type: ignore[union-attr]
            assert manifest is not None
            recording = dock.bay().recordings.by_path[b"a.mp4"]  # type: ignore[union-attr]
            assert dock.store.objects[recording.sha256 or ""] == b"new" * 2_000

    run()


@virtual_time
async def test_a_recording_that_never_holds_still_is_set_aside() -> None:
    """INV-2."""
    async with SimulatedDock() as dock:
        camera = body_camera("cam-1")
        file = camera.record(b"a.mp4", Generated(9_000, 1))

        def meddle(*_: object) -> None:
            file.mtime_ns = file.ctime_ns = camera.tick()

        dock.source.on_read = meddle
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.ATTENTION)
        assert "changed while it was read" in (dock.bay().reason or "") or "listed" in (
            dock.bay().reason or ""
        )
        assert camera.files
        dock.source.on_read = lambda *_: None
        await dock.until_state("1", BayState.READY)


@virtual_time
async def test_files_still_being_written_are_waited_for() -> None:
    async with SimulatedDock(wipe=WipeConfig(when="never")) as dock:
        camera = body_camera("cam-1", 10)
        late = camera.record(b"late.mp4", b"half", settled=False)
        dock.source.plug("1", camera)
        await dock.until(lambda: len(dock.store.held()) == 1)
        await dock.until_state("1", BayState.SCANNING)
        late.content, late.settled, late.mtime_ns = b"whole", True, camera.tick()
        await dock.until_state("1", BayState.READY)
        assert {data for spec, data in dock.store.held() if spec.path == b"late.mp4"} == {b"whole"}


@virtual_time
async def test_a_file_that_appears_during_the_hold_is_ingested_before_the_wipe() -> None:
    """INV-1: the fresh listing before the wipe finds what came later."""
    async with SimulatedDock(wipe=WipeConfig(hold_s=600)) as dock:
        camera = body_camera("cam-1", 10)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.HOLDING)
        camera.record(b"late.mp4", b"late footage")
        await dock.until_state("1", BayState.READY)
        assert b"late footage" in {data for _, data in dock.store.held()}


@virtual_time
async def test_a_file_whose_bytes_changed_behind_its_stat_is_ingested_again() -> None:
    """INV-1: same name, size and time, other bytes: the fresh digest tells, and both are kept."""
    async with SimulatedDock(wipe=WipeConfig(hold_s=600)) as dock:
        camera = body_camera("cam-1", 9_000)
        (file,) = camera.files.values()
        old = b"".join(file.chunks())
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.HOLDING)
        file.content = bytes(reversed(old))
        await dock.until_state("1", BayState.READY)
        assert {data for _, data in dock.store.held()} == {old, bytes(reversed(old))}
        assert camera.files == {}


@virtual_time
async def test_a_camera_that_counts_from_one_again_loses_nothing() -> None:
    """INV-1: after a wipe, the next clip has the same name, size and even time."""
    async with SimulatedDock() as dock:
        contents = [bytes([number]) * 9_000 for number in range(3)]
        for content_ in contents:
            camera = body_camera("cam-1")
            camera.record(b"MOV_0001.MP4", content_, mtime_ns=5)
            dock.source.plug("1", camera)
            await dock.until_state("1", BayState.READY)
            dock.source.unplug("1")
            await dock.until_state("1", BayState.EMPTY)
        assert {data for _, data in dock.store.held()} == set(contents)


@virtual_time
async def test_two_cameras_with_one_id_are_never_mixed_up() -> None:
    """A clash of ids is refused and shown; the camera at work is not disturbed."""
    async with SimulatedDock(("1", "2"), wipe=WipeConfig(hold_s=300)) as dock:
        first, second = body_camera("cam-1", 5_000), body_camera("cam-1", 5_000, seed=2)
        dock.source.plug("1", first)
        await dock.until_state("1", BayState.HOLDING)
        dock.source.plug("2", second)
        await dock.until_state("2", BayState.REFUSED)
        assert "clash" in (dock.bay("2").reason or "")
        await dock.until_state("1", BayState.READY)
        dock.source.unplug("1")
        await dock.until_state("2", BayState.READY)
        assert second.files == {}
        assert len(dock.store.held()) == 2


@virtual_time
async def test_a_second_camera_in_a_bay_waits_for_the_first_to_go() -> None:
    async with SimulatedDock(latency_s=2) as dock:
        first, second = body_camera("cam-1", 5_000), body_camera("cam-2", 5_000)
        dock.source.plug("1", first)
        await dock.until_state("1", BayState.INGESTING)
        dock.source.plug("1", second)
        await dock.until_state("1", BayState.READY)
        assert first.files == {}
        assert second.files
        status = dock.dock.status()["bays"]
        assert status[0]["crowded_by"] == ["cam-2"]  # type: ignore[index]


@virtual_time
async def test_footage_dropped_on_a_ready_camera_begins_a_new_visit() -> None:
    async with SimulatedDock(watches_when_ready=True) as dock:
        camera = body_camera("cam-1", 10)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        camera.record(b"next.mp4", b"next shift")
        await dock.until(lambda: len(dock.store.held()) == 2)
        await dock.until_state("1", BayState.READY)
        assert camera.files == {}
        assert (await check_custody(dock)).count("visit.finished") == 2


@pytest.mark.parametrize("hours", [0, 30])
def test_a_camera_pulled_in_mid_upload_goes_on_where_it_was(hours: int) -> None:
    """INV-3: no byte that the store acknowledged is sent again by a later visit."""

    @virtual_time
    async def run() -> None:
        async with SimulatedDock() as dock:
            camera = body_camera("cam-1", 3_000_000)
            docked = bytes_of(camera.files)
            (file,) = camera.files.values()
            file.vanishes_at = 2_500_000
            dock.source.plug("1", camera)
            await dock.until(lambda: file.vanishes_at is None)
            await dock.until_state("1", BayState.EMPTY)
            await asyncio.sleep(hours * 3_600)
            dock.source.plug("1", camera)
            await dock.until_state("1", BayState.READY)
            assert {spec.path: data for spec, data in dock.store.held()} == docked
            assert dock.store.requests.count("create") == 2
            assert dock.bay().recordings.by_path[b"DCIM/MOV_0001.MP4"].resent_bytes == 0  # type: ignore[union-attr]

    run()


@virtual_time
async def test_a_wipe_cut_short_by_an_unplug_is_finished_at_the_next_docking() -> None:
    """INV-1, INV-3: each file that is left is proved again, and nothing is uploaded twice."""
    async with SimulatedDock() as dock:
        camera = body_camera("cam-1", 10, 20, 30, 40)
        camera.vanishes_after_erasing = 2
        dock.source.plug("1", camera)
        await dock.until(lambda: len(camera.files) == 2)
        await dock.until_state("1", BayState.EMPTY)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        assert camera.files == {}
        assert len(dock.store.held()) == 4


@virtual_time
async def test_losing_the_journal_costs_reading_and_nothing_else() -> None:
    """INV-1, INV-3: everything is checked with the store anew; nothing is uploaded twice."""
    async with SimulatedDock(wipe=WipeConfig(hold_s=600)) as dock:
        camera = body_camera("cam-1", 10, 9_000)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.HOLDING)
        await dock.lose_power()
        dock.database.__init__()  # type: ignore[misc]
        await dock.start()
        await dock.until_state("1", BayState.READY)
        assert camera.files == {}
        assert len(dock.store.held()) == 2


@virtual_time
async def test_a_store_that_lost_a_recording_gets_it_again_before_any_wipe() -> None:
    """INV-1: the manifest's receipt is refused while a file is missing."""
    async with SimulatedDock() as dock:
        camera = body_camera("cam-1", 10, 9_000)

        def lose_one(_: object) -> None:
            """Both recordings have their receipts; before the manifest arrives, one is gone."""
            victim = next(up for up in dock.store.uploads.values() if up.spec.size_bytes == 9_000)
            del dock.store.objects[hashlib.sha256(victim.data).hexdigest()]
            dock.store.forget(victim.url)
            raise TargetUnavailableError("the answer was lost")

        await dock.until(lambda: bool(dock.dock.bays))
        dock.source.plug("1", camera)
        await dock.until(lambda: len(dock.store.held()) == 2, every_s=0.001)
        dock.store.alter_next("create", lose_one)
        await dock.until_state("1", BayState.READY)
        assert camera.files == {}
        assert {len(data) for _, data in dock.store.held()} == {10, 9_000}


@virtual_time
async def test_the_disk_of_the_dock_being_full_is_waited_out() -> None:
    """INV-3: every write of a visit meets a full disk in turn; the visit still ends well."""
    async with SimulatedDock() as dock:
        dock.source.plug("1", body_camera("cam-1", 10, 9_000))
        await dock.until_state("1", BayState.READY)
        writes = dock.database.writes
    for number in range(2, writes + 1):
        async with SimulatedDock() as dock:
            dock.database.full = set(range(number, number + 3))
            camera = body_camera("cam-1", 10, 9_000)
            dock.source.plug("1", camera)
            await dock.until_state("1", BayState.READY)
            assert camera.files == {}, number
            assert len(dock.store.held()) == 2
            happened = await check_custody(dock)
            assert happened.count("visit.finished") == 1
