"""The helper's own configuration, which only root may be able to change.

What is in it decides what may be erased: the store whose receipts count, with its key, and the USB
ports that are bays. So the file, all that it names, and every directory on the way to them must
belong to root and be writable by nobody else; otherwise the helper does not start.
"""

import pwd
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from dockd.config import ConfirmKey, Table, needed_for, problems_of
from dockd.core.errors import ConfigError, EnrolmentError, KeyFileError
from dockd.core.model import Confirm
from dockd.enrolled import EnrolledFiles
from dockd.evidence.keys import load_verifying_key

DEFAULT_PATH = Path("/etc/dockd/helper.toml")


def _user(name: str) -> str:
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise ValueError(f"there is no user {name!r}") from None
    return name


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{path} is not an absolute path")
    return path


def _verifying_key(path: Path) -> Path:
    try:
        load_verifying_key(path)
    except KeyFileError as error:
        raise ValueError(str(error)) from None
    return path


_Path = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]
_Name = Annotated[str, Field(min_length=1, max_length=100)]
_KeyFile = Annotated[_Path, AfterValidator(_verifying_key)]


class HelperBay(Table):
    """``[[bay]]``: a bay, and the USB port that is bound to it, as the kernel names it."""

    name: _Name
    port: Annotated[str, Field(pattern=r"^[0-9]{1,3}-[0-9]{1,3}(\.[0-9]{1,3}){0,6}$")]


class HelperConfig(Table):
    """The whole file. ``user`` is whose requests are heard, besides root's.

    Exactly one key decides what may be erased: the store's ``receipt_key``, or with ``confirm``
    readback the public ``dock_key``. ``state_dir`` keeps the ledger of wipes under way.
    """

    dock: _Name
    store_id: _Name
    confirm: ConfirmKey = Confirm.RECEIPT
    receipt_key: Annotated[
        _KeyFile | None,
        AfterValidator(needed_for(Confirm.RECEIPT)),
        Field(validate_default=True),
    ] = None
    dock_key: Annotated[
        _KeyFile | None,
        AfterValidator(needed_for(Confirm.READBACK)),
        Field(validate_default=True),
    ] = None
    user: Annotated[str, AfterValidator(_user)] = "dockd"
    profiles_dir: _Path = Path("/etc/dockd/profiles.d")
    state_dir: _Path = Path("/var/lib/dockd-helper")
    bays: Annotated[tuple[HelperBay, ...], Field(alias="bay", strict=False)] = ()

    @property
    def proof_key(self) -> Path:
        """The public key that must have signed every receipt."""
        key = self.receipt_key or self.dock_key
        if key is None:
            raise ValueError("a configuration without a key was never loaded")
        return key


def load_helper_config(path: Path) -> HelperConfig:
    """Read and check the file. Raises ConfigError with every problem found."""
    problems = list(others_can_change(path))
    config: HelperConfig | None = None
    enrolled = EnrolledFiles.beside(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        pinned = enrolled.read_for(raw)
        defaults = enrolled.for_helper(pinned) if pinned is not None else {}
        config = HelperConfig.model_validate({**defaults, **raw})
    except EnrolmentError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"cannot be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"is not TOML: {error}")
    except ValidationError as error:
        problems += problems_of(error)
    if config is not None:
        problems += _named_twice(config)
        files = (config.proof_key, config.state_dir, *_profile_files(config.profiles_dir))
        for named in (*files, enrolled.store):
            problems += others_can_change(named)
    if config is None or problems:
        raise ConfigError(str(path), tuple(problems))
    return config


def others_can_change(path: Path) -> Iterator[str]:
    """Say where somebody else than root could change what is at this path, or put another there.

    Links are followed and the directories of both ends checked. What does not exist yet is as safe
    as the directory that would hold it.
    """
    real = path.resolve()
    seen = {*path.absolute().parents, real, *real.parents}
    for place in sorted(seen):
        try:
            found = place.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            yield f"{place}: {error.strerror}"
            continue
        if found.st_uid != 0:
            yield f"{place} belongs to user {found.st_uid} and not to root"
        if stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            yield f"{place} is writable by others than root (mode {stat.S_IMODE(found.st_mode):04o})"


def _profile_files(directory: Path) -> list[Path]:
    return [directory, *sorted(directory.glob("*.toml"))]


def _named_twice(config: HelperConfig) -> Iterator[str]:
    for what, values in (
        ("name", [bay.name for bay in config.bays]),
        ("port", [bay.port for bay in config.bays]),
    ):
        for value in sorted({one for one in values if values.count(one) > 1}):
            yield f"bay.{what}: {value!r} is given to more than one bay"
