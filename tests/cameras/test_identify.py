"""Who a device is, by tables: its profile, its id, and every reason to refuse it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.cameras.discovery import Disk, FileSystem, UsbDevice
from dockd.cameras.identify import (
    Identified,
    Refused,
    identify,
    identify_all,
    is_worthless_serial,
)
from dockd.cameras.profiles import Profile
from dockd.core.model import Camera, IdentifiedBy
from tests.simulated.usb import (
    DEVICE,
    DISK,
    VOLUME,
    data_off,
    profile,
    starting,
    with_volumes,
)

PROFILE = profile()
SHARED = "123456789ABC"


def refusal(device: UsbDevice, *profiles: Profile) -> Refused:
    found = identify(device, profiles or (PROFILE,))
    assert isinstance(found, Refused)
    return found


def identified(device: UsbDevice, *profiles: Profile) -> Identified:
    found = identify(device, profiles or (PROFILE,))
    assert isinstance(found, Identified), found
    return found


def test_an_ordinary_camera() -> None:
    assert identified(DEVICE) == Identified(
        PROFILE, Camera("0603:8611:BWC0012345", IdentifiedBy.SERIAL), DISK, VOLUME
    )


# The id, in tiers


@pytest.mark.parametrize(
    ("source", "serial", "label", "uuid", "mark", "identified_by"),
    [
        ("serial", "BWC7", "CAM", "1A2B-3C4D", "BWC7", IdentifiedBy.SERIAL),
        ("serial", SHARED, "CAM", "1A2B-3C4D", "1A2B-3C4D", IdentifiedBy.MEDIA_ID),
        ("serial", "", "CAM", "1A2B-3C4D", "1A2B-3C4D", IdentifiedBy.MEDIA_ID),
        ("label", "BWC7", "CAM", "1A2B-3C4D", "CAM", IdentifiedBy.LABEL),
        ("label", "BWC7", "", "1A2B-3C4D", "BWC7", IdentifiedBy.SERIAL),
        ("label", SHARED, "", "1A2B-3C4D", "1A2B-3C4D", IdentifiedBy.MEDIA_ID),
        ("uuid", "BWC7", "CAM", "1A2B-3C4D", "1A2B-3C4D", IdentifiedBy.MEDIA_ID),
        ("uuid", "BWC7", "CAM", "", "BWC7", IdentifiedBy.SERIAL),
        ("uuid", "BWC7", "CAM", "0000-0000", "BWC7", IdentifiedBy.SERIAL),
    ],
)
def test_the_first_mark_that_is_worth_anything_is_the_id(
    source: str, serial: str, label: str, uuid: str, mark: str, identified_by: IdentifiedBy
) -> None:
    device = with_volumes(
        replace(VOLUME, label=label, uuid=uuid), device=replace(DEVICE, serial=serial)
    )
    found = identified(device, profile(identity={"from": source}))
    assert found.camera == Camera(f"0603:8611:{mark}", identified_by)


def test_without_any_mark_a_camera_is_refused() -> None:
    """INV-1: footage of two cameras must never be taken for that of one."""
    device = with_volumes(replace(VOLUME, uuid=""), device=replace(DEVICE, serial=SHARED))
    found = refusal(device)
    assert "tells this camera from another one" in found.words
    assert found.camera == Camera("0603:8611:port-1-1", IdentifiedBy.PORT)


@pytest.mark.parametrize(
    "serial",
    ["", SHARED, "123456789abc", "0123456789ABCDEF", "0123456789", "1234567890", "000000000000",
     "FFFFFFFF", "966110000000100", "-", "ABCDEF"],
)  # fmt: skip
def test_serial_numbers_that_devices_share_are_worth_nothing(serial: str) -> None:
    assert is_worthless_serial(serial)


@pytest.mark.parametrize("serial", ["BWC0012345", "00000001", "12345", "20060413092100000", "A1"])
def test_other_serial_numbers_are_believed(serial: str) -> None:
    assert not is_worthless_serial(serial)


# Two devices, one id


def test_two_devices_with_one_id_are_both_refused_and_say_where_the_other_is() -> None:
    """INV-8, and no footage of one camera under another's name."""
    twin = replace(DEVICE, port="1-2", devnum=5)
    stranger = replace(DEVICE, port="1-3", devnum=6, serial="BWC9")
    found = identify_all([DEVICE, twin, stranger], [PROFILE])
    first, second = found["1-1"], found["1-2"]
    assert isinstance(first, Refused)
    assert isinstance(second, Refused)
    assert "at USB port 1-2" in first.words
    assert "at USB port 1-1" in second.words
    assert isinstance(found["1-3"], Identified)


