"""The dock's configuration: one TOML file, checked wholly before anything starts.

Every problem of the file is found in one go and named by its full key (``bay[2].folder``, where
``bay[2]`` is the second ``[[bay]]``). Unknown keys are problems too, because a misspelt key would
otherwise silently leave its default in force. Relative paths start at the file's own directory.
config.example.toml explains each key to people.
"""

import ipaddress
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from dockd.core.errors import ConfigError, EnrolmentError, KeyFileError
from dockd.core.model import Confirm
from dockd.core.timetable import Timetable, check_rate
from dockd.enrolled import EnrolledFiles
from dockd.evidence.certificates import check_identity, load_certificates, read_secret
from dockd.evidence.keys import load_verifying_key


def _from_base(path: Path, info: ValidationInfo) -> Path:
    """Make a path absolute, starting at the directory of the configuration file."""
    base: Path = (info.context or {})["base"]
    return base / path


def _not_a_file(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is not a directory")
    return path


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path} is not a directory" if path.exists() else f"{path} is missing")
    return path


def _verifying_key(path: Path) -> Path:
    try:
        load_verifying_key(path)
    except KeyFileError as error:
        raise ValueError(str(error)) from None
    return path


def _certificates(path: Path) -> Path:
    try:
        load_certificates(path)
    except KeyFileError as error:
        raise ValueError(str(error)) from None
    return path


def _secret(path: Path) -> Path:
    try:
        read_secret(path)
    except KeyFileError as error:
        raise ValueError(str(error)) from None
    return path


def _known_confirm(value: object) -> Confirm:
    try:
        return Confirm(str(value))
    except ValueError:
        raise ValueError(
            'must be "receipt" (the store signs for what it holds) or "readback" (the dock fetches'
            " and hashes what the target holds): nothing weaker may erase a camera"
        ) from None


def needed_for(confirm: Confirm) -> Callable[[Path | None, ValidationInfo], Path | None]:
    """Return a check of a key's file that one way of confirming needs, and no other may name."""

    def check(path: Path | None, info: ValidationInfo) -> Path | None:
        chosen = info.data.get("confirm")
        if path is None and chosen is confirm:
            raise ValueError("is missing")
        if path is not None and chosen not in (confirm, None):
            raise ValueError(f'confirm = "{chosen}" never uses it; take one of the two away')
        return path

    return check


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable text without spaces at its ends")
    return text


def _target_url(url: str) -> str:
    """Accept an upload URL that is safe to use: https, or http that does not leave this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must be a whole http:// or https:// URL")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must not hold a user name, a query or a fragment")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError(
            f"http to {host} would send footage unprotected: use https, or a loopback address"
        )
    return url


def _proxy_url(url: str) -> str:
    """Accept the address of an HTTP proxy, perhaps with a user's name, but without a password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from None
    if parts.password is not None:
        raise ValueError("must not hold a password: name a file in proxy_password_file")
    if parts.scheme != "http" or not host or parts.path not in ("", "/"):
        raise ValueError("must be like http://proxy:3128 or http://user@proxy:3128")
    if parts.query or parts.fragment:
        raise ValueError("must not hold a query or a fragment")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _timetable(value: object) -> Timetable:
    if isinstance(value, Timetable):
        return value
    if not isinstance(value, dict):
        raise ValueError('must be a table with lines like "Mon-Fri 07:00-19:00" = 20')  # noqa: TRY004 - pydantic
    return Timetable.parse(value)


PORT_PATTERN = r"^[0-9]+-[0-9]+(\.[0-9]+)*$"

_Path = Annotated[Path, Field(strict=False), AfterValidator(_from_base)]
_Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
ConfirmKey = Annotated[Confirm, BeforeValidator(_known_confirm)]


