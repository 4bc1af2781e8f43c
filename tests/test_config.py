"""The configuration file: every problem at once, each with its key's full name."""

import re
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import BaseModel

from dockd.config import Config, load_config
from dockd.core.errors import ConfigError
from dockd.core.model import Confirm
from dockd.core.timetable import Timetable
from tests.certificates import Authority

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"


def pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with two bay folders and a receipt key, for a configuration file to lie in."""
    for bay in ("1", "2"):
        (tmp_path / "bays" / bay).mkdir(parents=True)
    (tmp_path / "key.pem").write_bytes(pem(Ed25519PrivateKey.generate()))
    return tmp_path


MINIMAL = """\
[dock]
name = "dock-1"
state_dir = "state"
[target]
url = "http://127.0.0.1:1080/files/"
store_id = "store"
receipt_key = "key.pem"
[[bay]]
name = "1"
folder = "bays/1"
[[bay]]
name = "2"
folder = "bays/2"
"""


def write(site: Path, text: str) -> Path:
    file = site / "dockd.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(site: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(write(site, text))
    return caught.value.problems


def test_paths_start_at_the_file_and_the_rest_has_defaults(site: Path) -> None:
    config = load_config(write(site, MINIMAL))

    assert config.dock.state_dir == site / "state"
    assert config.target is not None
    assert config.target.receipt_key == site / "key.pem"
    assert [(bay.name, bay.folder) for bay in config.bays] == [
        ("1", site / "bays/1"),
        ("2", site / "bays/2"),
    ]
    assert (config.upload.streams, config.cameras.settle_s, config.wipe.when) == (
        16,
        2.0,
        "after_proof",
    )


def test_a_dock_may_be_set_up_later_but_bays_need_a_target(site: Path) -> None:
    """INV-2: no bay takes footage in that could go nowhere."""
    dock, target, bays = re.split(
        r"^(?=\[target\]|\[\[bay\]\])", MINIMAL, maxsplit=2, flags=re.MULTILINE
    )
    config = load_config(write(site, dock))
    assert (config.target, config.bays) == (None, ())
    assert load_config(write(site, dock + target)).bays == ()
    assert problems(site, dock + bays) == (
        "target: is missing; what the bays take in must go somewhere",
    )


def test_a_whole_number_of_seconds_is_a_time(site: Path) -> None:
    assert load_config(write(site, MINIMAL + "[cameras]\nsettle_s = 3\n")).cameras.settle_s == 3.0


def test_a_rate_and_a_timetable_belong_together(site: Path) -> None:
    text = MINIMAL + '[upload]\nrate_mbit_s = 50\n[upload.timetable]\n"Mon-Fri 07:00-19:00" = 20\n'
    rates = load_config(write(site, text)).upload.rates
    monday = datetime.fromisoformat("2031-06-02T00:00")
    assert [rates.limit_at(monday.replace(hour=hour)) for hour in (6, 7, 19)] == [50, 20, 50]


@pytest.mark.parametrize(
    ("upload", "problem"),
    [
        ("rate_mbit_s = 0", "upload: nothing would ever be sent: every rate is 0"),
        ("rate_mbit_s = -1", "upload.rate_mbit_s: must be 0, or 0.1 to 1000000 Mbit/s"),
        ("timetable = 20", 'upload.timetable: must be a table with lines like "Mon-Fri 07:00-19:00" = 20'),
        ("[upload.timetable]\nnight = 1", "upload.timetable: 'night' is not like \"Mon-Fri 07:00-19:00\""),
    ],
)  # fmt: skip
def test_rates_that_cannot_be_meant_are_refused(site: Path, upload: str, problem: str) -> None:
    assert problems(site, f"{MINIMAL}[upload]\n{upload}\n") == (problem,)


def test_nothing_changes_after_loading(site: Path) -> None:
    config = load_config(write(site, MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        config.dock.name = "other"


def test_all_problems_come_at_once(site: Path) -> None:
    text = """\
