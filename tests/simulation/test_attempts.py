"""The journal of attempts, of a whole dock on virtual time."""

import asyncio

from dockd.config import UploadConfig
from dockd.core.errors import TargetUnavailableError
from dockd.core.lifecycle import BayState
from dockd.core.model import UploadAttempt
from dockd.journal import schema
from dockd.target.tally import CHECKPOINT_S
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera
from tests.target.dock_side import events_named, logged

PATH = b"DCIM/MOV_0001.MP4"


async def attempts(dock: SimulatedDock) -> list[UploadAttempt]:
    rows = await dock.database.read(
        lambda connection: connection.execute(schema.ATTEMPTS).fetchall()
    )
    return [schema.attempt_from(row) for row in rows]


@virtual_time
async def test_each_attempt_is_kept_with_what_it_cost() -> None:
    async with SimulatedDock(latency_s=0.1) as dock:
        dock.store.cut_append(20_000)
        dock.store.fail_next("offset", TargetUnavailableError("503", status=503))
        with logged() as lines:
            dock.source.plug("1", body_camera("cam-1", 50_000))
            await dock.until_state("1", BayState.READY)
        first, second, third = await attempts(dock)
        assert [each.number for each in (first, second, third)] == [1, 2, 3]
        assert (first.offset_from, first.error) == (0, "the connection was cut")
        assert first.offset_to == first.sent_bytes >= 20_000
        assert (second.offset_from, second.sent_bytes, second.error) == (None, 0, "503")
        assert (third.offset_from, third.offset_to, third.error) == (20_000, 50_000, None)
        assert third.sent_bytes == 30_000
        assert third.resent_bytes == first.offset_to - 20_000
        assert first.begun_at < first.ended_at < second.ended_at < third.ended_at  # type: ignore[operator]
        (summary,) = events_named(lines, "visit.finished")
        assert (summary["attempts"], summary["retries"]) == (3, 2)
        assert summary["resent_bytes"] == third.resent_bytes


@virtual_time
async def test_what_a_daemon_had_sent_that_lost_power_counts_too() -> None:
    """INV-3: as far as can be known, which is to the last checkpoint."""
    async with SimulatedDock() as dock:
        dock.config = dock.config.model_copy(update={"upload": UploadConfig(rate_mbit_s=1.0)})
        dock.source.plug("1", body_camera("cam-1", 8_000_000))
        await asyncio.sleep(25)
        (under_way,) = await attempts(dock)
        assert under_way.ended_at is None
        assert under_way.offset_to >= (25 - CHECKPOINT_S - 5) * 125_000
        (upload,) = dock.store.uploads.values()
        dock.store.lose_bytes(upload.url, len(upload.data) - 1_000_000)
        with logged() as lines:
            await dock.restart()
            await dock.until_state("1", BayState.READY)
        cut_short, sent = await attempts(dock)
        assert cut_short == under_way
        assert (sent.number, sent.offset_from, sent.offset_to) == (2, 1_000_000, 8_000_000)
        assert sent.resent_bytes == under_way.offset_to - 1_000_000
        (summary,) = events_named(lines, "visit.finished")
        assert (summary["attempts"], summary["retries"]) == (2, 1)
        assert summary["resent_bytes"] == sent.resent_bytes


@virtual_time
async def test_a_camera_that_was_pulled_and_comes_back_has_not_forgotten_what_was_sent() -> None:
    async with SimulatedDock() as dock:
        dock.config = dock.config.model_copy(update={"upload": UploadConfig(rate_mbit_s=1.0)})
        camera = body_camera("cam-1", 8_000_000)
        dock.source.plug("1", camera)
        await asyncio.sleep(25)
        with logged() as lines:
            dock.source.unplug("1")
            await dock.until_state("1", BayState.EMPTY)
        (summary,) = events_named(lines, "visit.finished")
        assert (summary["attempts"], summary["resent_bytes"]) == (1, 0)
        (upload,) = dock.store.uploads.values()
        dock.store.lose_bytes(upload.url, len(upload.data))
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        recording = dock.bay().recordings.by_path[PATH]  # type: ignore[union-attr]
        assert recording.resent_bytes > 1_000_000


@virtual_time
async def test_a_long_outage_leaves_a_bounded_journal() -> None:
    async with SimulatedDock() as dock:
        dock.store.down = True
        dock.source.plug("1", body_camera("cam-1", 5000, 5000))
        await asyncio.sleep(86_400)
        kept = await attempts(dock)
        assert len(kept) <= 2 * (schema.FIRST_ATTEMPTS + schema.LAST_ATTEMPTS)
        assert max(each.number for each in kept) > 1000
        dock.store.calm()
        await dock.until_state("1", BayState.READY)
