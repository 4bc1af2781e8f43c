"""Media that are damaged, hostile or just odd: each ends in a state whose reason says what to do, all that
can be read is safe, and the other bays carry on. What the file systems themselves do is tested lower
down, in tests/cameras, and with real images in tests/e2e.
"""

import pytest

from dockd.core.lifecycle import BayState
from dockd.core.model import SkippedEntry, SkipReason
from tests.simulated.cameras import SimulatedCamera
from tests.simulated.clock import virtual_time
from tests.simulated.dock import SimulatedDock, body_camera

HIDING = {
    SkipReason.UNREADABLE: "recover by hand",
    SkipReason.TOO_DEEP: "raise max_depth",
    SkipReason.TOO_MANY: "raise max_files",
    SkipReason.OTHER_FILE_SYSTEM: "mounted there",
}


def test_those_are_all_that_hide_footage() -> None:
    assert set(HIDING) == {reason for reason in SkipReason if reason.hides_footage}


@pytest.mark.parametrize("reason", HIDING)
def test_what_cannot_be_looked_into_needs_a_person_who_is_told_what_to_do(
    reason: SkipReason,
) -> None:
    """INV-2, INV-8: all else is copied, nothing is erased, and the other bay becomes ready."""

    @virtual_time
    async def run() -> None:
        async with SimulatedDock(("1", "2")) as dock:
            camera = body_camera("cam-1", 10, 5_000)
            camera.skipped.append(SkippedEntry(b"DCIM/\xff", reason, "over 3"))
            camera.skipped.append(SkippedEntry(b"link", SkipReason.SYMLINK))
            dock.source.plug("1", camera)
            other = body_camera("cam-2", 10)
            dock.source.plug("2", other)
            await dock.until_state("1", BayState.ATTENTION)
            words = dock.bay("1").explanation or ""
            assert words.startswith("1 entries could not be looked into, first DCIM/\\xff (")
            assert "over 3" in words
            assert "nothing is erased" in words
            assert HIDING[reason] in words
            await dock.until_state("2", BayState.READY)
            assert other.files == {}
            assert len(camera.files) == 2
            held = [spec.path for spec, _ in dock.store.held() if spec.camera == "cam-1"]
            assert sorted(held) == sorted(camera.files)

    run()


@virtual_time
async def test_a_medium_that_cannot_even_be_opened_needs_a_person_and_is_tried_again() -> None:
    """INV-2, INV-7: what was mended is noticed without a restart."""
    async with SimulatedDock(("1", "2")) as dock:
        camera = body_camera("cam-1", 10)
        camera.unreadable = True
        dock.source.plug("1", camera)
        dock.source.plug("2", body_camera("cam-2", 10))
        await dock.until_state("1", BayState.ATTENTION)
        assert "recover the medium by hand" in (dock.bay("1").explanation or "")
        await dock.until_state("2", BayState.READY)
        camera.unreadable = False
        await dock.until_state("1", BayState.READY)
        assert camera.files == {}


@virtual_time
async def test_names_of_every_byte_arrive_as_they_are() -> None:
    """INV-2: a name is what the camera says, whatever it is to people."""
    async with SimulatedDock() as dock:
        camera = SimulatedCamera("cam-1")
        every = bytes(byte for byte in range(1, 256) if byte not in b"./")
        names = [every[start : start + 64] for start in range(0, len(every), 64)]
        for name in (*names, b"D\xff/\n"):
            camera.record(name, b"in " + name)
        dock.source.plug("1", camera)
        await dock.until_state("1", BayState.READY)
        assert camera.files == {}
        held = {spec.path: data for spec, data in dock.store.held()}
        assert held == {path: b"in " + path for path in held}
        assert len(held) == len(names) + 1