surprise = 1
[dock]
name = ""
[target]
url = "ftp://store/"
store_id = "store"
receipt_key = "none.pem"
[upload]
streams = "8"
[wipe]
when = "always"
[cameras]
settle_s = nan
reconcile_s = 0
flagged = "event"
[[bay]]
name = "1"
folder = "bays/1"
colour = "red"
[[bay]]
name = "1"
folder = "bays/missing"
"""
    found = {problem.partition(": ")[0]: problem for problem in problems(site, text)}

    assert set(found) == {
        "surprise", "dock.name", "dock.state_dir", "target.url", "target.receipt_key",
        "upload.streams", "wipe.when", "cameras.settle_s", "cameras.reconcile_s",
        "cameras.flagged", "bay[1].colour", "bay[2].folder", "bay[2].name",
    }  # fmt: skip
    assert found["bay[2].folder"] == f"bay[2].folder: {site}/bays/missing is missing"
    assert found["dock.state_dir"] == "dock.state_dir: is missing"
    assert found["bay[1].colour"] == "bay[1].colour: is not a key that dockd knows"
    assert found["cameras.flagged"] == "cameras.flagged: must be a list"


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("bays/1", "already the folder of bay[1]"),
        ("bays/../bays/1", "already the folder of bay[1]"),
        ("link", "already the folder of bay[1]"),
        ("bays/1/inside", "inside each other"),
        ("bays", "inside each other"),
        ("key.pem", "is not a directory"),
    ],
)
def test_bays_never_share_files(site: Path, folder: str, words: str) -> None:
    """INV-8."""
    (site / "bays/1/inside").mkdir()
    (site / "link").symlink_to("bays/1")
    found = problems(site, MINIMAL.replace("bays/2", folder))
    assert len(found) == 1
    assert found[0].startswith("bay[2].folder: ")
    assert words in found[0]


@pytest.mark.parametrize("state_dir", ["bays/1", "bays/2/state", "link/state"])
def test_the_journal_never_lies_where_files_are_erased(site: Path, state_dir: str) -> None:
    (site / "link").symlink_to("bays/1")
    found = problems(site, MINIMAL.replace('"state"', f'"{state_dir}"'))
    assert len(found) == 1
    assert found[0].startswith("dock.state_dir: it is inside the folder of bay[")


def test_the_state_directory_is_no_file(site: Path) -> None:
    (site / "state").write_text("")
    assert problems(site, MINIMAL) == (f"dock.state_dir: {site}/state is not a directory",)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1080/files/",
        "http://127.8.8.8/files/",
        "http://[::1]:1080/files/",
        "https://store.example/files/",
    ],
)
def test_urls_that_are_safe(site: Path, url: str) -> None:
    config = load_config(write(site, MINIMAL.replace("http://127.0.0.1:1080/files/", url)))
    assert config.target is not None
    assert config.target.url == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://store.example/files/", "unprotected"),
        ("http://10.0.0.1/files/", "unprotected"),
        ("http://localhost.evil.example/", "unprotected"),
        ("files/", "whole http"),
        ("http:///files/", "whole http"),
        ("https://me:secret@store.example/", "user name"),
        ("https://store.example/?token=1", "query"),
        ("http://[::1/files/", "is not a URL"),
        ("http://127.0.0.1:port/files/", "is not a URL"),
    ],
)
def test_urls_that_are_not(site: Path, url: str, words: str) -> None:
    found = problems(site, MINIMAL.replace("http://127.0.0.1:1080/files/", url))
    assert len(found) == 1
    assert words in found[0]
    assert "secret" not in found[0]


@pytest.mark.parametrize(
    "content", [b"", b"not a key", pem(ec.generate_private_key(ec.SECP256R1()))]
)
def test_the_receipt_key_is_an_ed25519_key(site: Path, content: bytes) -> None:
    """INV-1: no key, no proof."""
    (site / "key.pem").write_bytes(content)
    found = problems(site, MINIMAL)
    assert len(found) == 1
    assert found[0].startswith("target.receipt_key: ")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ('confirm = "readback"\n', None),
        ('confirm = "receipt"\nreceipt_key = "key.pem"\n', None),
        ("", "target.receipt_key: is missing"),
        ('confirm = "readback"\nreceipt_key = "key.pem"\n', "never uses it"),
        ('confirm = "checksum"\nreceipt_key = "key.pem"\n', "nothing weaker may erase a camera"),
        ('confirm = "offset"\n', "nothing weaker may erase a camera"),
        ("confirm = false\n", "nothing weaker may erase a camera"),
    ],
)
def test_what_confirms_is_chosen_and_nothing_weaker(
    site: Path, target: str, words: str | None
) -> None:
    """INV-1."""
    text = MINIMAL.replace('receipt_key = "key.pem"\n', target)
    if words is None:
        config = load_config(write(site, text)).target
        assert config is not None
        assert (config.receipt_key is None) == (config.confirm is Confirm.READBACK)
    else:
        (problem,) = problems(site, text)
        assert words in problem


@pytest.mark.parametrize("name", [" 1", "1\n2", "x" * 101, "\x1b[31m"])
def test_names_fit_on_a_label(site: Path, name: str) -> None:
    quoted = name.replace("\n", "\\n").replace("\x1b", "\\u001b")
    found = problems(site, MINIMAL.replace('name = "1"', f'name = "{quoted}"'))
    assert [problem.partition(":")[0] for problem in found] == ["bay[1].name"]


@pytest.mark.parametrize("bay", ["bay = 3", '[bay]\nname = "1"', "bay = [1]", "[[bay]]\nname = 1"])
def test_bays_of_odd_shape_are_a_problem_and_no_crash(site: Path, bay: str) -> None:
    text = bay + "\n" + MINIMAL.partition("[[bay]]")[0] if bay.startswith("bay") else ""
    text = text or MINIMAL.partition("[[bay]]")[0] + bay
    assert all(problem.startswith("bay") for problem in problems(site, text))


def test_broken_toml_has_line_and_column(site: Path) -> None:
    assert "line 2, column 8" in problems(site, '[dock]\nname = = "x"\n')[0]


def test_a_file_that_is_not_text_or_not_there(site: Path) -> None:
    (site / "dockd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(site / "dockd.toml")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(site / "none.toml")


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the models with its default; nested tables give their keys."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        inner = field.annotation
        if key == "target":
            inner = inner.__args__[0]  # type: ignore[union-attr]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{key}.")
        elif key == "bay":
            yield from keys(inner.__args__[0], "bay.")  # type: ignore[union-attr]
        else:
            yield key, field.default


def example_with_defaults_switched_on() -> dict[str, Any]:
    text = re.sub(r"^# (\w+ = )", r"\1", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return tomllib.loads(text)


def test_the_example_loads(site: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    text = text.replace("/srv/dockd/", "").replace("/var/lib/dockd", "state")
    config = load_config(write(site, text.replace("/etc/dockd/receipt-key.pem", "key.pem")))
    assert isinstance(config, Config)


def test_the_example_explains_every_key_and_shows_its_default() -> None:
    example = example_with_defaults_switched_on()
    bays = example.pop("bay")
    tables = [*example.items(), *(("bay", bay) for bay in bays)]
    shown = {f"{name}.{key}": value for name, table in tables for key, value in table.items()}
    known = dict(keys(Config))

    assert set(shown) == set(known)
    for key, value in shown.items():
        if key.split(".")[0] not in ("dock", "target", "bay"):
            default = known[key]
            if isinstance(default, Path):
                default = str(default)
            if default is None or isinstance(default, Timetable):
                continue  # what is shown is an example
            assert value == (list(default) if isinstance(default, tuple) else default)


WITH_PORTS = MINIMAL.replace('folder = "bays/1"', 'port = "1-1.4"').replace(
    'folder = "bays/2"', 'port = "2-3"'
)


def test_bays_are_folders_or_usb_ports(site: Path) -> None:
    config = load_config(write(site, WITH_PORTS.replace('port = "2-3"', 'folder = "bays/2"')))
    assert [(bay.folder, bay.port) for bay in config.bays] == [
        (None, "1-1.4"),
        (site / "bays/2", None),
    ]


@pytest.mark.parametrize("place", ["", 'port = "2-3"\nfolder = "bays/2"'])
def test_a_bay_is_in_exactly_one_place(site: Path, place: str) -> None:
    assert problems(site, WITH_PORTS.replace('port = "2-3"', place)) == (
        "bay[2]: must have a folder or a port, and not both",
    )


@pytest.mark.parametrize("port", ["1", "usb1", "1-1.", "1-1:1.0", "../1-1", "1-1.4\\n"])
def test_a_port_is_named_as_the_kernel_names_it(site: Path, port: str) -> None:
    (problem,) = problems(site, WITH_PORTS.replace("2-3", port))
    assert problem.startswith("bay[2].port: ")


def test_two_bays_never_share_a_port(site: Path) -> None:
    """INV-8: what happens at one port is the business of one bay."""
    assert problems(site, WITH_PORTS.replace("2-3", "1-1.4")) == (
        "bay[2].port: '1-1.4' is already the port of bay[1]",
    )


# The way to the store


@pytest.fixture
def identity(site: Path) -> Path:
    """A certificate with its key and another key, beside the configuration."""
    authority = Authority.new()
    pair = authority.issue("dock-1")
    (site / "ca.pem").write_bytes(authority.pem)
    (site / "dock.pem").write_bytes(pair.certificate_pem)
    for name, secret in (
        ("dock.key", pair.key_pem),
        ("other.key", authority.issue("other").key_pem),
    ):
        (site / name).write_bytes(secret)
        (site / name).chmod(0o640)
    return site


def with_target(lines: str, url: str = "https://store.example/files/") -> str:
    text = MINIMAL.replace("http://127.0.0.1:1080/files/", url)
    return text.replace("[[bay]]", f"{lines}\n[[bay]]", 1)


def test_a_way_to_the_store(identity: Path) -> None:
    secret = identity / "password"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    text = with_target("""\
