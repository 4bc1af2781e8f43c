"""One virtual machine for all end-to-end tests: booted once, the package installed once.

After a test that failed, its logs are kept and the machine is booted anew for the next one.
"""

import re
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.dock import Dock
from tests.e2e.image import ImageError, cache_folder, system_image
from tests.e2e.machine import Machine, overlay
from tests.e2e.store import Store

_TEST_WITHIN_S = 300
_REPOSITORY = Path(__file__).parents[2]
_JOURNAL_LINES_SHOWN = 80

_failed = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests in an emulated machine the time that they need, without the making of the machine."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(_TEST_WITHIN_S, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that a test has failed, for its fixtures to know."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture(scope="session")
def package() -> Path:
    """Return the package that is tested: the newest one that was built."""
    built = sorted(
        (_REPOSITORY / "dist").glob("dockd_*.deb"), key=lambda path: path.stat().st_mtime
    )
    if not built:
        pytest.fail("there is no package in dist/; run: make e2e")
    return built[-1]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of this run: disks, images, the store. It goes away with it."""
    folder = tmp_path_factory.mktemp("e2e")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def store(run_folder: Path) -> Iterator[Store]:
    """Return a running store."""
    store = Store(run_folder / "store")
    store.start()
    yield store
    store.stop()


@pytest.fixture(scope="session")
def machine(run_folder: Path) -> Iterator[Machine]:
    """Return a booted Debian without dockd."""
    try:
        system = system_image()
    except ImageError as error:
        pytest.exit(f"make e2e: {error}", returncode=2)
    machine = Machine(system, overlay(system.disk, run_folder / "disk.qcow2"), run_folder)
    try:
        machine.boot()
        yield machine
    finally:
        machine.close()


@pytest.fixture(scope="session")
def installed_dock(machine: Machine, store: Store, package: Path) -> Dock:
    """Return a dock with the package installed by apt and set up."""
    dock = Dock(machine, store)
    try:
        dock.install(package)
        dock.set_up()
    except Exception:
        _keep_logs(dock, "installation", 0)
        raise
    return dock


@pytest.fixture
def dock(installed_dock: Dock, request: pytest.FixtureRequest) -> Iterator[Dock]:
    """Return the dock with all bays empty; pull every camera afterwards."""
    dock = installed_dock
    since = dock.mark()
    yield dock
    if request.node.stash.get(_failed, False):
        kept = _keep_logs(dock, request.node.name, since)
        request.node.add_report_section("teardown", f"journal, kept as {kept}", _last_lines(kept))
        dock.machine.cut_power()
        dock.machine.boot()
    dock.machine.unplug_all()
    dock.machine.set_link(up=True)
    dock.configure_as_usual()


def _keep_logs(dock: Dock, name: str, since: int) -> Path:
    folder = cache_folder() / "failures" / re.sub(r"[^\w-]", "_", name)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(dock.machine.serial_log, folder)
    shutil.copy(dock.store.log, folder)
    journal = folder / "journal.txt"
    journal.write_text(
        dock.machine.journal.text(since), encoding="utf-8", errors="backslashreplace"
    )
    return journal


def _last_lines(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[-_JOURNAL_LINES_SHOWN:])