class Table(BaseModel):
    """A table of a TOML file: no unknown key, no silent conversion, no change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DockConfig(Table):
    """``[dock]``: who this dock is, and where it keeps its journal, key and lock."""

    name: _Name
    state_dir: Annotated[_Path, AfterValidator(_not_a_file)]


class TargetConfig(Table):
    """``[target]``: the store, the way to it, and the key its receipts must be signed with.

    With ``confirm`` readback the target signs nothing: the dock's own key does, and none is named here.
    ``stall_timeout_s`` is how long a request may go without any progress.
    """

    url: Annotated[str, AfterValidator(_target_url)]
    fallback_urls: Annotated[
        tuple[Annotated[str, AfterValidator(_target_url)], ...], Field(strict=False, max_length=8)
    ] = ()
    store_id: _Name
    confirm: ConfirmKey = Confirm.RECEIPT
    receipt_key: Annotated[
        Annotated[_Path, AfterValidator(_verifying_key)] | None,
        AfterValidator(needed_for(Confirm.RECEIPT)),
        Field(validate_default=True),
    ] = None
    ca_file: Annotated[_Path, AfterValidator(_certificates)] | None = None
    certificate: Annotated[_Path, AfterValidator(_certificates)] | None = None
    private_key: Annotated[_Path, AfterValidator(_secret)] | None = None
    proxy: Annotated[str, AfterValidator(_proxy_url)] | None = None
    proxy_password_file: Annotated[_Path, AfterValidator(_secret)] | None = None
    stall_timeout_s: Annotated[float, Field(gt=0)] = 60.0

    @model_validator(mode="after")
    def _addresses_differ(self) -> "TargetConfig":
        urls = (self.url, *self.fallback_urls)
        if len(set(urls)) < len(urls):
            raise ValueError("url and fallback_urls must be different addresses")
        if self.proxy is not None and any(url.startswith("http:") for url in urls):
            raise ValueError("a proxy leads to https addresses only")
        return self

    @model_validator(mode="after")
    def _identity_is_whole(self) -> "TargetConfig":
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key are needed together")
        if self.certificate is not None and self.private_key is not None:
            try:
                check_identity(self.certificate, self.private_key)
            except KeyFileError as error:
                raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _password_has_a_user(self) -> "TargetConfig":
        user = urlsplit(self.proxy).username if self.proxy is not None else None
        if self.proxy_password_file is not None and not user:
            raise ValueError(
                "proxy_password_file needs a proxy with a user: http://user@proxy:3128"
            )
        return self


class UploadConfig(Table):
    """``[upload]``: how many recordings are sent at once, in all and from one bay, and how fast.

    ``rate_mbit_s`` is the limit where no line of the timetable applies; without it there is none.
    """

    streams: Annotated[int, Field(ge=1, le=64)] = 16
    streams_per_bay: Annotated[int, Field(ge=1, le=64)] = 16
    rate_mbit_s: Annotated[float, AfterValidator(check_rate)] | None = None
    timetable: Annotated[InstanceOf[Timetable], BeforeValidator(_timetable)] = Timetable()

    @cached_property
    def rates(self) -> Timetable:
        """The timetable, with what holds outside its lines."""
        return replace(self.timetable, otherwise_mbit_s=self.rate_mbit_s)

    @model_validator(mode="after")
    def _sends_at_some_time(self) -> "UploadConfig":
        if not self.rates.ever_sends:
            raise ValueError("nothing would ever be sent: every rate is 0")
        return self


class CamerasConfig(Table):
    """``[cameras]``: how cameras are looked at, and the limits of one listing.

    ``reconcile_s`` has a bound because each look at the bays feeds the service manager's watchdog.
    """

    settle_s: Annotated[float, Field(ge=0)] = 2.0
    reconcile_s: Annotated[float, Field(gt=0, le=30)] = 5.0
    max_files: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    max_depth: Annotated[int, Field(ge=1, le=256)] = 32
    flagged: Annotated[tuple[str, ...], Field(strict=False)] = ()
    profiles_dir: _Path = Path("/etc/dockd/profiles.d")

    @property
    def noticed_s(self) -> float:
        """Within how many seconds it is surely noticed that a camera was pulled."""
        return 2 * self.reconcile_s


class HelperConfig(Table):
    """``[helper]``: where the privileged process listens that opens and erases USB cameras."""

    socket: _Path = Path("/run/dockd/helper.sock")


class WipeConfig(Table):
    """``[wipe]``: whether proved footage is erased from cameras, and how long after its proof."""

    when: Literal["after_proof", "never"] = "after_proof"
    hold_s: Annotated[float, Field(ge=0)] = 0.0


class ChargeConfig(Table):
    """``[charge]``: the least time a camera charges before it is shown as ready, and what all ports
    together may be asked for. Without ``budget_ma`` no port is ever switched off.
    """

    minimum_s: Annotated[float, Field(ge=0)] = 0.0
    budget_ma: Annotated[int, Field(ge=100)] | None = None


class AttentionConfig(Table):
    """``[attention]``: how often a bay that needs a person tries again by itself."""

    retry_s: Annotated[float, Field(gt=0)] = 900.0


class LogConfig(Table):
    """``[log]``: the least level that is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class BayConfig(Table):
    """``[[bay]]``: one bay, bound to the folder in which its camera appears, or to a USB port.

    A port is named as the kernel names it: ``1-1.4`` is port 4 of the hub at port 1 of bus 1.
    """

    name: _Name
    folder: Annotated[_Path, AfterValidator(_directory)] | None = None
    port: Annotated[str, Field(pattern=PORT_PATTERN)] | None = None

    @model_validator(mode="after")
    def _is_in_one_place(self) -> "BayConfig":
        if (self.folder is None) == (self.port is None):
            raise ValueError("must have a folder or a port, and not both")
        return self


class Config(Table):
    """The whole file. Build it with :func:`load_config`, which also checks tables against each other.

    A dock that is still to be set up may have neither target nor bays; bays never come without target.
    """

    dock: DockConfig
    target: TargetConfig | None = None
    upload: UploadConfig = UploadConfig()
    cameras: CamerasConfig = CamerasConfig()
    helper: HelperConfig = HelperConfig()
    wipe: WipeConfig = WipeConfig()
    charge: ChargeConfig = ChargeConfig()
    attention: AttentionConfig = AttentionConfig()
    log: LogConfig = LogConfig()
    bays: Annotated[tuple[BayConfig, ...], Field(alias="bay", strict=False)] = ()