def test_the_camera_that_was_there_first_keeps_its_id() -> None:
    """INV-8: a twin that is docked later does not stop the work on the first."""
    twin = replace(DEVICE, port="1-2", devnum=5)
    found = identify_all([DEVICE, twin], [PROFILE], holding={"1-1"})
    assert isinstance(found["1-1"], Identified)
    assert isinstance(found["1-2"], Refused)


def test_one_serial_number_on_two_models_is_no_clash() -> None:
    other = replace(DEVICE, port="1-2", product="8612")
    found = identify_all([DEVICE, other], [PROFILE, profile("b", match={"vendor": "0603"})])
    assert all(isinstance(one, Identified) for one in found.values())


# Profiles


def test_the_most_exact_profile_is_the_one() -> None:
    by_vendor = profile("vendor", match={"vendor": "0603"})
    by_label = profile("label", match={"vendor": "0603", "product": "8611", "label": "CA*"})
    by_serial = profile("serial", match={"vendor": "0603", "product": "8611", "serial": "XX*"})
    anything = profile("any", match={})
    profiles = (anything, by_vendor, PROFILE, by_label, by_serial)
    assert identified(DEVICE, *profiles).profile.name == "label"
    assert identified(replace(DEVICE, serial="XX1"), *profiles[:3], by_serial).profile.name == (
        "serial"
    )
    assert identified(replace(DEVICE, product="0001"), *profiles).profile.name == "vendor"
    assert identified(replace(DEVICE, vendor="1b3f"), *profiles).profile.name == "any"


def test_two_profiles_that_fit_equally_well_are_a_mistake_to_be_mended() -> None:
    other = profile("other")
    assert refusal(DEVICE, PROFILE, other).words.startswith("the profiles camera and other fit")


def test_a_profile_that_is_off_knows_nothing() -> None:
    assert "no profile knows USB device 0603:8611 (NOVATEK NT96660)" in (
        refusal(DEVICE, profile(enabled=False)).words
    )


def test_a_profile_for_anything_is_for_storage_only() -> None:
    keyboard = replace(DEVICE, interface_classes=frozenset({3}), disks=())
    assert "no profile knows" in refusal(keyboard, profile(match={})).words


# What is refused


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({8, 3}, "keyboard, mouse or other input device"),
        ({8, 2, 10}, "modem or network"),
        ({8, 0xE0}, "wireless controller"),
        ({8, 0x42}, "class 0x42"),
    ],
)
def test_a_camera_that_is_more_than_a_camera_is_refused(classes: set[int], words: str) -> None:
    """A camera is hostile input: one with a keyboard may type."""
    assert words in refusal(replace(DEVICE, interface_classes=frozenset(classes))).words


def test_a_profile_may_allow_more_interfaces() -> None:
    both = replace(DEVICE, interface_classes=frozenset({8, 6}))
    allowing = profile(match={"vendor": "0603", "product": "8611", "interface_classes": [8, 6]})
    assert identified(both, allowing).profile is allowing


def test_a_device_that_udev_has_not_tagged_is_refused() -> None:
    """INV-5: without the rules others may mount it."""
    assert "udev rules do not know it" in refusal(replace(DEVICE, tagged=False)).words


def test_an_empty_card_reader_says_so() -> None:
    empty = replace(DEVICE, disks=(replace(DISK, size_bytes=0, volumes=(), partitions=0),))
    found = refusal(empty)
    assert "no card" in found.words
    assert not found.passing


def test_a_disk_without_any_file_system_is_left_for_a_person() -> None:
    """INV-2: a corrupt partition table hides footage, and is no empty camera."""
    assert "no file system was recognised" in refusal(with_volumes()).words


SYSTEM = FileSystem("/dev/sda1", "vfat", "SYSTEM", "0000-AAAA", 1)
FOOTAGE = FileSystem("/dev/sda2", "exfat", "FOOTAGE", "0000-BBBB", 2)


def test_several_file_systems_are_refused_by_name() -> None:
    found = refusal(with_volumes(SYSTEM, FOOTAGE))
    assert "cannot be told" in found.words
    assert "/dev/sda1 vfat 'SYSTEM', /dev/sda2 exfat 'FOOTAGE'" in found.words


