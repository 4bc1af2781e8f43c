"""A clean Debian 12 in a directory, booted with its own systemd in a container.

The base system holds what the package depends on and no more. It is kept outside the repository,
under a name that is the digest of what goes into it.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BOOT_WITHIN_S = 60.0
_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
}

_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


def why_not() -> str | None:
    """Return what keeps the test from running on this machine, None if nothing does."""
    if os.getuid() != 0:
        return "only root can boot a container"
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    return f"missing: apt install {' '.join(missing)}" if missing else None


def build_package(python: str, directory: Path) -> Path:
    """Build the package into a directory."""
    subprocess.run([ROOT / "packaging/build-deb", python, directory], check=True)
    (package,) = directory.glob("*.deb")
    return package


def newer(package: Path) -> Path:
    """Return the same package as its next version."""
    work = package.parent / "newer"
    subprocess.run(["dpkg-deb", "--raw-extract", package, work], check=True)
    control = work / "DEBIAN/control"
    control.write_text(re.sub("(?m)^Version: .*$", r"\g<0>+next", control.read_text()))
    result = package.with_name("dockd_next.deb")
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", work, result], check=True)
    return result


def unpack_base(directory: Path) -> None:
    """Put a base system into a directory."""
    control = (ROOT / "packaging/debian/control.in").read_text()
    depends = re.search("(?m)^Depends: (.*)$", control)
    assert depends is not None
    packages = [re.sub(r" *\(.*\)", "", one) for one in depends[1].split(", ")]
    # What every Debian has beyond the packages of highest priority, in as far as it takes part.
    packages += ["dbus", "systemd-sysv"]
    archive = _base(sorted(set(packages)))
    directory.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", directory], check=True)


def install_unbooted(directory: Path, package: Path) -> None:
    """Install the package where neither systemd nor udev runs, as whoever makes disk images does."""
    shutil.copy(package, directory / "root")
    install = ["apt-get", "install", "--yes", f"/root/{package.name}"]
    subprocess.run(["chroot", directory, *install], check=True, env=_ENVIRONMENT)


def _base(packages: Sequence[str]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "dockd-packaging"
    name = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:16]
    archive = cache / f"bookworm-{name}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f"partial-{os.getpid()}.tar"
        command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(packages)}"]
        subprocess.run([*command, "bookworm", partial], check=True)
        partial.rename(archive)
    return archive


class Debian:
    """A booted system."""

    def __init__(self, directory: Path, leader: int) -> None:
        self.directory = directory
        self._leader = leader

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root."""
        inside = ["nsenter", f"--target={self._leader}", "-m", "-u", "-i", "-n", "-p", "-r", "-w"]
        return subprocess.run(
            [*inside, *command],
            env=_ENVIRONMENT,
            capture_output=True,
            text=True,
            check=check,
        )

    def is_active(self, unit: str) -> bool:
        """Ask systemd whether a unit runs."""
        return self.run("systemctl", "is-active", unit, check=False).returncode == 0

    def path(self, inside: str) -> Path:
        """Return where a path of the system is outside."""
        return self.directory / inside.lstrip("/")


@contextlib.contextmanager
def booted(directory: Path) -> Iterator[Debian]:
    """Boot the system in a directory; it is powered off in the end."""
    with (directory.parent / "console.log").open("wb") as console:
        nspawn = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
             "--private-network", "--console=pipe", f"--directory={directory}"],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console,
        )  # fmt: skip
    try:
        debian = Debian(directory, _leader_of(nspawn))
        _until_up(debian)
        yield debian
    finally:
        nspawn.send_signal(signal.SIGTERM)
        try:
            nspawn.wait(20)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()


def _leader_of(nspawn: "subprocess.Popen[bytes]") -> int:
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    deadline_s = time.monotonic() + _BOOT_WITHIN_S
    while time.monotonic() < deadline_s:
        for child in children.read_text().split():
            # The first child only prepares; the leader is called as init is.
            if Path(f"/proc/{child}/comm").read_text() in ("systemd\n", "init\n"):
                return int(child)
        time.sleep(0.1)
    raise TimeoutError("the container does not boot")


def _until_up(debian: Debian) -> None:
    deadline_s = time.monotonic() + _BOOT_WITHIN_S
    while time.monotonic() < deadline_s:
        said = debian.run("systemctl", "is-system-running", check=False).stdout.strip()
        if said in ("running", "degraded"):
            return
        time.sleep(0.2)
    raise TimeoutError("the container does not come up")