class _DockOnly(BaseModel):
    dock: DockConfig


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises :class:`~dockd.core.errors.ConfigError` with all problems: those of each key, and those
    between keys (two bays with one name, folder or port, the state directory inside a bay).
    """
    raw = _read(path)
    base = path.resolve().parent
    problems = _fill_in_enrolment(raw, path)
    config: Config | None = None
    try:
        config = Config.model_validate(raw, context={"base": base})
    except ValidationError as error:
        problems.extend(problems_of(error))
    problems.extend(_problems_between(raw, base))
    if config is None or problems:
        raise ConfigError(str(path), tuple(problems))
    return config


def _fill_in_enrolment(raw: dict[str, object], path: Path) -> list[str]:
    """Let ``[target]`` be the store at which the dock is enrolled, where it names none itself."""
    dock, target = raw.get("dock"), raw.get("target", {})
    state_dir = dock.get("state_dir") if isinstance(dock, dict) else None
    if not isinstance(target, dict) or not isinstance(state_dir, str):
        return []
    files = EnrolledFiles.beside(path)
    try:
        pinned = files.read_for(target)
    except EnrolmentError as error:
        return [f"target: {error}"]
    if pinned is None:
        return []
    raw["target"] = {**files.for_target(pinned, state_dir), **target}
    if isinstance(dock, dict) and dock.get("name") not in (None, pinned.dock):
        return [f"dock.name: this dock is enrolled as {pinned.dock!r}; enrol it again to rename it"]
    return []


def load_dock_config(path: Path) -> DockConfig:
    """Read who the dock is and where its state is, to talk to it while it runs.

    Nothing else of the file is looked at: a bay's folder that is lost is just when one wants to ask.
    Raises :class:`~dockd.core.errors.ConfigError`.
    """
    raw = _read(path)
    try:
        return _DockOnly.model_validate(raw, context={"base": path.resolve().parent}).dock
    except ValidationError as error:
        raise ConfigError(str(path), problems_of(error)) from error


def read_target(path: Path) -> dict[str, object]:
    """Return ``[target]`` as it is written, unchecked, for who is about to complete it.

    Raises :class:`~dockd.core.errors.ConfigError`.
    """
    target = _read(path).get("target")
    return target if isinstance(target, dict) else {}


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), (f"cannot be read: {error.strerror}",)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), (f"is not TOML: {error}",)) from error


_WORDS = {
    "extra_forbidden": "is not a key that dockd knows",
    "missing": "is missing",
    "model_type": "must be a table",
    "tuple_type": "must be a list",
}


def problems_of(error: ValidationError) -> tuple[str, ...]:
    """Return each problem of a table as a line that begins with the key's full name."""
    return tuple(_problem(details) for details in error.errors())


def _problem(details: ErrorDetails) -> str:
    if details["type"] == "value_error":
        words = str(details["ctx"]["error"])
    else:
        words = _WORDS.get(details["type"]) or details["msg"].replace("Input should be", "must be")
    return f"{_full_name(details['loc'])}: {words}"


def _full_name(location: tuple[int | str, ...]) -> str:
    name = ""
    for part in location:
        name += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return name.removeprefix(".")


def _problems_between(raw: Mapping[str, object], base: Path) -> Iterator[str]:
    """Compare keys with each other, as far as the file has them in the right shape."""
    bays = raw.get("bay")
    if bays and "target" not in raw:
        yield "target: is missing; what the bays take in must go somewhere"
    tables = [
        (f"bay[{number}]", table)
        for number, table in enumerate(bays if isinstance(bays, list) else [], start=1)
        if isinstance(table, dict)
    ]
    for what in ("name", "port"):
        yield from _repeated(what, tables)
    folders = [
        (key, (base / folder).resolve())
        for key, table in tables
        if isinstance(folder := table.get("folder"), str)
    ]
    for (first, folder), (second, other_folder) in combinations(folders, 2):
        if folder == other_folder:
            yield f"{second}.folder: {folder} is already the folder of {first}"
        elif folder.is_relative_to(other_folder) or other_folder.is_relative_to(folder):
            yield f"{second}.folder: {other_folder} and the folder of {first} are inside each other"
    dock = raw.get("dock")
    state_dir = dock.get("state_dir") if isinstance(dock, dict) else None
    if isinstance(state_dir, str):
        for key, folder in folders:
            if (base / state_dir).resolve().is_relative_to(folder):
                yield f"dock.state_dir: it is inside the folder of {key}, whose files are erased"


def _repeated(what: str, tables: Sequence[tuple[str, Mapping[str, object]]]) -> Iterator[str]:
    values = [(key, value) for key, table in tables if isinstance(value := table.get(what), str)]
    for (first, value), (second, other) in combinations(values, 2):
        if value == other:
            yield f"{second}.{what}: {value!r} is already the {what} of {first}"
