"""The udev rules, run by udev itself on simulated devices, in a mount namespace of their own."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dockd.cameras.profiles import Profile, load_profiles
from dockd.cameras.udev_rules import FILE_NAME, udev_rules
from tests.simulated.udev import HOST, RECORDINGS, missing, why_not
from tests.simulated.usb import profile

CAMERA = f"/sys{HOST}/1-1"
DISK = f"{CAMERA}/1-1:1.0/host6/target6:0:0/6:0:0:0/block/sda"

_SCRIPT = f"""
mount -t tmpfs none /run/udev && mount -t tmpfs none /etc/udev/rules.d || exit 99
cp "$1" /etc/udev/rules.d/{FILE_NAME}
exec umockdev-run -d "$2" -- udevadm test --action="$3" "$4" 2>&1
"""


class Udev:
    """Runs udev's own rules and ours on one device, and tells what became of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def run(self, rules: str, path: str, *, action: str = "add", recording: str = "") -> str:
        """Return all that udevadm says."""
        rules_file, devices_file = self._directory / "rules", self._directory / "devices"
        rules_file.write_text(rules)
        text = (RECORDINGS / "ordinary-camera.umockdev").read_text()
        # What udev is to find out is taken out of the recording.
        text = re.sub(r"^E: (CURRENT_)?TAGS=.*\n", "", recording or text, flags=re.MULTILINE)
        devices_file.write_text(text)
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", _SCRIPT, "sh",
             rules_file, devices_file, action, path],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        if done.returncode == 99 or "unshare:" in done.stderr:
            missing("mount namespaces are not allowed here")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def properties(self, *profiles: Profile, path: str, **how: str) -> dict[str, str]:
        """Return the properties that the device ends up with."""
        said = self.run(udev_rules(profiles), path, **how)
        assert complaints(said) == []
        return dict(re.findall(r"^(\w+)=(.*)$", said, flags=re.MULTILINE))


def complaints(said: str) -> list[str]:
    """Return what udev has against our file; what its rules do is logged in the same way."""
    lines = [line for line in said.splitlines() if f"{FILE_NAME}:" in line]
    return [line for line in lines if not re.search(r"MODE 0600$|ATTR '.*' writing '15'", line)]


@pytest.fixture
def udev(tmp_path: Path) -> Udev:
    for program in ("udevadm", "umockdev-run", "unshare"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed")
    if (reason := why_not()) is not None:
        missing(reason)
    return Udev(tmp_path)


def is_tagged(properties: dict[str, str]) -> bool:
    return "dockd" in properties.get("CURRENT_TAGS", "").split(":")


def test_a_camera_and_its_disk_are_tagged_and_left_alone(udev: Udev) -> None:
    """INV-5: nothing else mounts or probes a camera."""
    usb = udev.properties(profile(), path=CAMERA)
    assert is_tagged(usb)
    assert usb["ID_MM_DEVICE_IGNORE"] == "1"
    for path in (DISK, f"{DISK}/sda1"):
        block = udev.properties(profile(), path=path)
        assert is_tagged(block)
        assert block["UDISKS_IGNORE"] == "1"
        assert block["SYSTEMD_READY"] == "0"


def test_other_storage_is_left_alone_too_but_not_tagged(udev: Udev) -> None:
    """A stick that no profile knows is neither mounted by a desktop nor taken for a camera."""
    other = profile(match={"vendor": "0781"})
    assert not is_tagged(udev.properties(other, path=CAMERA))
    block = udev.properties(other, path=DISK)
    assert not is_tagged(block)
    assert block["UDISKS_IGNORE"] == "1"


def test_a_device_node_is_for_root_alone(udev: Udev) -> None:
    assert f"{FILE_NAME}:" in udev.run(udev_rules([]), DISK)
    assert re.search(
        rf"sda: .*{FILE_NAME}:\d+ MODE 0600$", udev.run(udev_rules([]), DISK), re.MULTILINE
    )


def test_a_profile_of_a_whole_vendor_tags_all_its_devices(udev: Udev) -> None:
    assert is_tagged(udev.properties(profile(match={"vendor": "0603"}), path=CAMERA))


def test_a_profile_for_anything_tags_storage(udev: Udev) -> None:
    anything = profile(match={})
    text = (RECORDINGS / "ordinary-camera.umockdev").read_text()
    storage = text.replace("E: BUSNUM", "E: ID_USB_INTERFACES=:080650:\nE: BUSNUM")
    keyboard = text.replace("E: BUSNUM", "E: ID_USB_INTERFACES=:030101:\nE: BUSNUM")
    assert is_tagged(udev.properties(anything, path=CAMERA, recording=storage))
    assert not is_tagged(udev.properties(anything, path=CAMERA, recording=keyboard))
    assert is_tagged(udev.properties(anything, path=DISK))


def test_a_profile_that_is_off_tags_nothing(udev: Udev) -> None:
    assert not is_tagged(udev.properties(profile(enabled=False), path=CAMERA))


def test_nothing_is_done_when_a_device_goes(udev: Udev) -> None:
    said = udev.run(udev_rules([profile()]), DISK, action="remove")
    assert f"{FILE_NAME}:" not in said


def test_udev_would_complain_of_a_broken_rule(udev: Udev) -> None:
    assert complaints(udev.run('SUBSYTEM=="usb", TAG+="dockd"\n', CAMERA))


def test_every_packaged_profile_can_be_written_as_rules(udev: Udev) -> None:
    switched_on = [one.model_copy(update={"enabled": True}) for one in load_profiles([])]
    assert is_tagged(udev.properties(*switched_on, path=CAMERA))


def test_nothing_is_run_from_the_rules() -> None:
    """Work in udev's RUN is killed, and is in another mount namespace."""
    text = udev_rules([profile(prepare={"command": ["/usr/local/bin/unlock"]})])
    assert "RUN" not in text
    assert "PROGRAM" not in text
    assert "unlock" not in text