fallback_urls = ["https://10.0.0.1/files/", "https://[2001:db8::1]/files/"]
ca_file = "ca.pem"
certificate = "dock.pem"
private_key = "dock.key"
proxy = "http://dock@proxy.example:3128"
proxy_password_file = "password"
""")
    target = load_config(write(identity, text)).target
    assert target is not None
    assert target.fallback_urls == ("https://10.0.0.1/files/", "https://[2001:db8::1]/files/")
    assert (target.ca_file, target.private_key) == (identity / "ca.pem", identity / "dock.key")
    assert target.proxy_password_file == secret


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('fallback_urls = ["http://10.0.0.1/files/"]', r"target.fallback_urls\[1\]: http to 10"),
        ('fallback_urls = ["https://store.example/files/"]', "target: url and fallback_urls must be"),
        ('ca_file = "none.pem"', "target.ca_file: .*No such file"),
        ('ca_file = "key.pem"', "target.ca_file: .*not a certificate"),
        ('certificate = "dock.pem"', "target: certificate and private_key are needed together"),
        ('private_key = "dock.key"', "target: certificate and private_key are needed together"),
        ('certificate = "dock.pem"\nprivate_key = "other.key"', "target: .*not the key of"),
        ('certificate = "dock.pem"\nprivate_key = "ca.pem"', "target.private_key: .*open to every"),
        ('certificate = "dock.pem"\nprivate_key = "shut.pem"', "target: .*not an unencrypted"),
        ('proxy = "http://me:secret@proxy:3128"', "target.proxy: must not hold a password"),
        ('proxy = "socks5://proxy"', "target.proxy: must be like"),
        ('proxy = "http://proxy:3128/path"', "target.proxy: must be like"),
        ('proxy = "http://proxy:port"', "target.proxy: is not a URL"),
        ('proxy_password_file = "shut.pem"', "target: proxy_password_file needs a proxy with a user"),
        ('proxy = "http://p"\nproxy_password_file = "shut.pem"', "target: proxy_password_file needs"),
        ('proxy = "http://me@p"\nproxy_password_file = "ca.pem"', "target.proxy_p.*open to everyone"),
    ],
)  # fmt: skip
def test_a_way_that_cannot_be_meant(identity: Path, lines: str, problem: str) -> None:
    (identity / "shut.pem").write_bytes(b"")
    (identity / "shut.pem").chmod(0o600)
    (found,) = problems(identity, with_target(lines))
    assert re.match(problem, found)
    assert "secret" not in found


def test_a_proxy_leads_nowhere_on_this_machine(site: Path) -> None:
    lines = 'proxy = "http://proxy:3128"'
    assert problems(site, with_target(lines, "http://127.0.0.1:1080/files/")) == (
        "target: a proxy leads to https addresses only",
    )