@pytest.mark.parametrize("which", [{"partition": 2}, {"label": "FOOTAGE"}])
def test_the_profile_may_say_which_file_system_it_is(which: dict[str, object]) -> None:
    found = identified(with_volumes(SYSTEM, FOOTAGE), profile(file_system=which))
    assert found.file_system == FOOTAGE


def test_the_file_system_of_the_profile_must_be_there() -> None:
    found = refusal(with_volumes(SYSTEM), profile(file_system={"label": "FOOTAGE"}))
    assert "none of them is the one with footage (/dev/sda1 vfat 'SYSTEM')" in found.words


def test_two_cards_are_two_candidates() -> None:
    second = replace(DISK, node="/dev/sdb", volumes=(FOOTAGE,))
    assert "cannot be told" in refusal(replace(DEVICE, disks=(DISK, second))).words


def test_an_empty_second_slot_is_no_candidate() -> None:
    empty = replace(DISK, node="/dev/sdb", size_bytes=0, volumes=(), partitions=0)
    found = identified(replace(DEVICE, disks=(empty, DISK)))
    assert found.disk == DISK


def test_a_file_system_that_the_profile_does_not_allow_is_refused() -> None:
    """INV-5: mounting ext4 read-only may still write its journal."""
    ext4 = with_volumes(replace(VOLUME, type="ext4"))
    assert "its file system is ext4; profile camera allows vfat, exfat" in refusal(ext4).words
    allowing = profile(file_system={"allowed": ["ext4"]})
    assert identified(ext4, allowing).profile is allowing


# What comes and goes


def test_a_camera_that_is_starting_may_still_become_one() -> None:
    found = refusal(starting())
    assert found.passing
    assert found.words == "docked, but no storage appeared: check the cable and the card"


def test_a_label_may_still_appear() -> None:
    by_label = profile(match={"label": "CAM"})
    assert refusal(starting(), by_label).passing
    assert not refusal(with_volumes(replace(VOLUME, label="X")), by_label).passing


def test_with_its_data_off_a_camera_cannot_be_opened() -> None:
    found = refusal(data_off())
    assert "its data is switched off" in found.words
    assert found.camera.camera_id == "0603:8611:BWC0012345"
    assert "its data is switched off" in refusal(data_off(), profile(match={"label": "C"})).words


def test_a_camera_that_must_be_unlocked_is_known_before_it_shows_anything() -> None:
    locked = profile(prepare={"command": ["/usr/local/bin/unlock"]})
    for device in (
        replace(DEVICE, interface_classes=frozenset({8}), disks=(replace(DISK, volumes=()),)),
        replace(DEVICE, disks=(replace(DISK, size_bytes=0, volumes=()),)),
        replace(DEVICE, interface_classes=frozenset(), disks=()),
    ):
        found = identified(device, locked)
        assert (found.disk, found.file_system) == (None, None)
    assert identified(DEVICE, locked).file_system == VOLUME


# Whatever a card shows

words = st.text(max_size=8)
volumes = st.builds(
    FileSystem,
    node=st.just("/dev/sda1"),
    type=st.sampled_from(["vfat", "exfat", "ext4", "ntfs", "crypto_LUKS", ""]),
    label=words,
    uuid=st.sampled_from(["", "0000-0000", "1A2B-3C4D"]),
    partition=st.none() | st.integers(1, 4),
)
disks = st.builds(
    Disk,
    node=st.just("/dev/sda"),
    size_bytes=st.integers(0, 2),
    read_only=st.booleans(),
    volumes=st.lists(volumes, max_size=3).map(tuple),
    partitions=st.integers(0, 9),
)
devices = st.builds(
    replace,
    st.just(DEVICE),
    disks=st.lists(disks, max_size=3).map(tuple),
    serial=st.sampled_from(["", SHARED, "BWC0012345"]),
    authorized=st.booleans(),
    tagged=st.booleans(),
    complete=st.booleans(),
)


@given(devices)
def test_whatever_a_card_shows_it_is_let_in_for_one_file_system_or_refused_in_words(
    device: UsbDevice,
) -> None:
    """INV-1, INV-2: never an error, never a medium that is not there, never a choice by chance."""
    found = identify(device, (PROFILE,))
    if isinstance(found, Refused):
        assert len(found.words) > 20
        return
    candidates = [volume for disk in device.disks for volume in disk.volumes]
    assert [found.file_system] == candidates
    assert found.file_system is not None
    assert found.file_system.type in PROFILE.file_system.allowed
    assert device.tagged
    assert device.authorized
