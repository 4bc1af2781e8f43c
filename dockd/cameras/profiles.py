"""Profiles: what dockd knows about each model of camera. docs/profiles.md explains them to people.

One TOML file is one profile. The packaged ones are in ``profiles/`` beside this file; a file of the
same name in a directory of the dock replaces a packaged one as a whole.
"""

import tomllib
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, ValidationError, model_validator

from dockd.cameras.discovery import MASS_STORAGE
from dockd.config import Table, problems_of
from dockd.core.errors import ConfigError

PACKAGED = Path(__file__).parent / "profiles"
"""The profiles that come with dockd."""


def _time_zone(name: str) -> str:
    if name != "UTC":
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError):
            raise ValueError(f"{name!r} is not a time zone that this system knows") from None
    return name


def _program(command: tuple[str, ...]) -> tuple[str, ...]:
    if not command[0].startswith("/"):
        raise ValueError("must begin with the absolute path of a program")
    return command


USB2_MA = 500
"""What a port of USB 2 gives, and what is taken for a device of which nothing is known."""

_UsbId = Annotated[str, Field(pattern=r"^[0-9a-f]{4}$")]
_Strings = Annotated[tuple[str, ...], Field(strict=False)]
_Percent = Annotated[int, Field(ge=1, le=100)]


class Match(Table):
    """``[match]``: which devices this profile is for. What is not given matches anything.

    ``label`` and ``serial`` are shell patterns with letter case. ``interface_classes`` are the only
    ones that the device may have; the default is mass storage alone.
    """

    vendor: _UsbId | None = None
    product: _UsbId | None = None
    label: str | None = None
    serial: str | None = None
    interface_classes: Annotated[
        tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(strict=False, min_length=1)
    ] = (MASS_STORAGE,)

    @model_validator(mode="after")
    def _product_has_vendor(self) -> "Match":
        if self.product is not None and self.vendor is None:
            raise ValueError("product means nothing without vendor")
        return self

    @property
    def exactness(self) -> int:
        """How much it asks of a device; the profile that asks most of it is the device's own."""
        asked = (self.vendor, self.product, self.label, self.serial)
        return sum(one is not None for one in asked)

    @property
    def matches_anything(self) -> bool:
        """Whether it asks nothing, and so is for whatever is storage."""
        return self.exactness == 0


class Footage(Table):
    """``[footage]``: where recordings are; none given is everywhere.

    ``roots`` are directories. ``settings`` and ``flagged`` are patterns for paths, in which ``*``
    also matches ``/`` and letter case is ignored: the first for the camera's own settings, which are
    no recordings and never erased, the second for recordings that the camera marked as evidence.
    """

    roots: _Strings = ()
    settings: _Strings = ()
    flagged: _Strings = ()


class CameraClock(Table):
    """``[clock]``: the zone of the times of its files, where the file system does not say (FAT)."""

    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"


class AllowedFileSystem(Table):
    """``[file_system]``: the types that may be mounted, and which one it is among several."""

    allowed: Annotated[_Strings, Field(min_length=1)] = ("vfat", "exfat")
    partition: Annotated[int, Field(ge=1)] | None = None
    label: str | None = None


class IdentityFrom(StrEnum):
    """Which of its marks tells a camera of this model from the next one."""

    SERIAL = "serial"
    LABEL = "label"
    UUID = "uuid"


class Identity(Table):
    """``[identity]``: where to begin looking for the camera's id."""

    source: Annotated[IdentityFrom, Field(alias="from", strict=False)] = IdentityFrom.SERIAL


class Wipe(Table):
    """``[wipe]``: how proved footage is erased. docs/profiles.md says what each method amounts to."""

    method: Literal["delete", "format", "overwrite"] = "delete"


class Charge(Table):
    """``[charge]``: when it is charged: after a least time, or when its battery says so.

    ``battery_file`` is a file on the camera whose first number is the battery's charge in percent.
    ``draw_ma`` is what it may draw from its port, for docks whose power is short; the default is what
    a port of USB 2 gives.
    """

    minimum_s: Annotated[float, Field(ge=0)] = 0.0
    wanted_percent: _Percent | None = None
    battery_file: str | None = None
    draw_ma: Annotated[int, Field(ge=1, le=5000)] = USB2_MA


class Prepare(Table):
    """``[prepare]``: a program to run before mounting, for cameras that must be unlocked.

    The helper runs it as it stands, with the bay's port in ``DOCKD_PORT``.
    """

    command: Annotated[_Strings, Field(min_length=1), AfterValidator(_program)]
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30.0


class Profile(Table):
    """One model of camera. ``name`` is also the name of its file; ``title`` is for people."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    enabled: bool = True
    match: Match = Match()
    footage: Footage = Footage()
    clock: CameraClock = CameraClock()
    file_system: AllowedFileSystem = AllowedFileSystem()
    identity: Identity = Identity()
    wipe: Wipe = Wipe()
    charge: Charge = Charge()
    prepare: Prepare | None = None


def load_profiles(directories: Iterable[Path]) -> tuple[Profile, ...]:
    """Return the packaged profiles and those of the directories, disabled ones included, by name.

    A later directory replaces profiles of the same name; one that does not exist is empty. Raises
    ConfigError with every problem of the first file that has any.
    """
    profiles: dict[str, Profile] = {}
    for directory in (PACKAGED, *directories):
        for path in sorted(directory.glob("*.toml")):
            profile = load_profile(path)
            profiles[profile.name] = profile
    return tuple(profiles[name] for name in sorted(profiles))


def load_profile(path: Path) -> Profile:
    """Read one profile. Raises ConfigError with every problem of the file."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        profile = Profile.model_validate(raw)
    except OSError as error:
        raise ConfigError(str(path), (f"cannot be read: {error.strerror}",)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), (f"is not TOML: {error}",)) from error
    except ValidationError as error:
        raise ConfigError(str(path), problems_of(error)) from error
    if profile.name != path.stem:
        raise ConfigError(str(path), (f"name: must be {path.stem!r}, as the file is called",))
    return profile
