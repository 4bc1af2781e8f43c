"""Makes the disk of the virtual machine: Debian 12 with a kernel and systemd, and without dockd.

It takes a minute or two and is kept outside the repository, under a name that is the digest of all
that goes into it. Packages come from where this machine's own apt gets them.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"
GUEST_FILES = Path(__file__).with_name("guest")

_PACKAGES = (
    *("linux-image-amd64", "systemd-sysv", "udev", "dbus", "python3", "adduser"),
    *("dosfstools", "exfatprogs", "ca-certificates", "tzdata", "iproute2", "procps"),
)
_NEVER_NEEDED = (
    *("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*"),
    *("/lib/modules/*/kernel/drivers/gpu/*", "/lib/modules/*/kernel/drivers/media/*"),
    *("/lib/modules/*/kernel/drivers/infiniband/*", "/lib/modules/*/kernel/drivers/iio/*"),
    *("/lib/modules/*/kernel/drivers/net/*/*", "/lib/modules/*/kernel/drivers/staging/*"),
    "/lib/modules/*/kernel/sound/*",
)
_SMALL_INITRAMFS = """
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
printf 'MODULES=list\\nCOMPRESS=gzip\\n' > "$1/etc/initramfs-tools/conf.d/e2e"
printf 'virtio_pci\\nvirtio_blk\\next4\\n' > "$1/usr/share/initramfs-tools/modules.d/e2e"
"""
_SET_UP = """
install -D -m 644 -t "$1/usr/local/lib/e2e" agent.py
install -D -m 644 -t "$1/etc/systemd/system" e2e-*.s*
install -D -m 644 -t "$1/etc/systemd/network" wired.network
printf 'dock\\n' > "$1/etc/hostname"
printf '127.0.0.1 localhost dock\\n' > "$1/etc/hosts"
mkdir -p "$1/var/log/journal"
chroot "$1" systemctl enable e2e-agent.service e2e-journal.service e2e-store.socket systemd-networkd
chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer \\
  dpkg-db-backup.timer e2scrub_reap.service systemd-networkd-wait-online.service getty@tty1.service
"""
_DISK_SIZE = "3G"
_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mkfs.exfat": "exfatprogs",
    "apt-get": "apt",
}
_TOOLS_OF_USERS = {"newuidmap": "uidmap"}


class ImageError(Exception):
    """The virtual machine's disk cannot be made here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class SystemImage:
    """A system that boots: kernel and initramfs as files, and a qcow2 disk that is never written."""

    kernel: Path
    initrd: Path
    disk: Path


def cache_folder() -> Path:
    """Return where images are kept between runs."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "dockd-e2e"
    return Path(os.environ.get("DOCKD_E2E_CACHE", default)).expanduser()


def check_tools() -> None:
    """Raise ImageError, naming the Debian packages, when a tool is missing."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    needed = _TOOLS if os.geteuid() == 0 else _TOOLS | _TOOLS_OF_USERS
    missing = {package for tool, package in needed.items() if not shutil.which(tool, path=path)}
    if missing:
        raise ImageError(f"please install: sudo apt install {' '.join(sorted(missing))}")


def system_image() -> SystemImage:
    """Return the system, making it first when no earlier run has. Raises ImageError."""
    check_tools()
    folder = cache_folder() / _digest_of_recipe()
    image = SystemImage(folder / "vmlinuz", folder / "initrd", folder / "disk.qcow2")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(folder.parent):
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix="making-", dir=folder.parent) as temporary:
                _make(Path(temporary))
                made = Path(temporary) / "made"
                made.rename(folder)
    return image


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep the processes of a run from making the same image side by side."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _digest_of_recipe() -> str:
    digest = hashlib.sha256()
    for file in [Path(__file__), *sorted(GUEST_FILES.iterdir())]:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _make(folder: Path) -> None:
    made = folder / "made"
    made.mkdir()
    sources = folder / "sources.list"
    sources.write_text("\n".join(_package_sources()) + "\n")
    _run(
        *("mmdebstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}"),
        *(f"--aptopt={option}" for option in _apt_options()),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _NEVER_NEEDED),
        *("--dpkgopt=force-unsafe-io", f"--essential-hook={_SMALL_INITRAMFS}"),
        f"--customize-hook={_SET_UP}",
        f'--customize-hook=cp -L "$1/vmlinuz" "$1/initrd.img" {made}',
        *(SUITE, str(folder / "root.tar"), str(sources)),
        cwd=GUEST_FILES,
    )
    (made / "initrd.img").rename(made / "initrd")
    # Ownership is kept when root unpacks, or who is root in a user namespace.
    _run(
        *(() if os.geteuid() == 0 else ("mmdebstrap", "--unshare-helper")),
        *("sh", "-ec", _MAKE_DISK, "sh", str(folder), _DISK_SIZE),
    )
    raw, disk = folder / "disk.img", made / "disk.qcow2"
    _run("qemu-img", "convert", "-O", "qcow2", str(raw), str(disk))


_MAKE_DISK = """
mkdir "$1/root"
tar -C "$1/root" --exclude='./dev/*' -xf "$1/root.tar"
/sbin/mkfs.ext4 -q -d "$1/root" "$1/disk.img" "$2"
rm -r "$1/root"
"""


def _package_sources() -> Sequence[str]:
    """Return this machine's own package sources of the suite, from apt's lists of what it has."""
    lines = _output(
        *("apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"),
        *("Created-By: Packages", "Origin: Debian"),
    )
    sources = [line for line in lines if line.split()[2].startswith(SUITE)]
    if not sources:
        raise ImageError(f"apt knows no packages of Debian {SUITE}; try: sudo apt update")
    return sources


def _apt_options() -> Iterator[str]:
    """Yield how this machine's apt reaches its package sources."""
    for line in _output("apt-config", "dump"):
        name = line.split(" ")[0].lower()
        if name.startswith(("acquire::http", "acquire::check-", "acquire::languages")):
            yield line


def _output(*command: str) -> Sequence[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def _run(*command: str, cwd: Path | None = None) -> None:
    ended = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if ended.returncode != 0:
        raise ImageError(f"{command[0]} failed:\n{ended.stdout[-4000:]}")


if __name__ == "__main__":
    print(system_image().disk)  # noqa: T201 (for trying it)
