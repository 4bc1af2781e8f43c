"""Profiles: what a file may say, which one wins, and what comes with dockd."""

from pathlib import Path

import pytest

from dockd.cameras.profiles import PACKAGED, Prepare, Profile, load_profile, load_profiles
from dockd.core.errors import ConfigError

WHOLE = """
name = "whole"
title = "Every key"
enabled = false

[match]
vendor = "0603"
product = "8611"
label = "CAM*"
serial = "BWC*"
interface_classes = [0x08, 0xff]

[footage]
roots = ["DCIM"]
settings = ["*.cfg"]
flagged = ["*/ro/*"]

[clock]
time_zone = "Europe/London"

[file_system]
allowed = ["exfat"]
partition = 2
label = "FOOTAGE"

[identity]
from = "label"

[wipe]
method = "format"

[charge]
minimum_s = 600
wanted_percent = 80
battery_file = "status/battery.txt"
draw_ma = 900

[prepare]
command = ["/usr/local/bin/unlock", "--now"]
timeout_s = 20
"""


def write(directory: Path, text: str, name: str = "whole") -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / f"{name}.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(directory: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_profile(write(directory, text))
    return caught.value.problems


def test_every_key_can_be_set(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, WHOLE))
    set_keys = profile.model_dump(exclude_defaults=True, by_alias=True)
    assert set(set_keys) == set(Profile.model_fields)
    for table in ("match", "footage", "clock", "file_system", "identity", "wipe", "charge"):
        names = {
            field.alias or name
            for name, field in Profile.model_fields[table].annotation.model_fields.items()  # type: ignore[union-attr]
        }
        assert set(set_keys[table]) == names
    assert profile.prepare is not None
    assert profile.prepare.command == ("/usr/local/bin/unlock", "--now")


def test_little_is_needed_and_nothing_is_erased_that_was_not_thought_of(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, 'name = "whole"\ntitle = "t"'))
    assert profile.file_system.allowed == ("vfat", "exfat")
    assert profile.wipe.method == "delete"
    assert profile.prepare is None
    assert profile.match.matches_anything


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('vendor = "0603"', 'vendor = "0x603"'), "match.vendor: "),
        (('vendor = "0603"', 'vendor = "ABCD"'), "match.vendor: "),
        (('vendor = "0603"\n', ""), "match: product means nothing without vendor"),
        (("interface_classes = [0x08, 0xff]", "interface_classes = []"), "match.interface_classes"),
        (("Europe/London", "Europe/Lundon"), "clock.time_zone: 'Europe/Lundon' is not a time zone"),
        (("Europe/London", "../../etc/passwd"), "clock.time_zone: '../../etc/passwd' is not a"),
        (('allowed = ["exfat"]', "allowed = []"), "file_system.allowed: "),
        (("partition = 2", "partition = 0"), "file_system.partition: "),
        (('from = "label"', 'from = "colour"'), "identity.from: "),
        (('method = "format"', 'method = "shred"'), "wipe.method: "),
        (("wanted_percent = 80", "wanted_percent = 101"), "charge.wanted_percent: "),
        (("minimum_s = 600", "minimum_s = -1"), "charge.minimum_s: "),
        (('"/usr/local/bin/unlock"', '"unlock"'), "prepare.command: must begin with the absolute"),
        (("timeout_s = 20", "timeout_s = 3600"), "prepare.timeout_s: "),
        (('title = "Every key"', 'titel = "t"'), "title: is missing"),
        (('name = "whole"', 'name = "other"'), "name: must be 'whole', as the file is called"),
        (('name = "whole"', 'name = "Whole one"'), "name: "),
        (("[match]", "[match"), "is not TOML: "),
    ],
)
def test_every_fault_is_named_by_its_key(
    tmp_path: Path, change: tuple[str, str], problem: str
) -> None:
    assert change[0] in WHOLE
    assert problems(tmp_path, WHOLE.replace(*change))[0].startswith(problem)


def test_all_faults_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    text = WHOLE.replace('"format"', '"shred"').replace("roots", "rots").replace("600", '"600"')
    named = {problem.partition(":")[0] for problem in problems(tmp_path, text)}
    assert named == {"wipe.method", "footage.rots", "charge.minimum_s"}


def test_a_file_of_the_docks_own_replaces_a_packaged_one(tmp_path: Path) -> None:
    text = (PACKAGED / "generic-mass-storage.toml").read_text(encoding="utf-8")
    write(tmp_path, text.replace("enabled = false", "enabled = true"), "generic-mass-storage")
    write(tmp_path, WHOLE)
    profiles = {profile.name: profile for profile in load_profiles([tmp_path])}
    assert profiles["generic-mass-storage"].enabled
    assert set(profiles) == {profile.name for profile in load_profiles([])} | {"whole"}


def test_a_directory_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert load_profiles([tmp_path / "none"]) == load_profiles([])


def test_one_faulty_file_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "name = 3")
    with pytest.raises(ConfigError) as caught:
        load_profiles([tmp_path])
    assert caught.value.file == str(file)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "whole.toml").mkdir()
    with pytest.raises(ConfigError, match=r"whole.toml: cannot be read: Is a directory"):
        load_profiles([tmp_path])


def test_what_is_not_verified_is_off_and_says_so() -> None:
    """No packaged profile lets a device in before a person has chosen it."""
    for path in PACKAGED.glob("*.toml"):
        profile = load_profile(path)
        assert not profile.enabled
        assert profile.match.matches_anything or "unverified" in profile.title


def test_the_page_explains_every_key() -> None:
    page = (PACKAGED.parents[2] / "docs/profiles.md").read_text(encoding="utf-8")
    keys = []
    for name, field in Profile.model_fields.items():
        table = field.annotation
        table = Prepare if name == "prepare" else table
        inner = getattr(table, "model_fields", None)
        keys += (
            [name]
            if inner is None
            else [f"{name}.{one.alias or key}" for key, one in inner.items()]
        )
    assert len(keys) > 20
    assert [key for key in keys if f"`{key}`" not in page] == []
