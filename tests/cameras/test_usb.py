"""Bays that are USB ports: who is present, from plug to pull, and what is asked of the helper."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dockd.cameras.directory import ListingLimits
from dockd.cameras.discovery import UsbDevice
from dockd.cameras.profiles import Profile
from dockd.cameras.usb import RETURN_S, STARTING_S, UsbSource
from dockd.core.errors import CameraGoneError, CameraUnreadableError, HelperUnavailableError
from dockd.core.interfaces import CameraSource, ShouldStop
from dockd.core.model import (
    Camera,
    ChargeStatus,
    EndedWipe,
    IdentifiedBy,
    Power,
    Presence,
    WipeReport,
    WipeRequest,
)
from dockd.core.timestamps import from_rfc3339
from dockd.core.wipe_gate import WipeRefused
from tests.simulated.proofs import ManualClock
from tests.simulated.usb import (
    DEVICE,
    DISK,
    VOLUME,
    data_off,
    profile,
    starting,
    with_volumes,
)

CAMERA = Camera("0603:8611:BWC0012345", IdentifiedBy.SERIAL)
BY_UUID = Camera("0603:8611:1A2B-3C4D", IdentifiedBy.MEDIA_ID)


@dataclass
class FakeHelper:
    """Does as it is told, and notes what it was asked."""

    root: Path | None = None
    owner: Camera | None = None
    away: bool = False
    ended: Sequence[EndedWipe] = ()
    switch: Power = Power.OFF
    powered: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    answered: threading.Event = field(default_factory=threading.Event)
    may_answer: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    def open_volume(self, bay: str, camera: str) -> int:
        self.asked.append(("open", bay, camera))
        assert self.root is not None
        return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)

    def wipe(
        self, bay: str, request: WipeRequest, should_stop: ShouldStop
    ) -> WipeReport | WipeRefused:
        self.asked.append(("wipe", bay, request.visit_id))
        return WipeRefused(())

    def charge(self, bay: str) -> ChargeStatus:
        self.asked.append(("charge", bay))
        return ChargeStatus(Power.ON)

    def ended_wipes(self) -> Sequence[EndedWipe]:
        return self.ended

    def acknowledge(self, visit_id: str) -> None:
        if self.away:
            raise HelperUnavailableError("away")
        self.asked.append(("acknowledge", visit_id))

    def power(self, bay: str, action: str) -> Power:
        if self.away:
            raise HelperUnavailableError("away")
        self.powered.append((bay, action))
        return self.switch if action == "off" else Power.ON

    def unfinished(self, bay: str) -> Camera | None:
        self.asked.append(("unfinished", bay))
        self.may_answer.wait(5)
        try:
            if self.away:
                raise HelperUnavailableError("away")
            return self.owner
        finally:
            self.answered.set()


class Dock:
    """A source with two bays over devices that a test puts in and takes out."""

    def __init__(
        self,
        *profiles: Profile,
        remembered: dict[str, Camera] | None = None,
        flagged: Sequence[str] = (),
    ) -> None:
        self.plugged: list[UsbDevice] = []
        self.helper = FakeHelper()
        self.clock = ManualClock()
        self.source = UsbSource(
            {"left": "1-1", "right": "1-2"},
            self.helper,
            profiles or (profile(),),
            self.clock,
            look=lambda: self.plugged,
            limits=ListingLimits(),
            remembered=remembered,
            flagged=flagged,
        )

    def look(self, *devices: UsbDevice) -> Presence | None:
        """Plug exactly these in, and return who is in the left bay."""
        self.plugged = list(devices)
        (presence,) = [*self.source.enumerate_cameras()["left"], None][:1]
        return presence

    def settle(self) -> None:
        self.clock.pass_time(STARTING_S)


def test_it_is_a_source_of_cameras() -> None:
    source: CameraSource = Dock().source
    assert source.bays == ("left", "right")
    assert not source.watches_when_ready


def test_a_camera_is_present_in_the_bay_of_its_port() -> None:
    dock = Dock()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert dock.look(DEVICE) == Presence("left", CAMERA, f"usb:1-1/4/{boot_id}")
    assert dock.look() is None
    dock.plugged = [replace(DEVICE, port="1-2")]
    seen = dock.source.enumerate_cameras()
    assert [one.bay for one in seen["right"]] == ["right"]
    assert seen["left"] == []


def test_a_camera_put_back_unseen_is_another_stay() -> None:
    """INV-2: what was recorded in between must be taken in."""
    dock = Dock()
    first, second = dock.look(DEVICE), dock.look(replace(DEVICE, devnum=5))
    assert first is not None
    assert second is not None
    assert first.camera == second.camera
    assert first.where != second.where


# A device that is still starting


def test_a_starting_camera_is_not_there_until_its_storage_is() -> None:
    dock = Dock()
    assert dock.look(starting()) is None
    dock.clock.pass_time(STARTING_S / 2)
    assert dock.look(starting()) is None
    presence = dock.look(DEVICE)
    assert presence is not None
    assert presence.refusal is None


def test_a_camera_whose_storage_never_comes_is_refused_with_advice() -> None:
    """INV-2: docked, but nothing there, is shown and not waited out in silence."""
    dock = Dock()
    dock.look(starting())
    dock.settle()
    presence = dock.look(starting())
    assert presence is not None
    assert presence.refusal == "docked, but no storage appeared: check the cable and the card"
    late = dock.look(DEVICE)
    assert late is not None
    assert late.refusal is None


def test_a_camera_that_shows_another_device_first_is_present_when_it_is_itself() -> None:
    dock = Dock()
    first = replace(starting(), product="0001", interface_classes=frozenset({0xFF}))
    assert dock.look(first) is None
    presence = dock.look(replace(DEVICE, devnum=5))
    assert presence is not None
    assert (presence.camera, presence.refusal) == (CAMERA, None)


# Who it is holds for the stay


@pytest.mark.parametrize(
    "less",
    [data_off(), starting(), with_volumes(), replace(DEVICE, complete=False, tagged=False)],
    ids=["data off", "storage away", "being formatted", "udev at work"],
)
def test_a_camera_that_shows_less_of_itself_stays_who_it_is(less: UsbDevice) -> None:
    """INV-3: formatting and charging must not look like pulling the camera."""
    dock = Dock(profile(identity={"from": "uuid"}))
    before = dock.look(DEVICE)
    dock.settle()
    assert before is not None
    assert before.camera == BY_UUID
    assert dock.look(less) == before
    assert dock.look(DEVICE) == before


def test_another_card_in_the_same_reader_is_another_camera() -> None:
    dock = Dock(profile(identity={"from": "uuid"}))
    dock.look(DEVICE)
    swapped = dock.look(with_volumes(replace(VOLUME, uuid="FFFF-0000")))
    assert swapped is not None
    assert swapped.camera.camera_id == "0603:8611:FFFF-0000"
    empty = dock.look(replace(DEVICE, disks=(replace(DISK, size_bytes=0, volumes=()),)))
    assert empty is not None
    assert empty.refusal is not None
    assert "no card" in empty.refusal


def test_a_camera_that_turns_into_a_keyboard_is_refused_at_once() -> None:
    dock = Dock()
    dock.look(DEVICE)
    presence = dock.look(replace(DEVICE, interface_classes=frozenset({3, 8})))
    assert presence is not None
    assert presence.refusal is not None


def test_after_a_restart_a_charging_camera_is_still_the_one_of_its_visit() -> None:
    """Its data is off, so it cannot say who it is; its visit in the journal can."""
    before = Dock(profile(identity={"from": "uuid"})).look(DEVICE)
    assert before is not None
    after = Dock(profile(identity={"from": "uuid"}), remembered={before.where: before.camera})
    assert after.look(data_off()) == before
    stranger = after.look(data_off(replace(DEVICE, devnum=9)))
    assert stranger is not None
    assert stranger.refusal is not None
    assert "data is switched off" in stranger.refusal


def test_a_twin_that_comes_later_is_refused_and_the_first_goes_on() -> None:
    """INV-8: one bay never hurts another."""
    dock = Dock()
    first = dock.look(DEVICE)
    twin = replace(DEVICE, port="1-2", devnum=7)
    assert dock.look(DEVICE, twin) == first
    (second,) = dock.source.enumerate_cameras()["right"]
    assert second.refusal is not None
    assert "another camera with the same id" in second.refusal


def test_twins_that_come_together_are_both_refused() -> None:
    presence = Dock().look(DEVICE, replace(DEVICE, port="1-2", devnum=7))
    assert presence is not None
    assert presence.refusal is not None


# An erasing that was cut short


def test_a_medium_without_file_system_may_be_one_whose_erasing_was_cut_short() -> None:
    """INV-3: after a power cut while formatting, the next docking finishes it."""
    dock = Dock()
    dock.helper.owner = CAMERA
    assert dock.look(with_volumes()) is None
    _wait_for_camera(dock)
    presence = dock.look(with_volumes())
    assert presence is not None
    assert (presence.camera, presence.refusal) == (CAMERA, None)
    assert dock.helper.asked == [("unfinished", "left")]


def test_nothing_is_said_of_a_medium_before_the_helper_knows_whose_it_is() -> None:
    """INV-3: nobody is sent for because a wipe was cut short; a helper that is away is another matter."""
    dock = Dock()
    dock.helper.may_answer.clear()
    dock.helper.away = True
    assert dock.look(with_volumes()) is None
    dock.clock.pass_time(STARTING_S)
    assert dock.look(with_volumes()) is None
    dock.helper.may_answer.set()
    _wait_for_camera(dock)
    for _ in range(3):
        presence = dock.look(with_volumes())
        assert presence is not None
        assert presence.refusal is not None


def _wait_for_camera(dock: Dock) -> None:
    for thread in threading.enumerate():
        if thread.name == "unfinished-left":
            thread.join(5)
    assert dock.helper.answered.wait(5)


def test_a_damaged_medium_that_nobody_erased_stays_refused() -> None:
    """INV-1, INV-2: what cannot be read is no empty camera."""
    dock = Dock()
    dock.look(with_volumes())
    _wait_for_camera(dock)
    presence = dock.look(with_volumes())
    assert presence is not None
    assert presence.refusal is not None
    assert "no file system was recognised" in presence.refusal
    assert dock.helper.asked == [("unfinished", "left")]


def test_the_helper_is_asked_again_when_it_was_away() -> None:
    dock = Dock()
    dock.helper.away = True
    dock.look(with_volumes())
    _wait_for_camera(dock)
    dock.helper.away, dock.helper.owner = False, CAMERA
    dock.helper.answered.clear()
    dock.look(with_volumes())
    _wait_for_camera(dock)
    presence = dock.look(with_volumes())
    assert presence is not None
    assert presence.camera == CAMERA


# What is worth a line in the log


def test_storage_at_a_port_that_is_no_bay_is_told_once_and_left_alone() -> None:
    dock = Dock()
    stick = replace(DEVICE, port="1-4", vendor="0781", product="5567", tagged=False)
    keyboard = replace(DEVICE, port="1-5", interface_classes=frozenset({3}), disks=(), tagged=False)
    with capture_logs() as lines:
        assert dock.look(stick, keyboard) is None
        dock.look(stick, keyboard)
        dock.look(keyboard)
        dock.look(replace(stick, devnum=8))
    assert [(line["event"], line["port"], line["vendor"]) for line in lines] == [
        ("usb.elsewhere", "1-4", "0781"),
        ("usb.elsewhere", "1-4", "0781"),
    ]


def test_a_slow_connection_is_told_once() -> None:
    dock = Dock()
    with capture_logs() as lines:
        dock.look(replace(DEVICE, speed_mbps=12.0))
        dock.look(replace(DEVICE, speed_mbps=12.0))
    (line,) = lines
    assert line["event"] == "usb.slow"
    assert (line["bay"], line["camera"], line["speed_mbps"]) == ("left", CAMERA.camera_id, 12.0)


# What the helper does


def test_an_opened_camera_is_read_as_its_profile_says(tmp_path: Path) -> None:
    for name in ("DCIM/CLIP1.MP4", "DCIM/RO/CLIP2.MP4", "DCIM/SOS/CLIP3.MP4", "CONFIG.TXT"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    footage = {"roots": ["DCIM"], "flagged": ["*/ro/*"]}
    dock = Dock(profile(footage=footage, clock={"time_zone": "Europe/London"}), flagged=["*/sos/*"])
    dock.helper.root = tmp_path
    presence = dock.look(DEVICE)
    assert presence is not None
    volume = dock.source.open_camera(presence)
    try:
        listing = volume.list_files()
    finally:
        volume.close()
    assert dock.helper.asked == [("open", "left", CAMERA.camera_id)]
    assert {file.path for file in listing.files} == {
        b"DCIM/CLIP1.MP4", b"DCIM/RO/CLIP2.MP4", b"DCIM/SOS/CLIP3.MP4",
    }  # fmt: skip
    assert listing.flagged == {b"DCIM/RO/CLIP2.MP4", b"DCIM/SOS/CLIP3.MP4"}
    assert [entry.path for entry in listing.skipped] == [b"CONFIG.TXT"]
    assert listing.time_zone == "Europe/London"


@pytest.mark.parametrize(
    ("meanwhile", "error"),
    [([], CameraGoneError), ([replace(DEVICE, product="9999")], CameraUnreadableError)],
)
def test_a_camera_that_changes_while_it_is_opened_leaves_no_descriptor(
    tmp_path: Path, meanwhile: list[UsbDevice], error: type[Exception]
) -> None:
    dock = Dock()
    dock.helper.root = tmp_path
    presence = dock.look(DEVICE)
    assert presence is not None
    dock.look()
    dock.plugged = meanwhile
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(error):
        dock.source.open_camera(presence)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_wiping_and_charging_are_asked_of_the_helper() -> None:
    dock = Dock()
    presence = dock.look(DEVICE)
    assert presence is not None
    request = WipeRequest(presence, "v1", "m", "r", from_rfc3339("2031-01-01T00:00:00Z"))
    dock.source.wipe(request, lambda: False)
    assert dock.source.charge(presence) == ChargeStatus(Power.ON)
    assert dock.helper.asked == [("wipe", "left", "v1"), ("charge", "left")]


def test_what_the_helper_finished_is_heard_of_until_it_is_acknowledged() -> None:
    """INV-4: a helper that is away when it is told so only offers it once more."""
    dock = Dock()
    finished_at = from_rfc3339("2031-01-01T00:00:00Z")
    report = WipeReport("format", "erase", 1, 1, True, "compared", finished_at, resumed=True)
    dock.helper.ended = [EndedWipe("v1", CAMERA.camera_id, report)]
    assert dock.source.ended_wipes() == dock.helper.ended
    dock.helper.away = True
    with capture_logs() as lines:
        dock.source.acknowledge("v1")
    assert [line["event"] for line in lines] == ["wipe.unacknowledged"]
    dock.helper.away = False
    dock.source.acknowledge("v1")
    assert dock.helper.asked == [("acknowledge", "v1")]


def test_a_half_erased_camera_is_known_before_it_is_opened() -> None:
    dock = Dock()
    presence = dock.look(DEVICE)
    assert presence is not None
    assert not dock.source.is_half_erased(presence)
    dock.helper.owner = CAMERA
    assert dock.source.is_half_erased(presence)


# Power that is short


def resting() -> tuple[Dock, Presence]:
    """A dock with a camera whose port is switched off, as for one that waits for its turn to charge."""
    dock = Dock(profile(charge={"draw_ma": 700}))
    presence = dock.look(DEVICE)
    assert presence is not None
    assert presence.draw_ma == 700
    dock.helper.powered.clear()
    assert dock.source.rest(presence) is Power.OFF
    return dock, presence


def test_a_camera_without_power_stays_until_it_had_time_to_come_back() -> None:
    dock, presence = resting()
    assert dock.look() == presence
    dock.clock.pass_time(10 * RETURN_S)
    assert dock.look() == presence, "however long its turn takes to come"
    assert dock.source.charge(presence).power is Power.ON
    assert dock.helper.powered == [("left", "off"), ("left", "on")]
    assert dock.look() == presence
    assert dock.look(starting(replace(DEVICE, devnum=9))) == presence
    back = dock.look(replace(DEVICE, devnum=9))
    assert back is not None
    assert back.camera == presence.camera
    assert back.where != presence.where, (
        "nobody saw whether it was pulled: it is docked anew (INV-2)"
    )
    dock.source.charge(back)
    assert dock.helper.asked == [("charge", "left")]


def test_one_that_does_not_come_back_was_pulled() -> None:
    dock, presence = resting()
    dock.source.charge(presence)
    dock.clock.pass_time(RETURN_S + 1)
    assert dock.look() is None


def test_another_camera_in_its_place_is_seen_when_the_port_has_power() -> None:
    dock, presence = resting()
    dock.source.charge(presence)
    other = dock.look(replace(DEVICE, devnum=9, serial="BWC0099999"))
    assert other is not None
    assert other.camera != presence.camera


@pytest.mark.parametrize("switch", [Power.ON, Power.UNKNOWN])
def test_a_port_that_cannot_be_switched_is_not_taken_for_dark(switch: Power) -> None:
    """What a hub only claims: the device that it may have let go of is called back."""
    dock = Dock()
    presence = dock.look(DEVICE)
    assert presence is not None
    dock.helper.switch = switch
    dock.helper.powered.clear()
    assert dock.source.rest(presence) is switch
    assert (("left", "on") in dock.helper.powered) is (switch is Power.ON)
    assert dock.look() is None


def test_a_helper_that_is_away_changes_nothing_in_the_dark() -> None:
    dock, presence = resting()
    dock.helper.away = True
    for ask in (dock.source.rest, dock.source.charge):
        with pytest.raises(HelperUnavailableError):
            ask(presence)
    assert dock.look() == presence
    dock.helper.away = False
    dock.source.charge(presence)
    assert dock.helper.powered[-1] == ("left", "on")


def lit(dock: Dock) -> list[tuple[str, str]]:
    for thread in threading.enumerate():
        if thread.name == "light":
            thread.join(5)
    return sorted(dock.helper.powered)


def test_bays_that_an_earlier_run_left_dark_get_power_once() -> None:
    """INV-3: the process may be killed while ports are off; a dark bay would never see a camera again."""
    dock = Dock()
    dock.helper.away = True
    dock.look(DEVICE)
    assert lit(dock) == []
    dock.helper.away = False
    dock.look(DEVICE)
    assert lit(dock) == [("right", "on")], "what is seen has power"
    dock.look(DEVICE)
    assert lit(dock) == [("right", "on")]
