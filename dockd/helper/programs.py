"""Runs the few programs that the helper needs: mkfs tools, and a profile's step of preparation.

Their arguments come from this package and from root-owned profiles, never from a request or, unchecked,
from a camera. No shell, hardly any environment, a bound on time, and no descriptor but those given.
"""

import subprocess
from collections.abc import Mapping, Sequence

from dockd.core.errors import HelperError

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    fds: Sequence[int] = (),
) -> str:
    """Run a program to its end and return what it printed. Blocking. Raises HelperError."""
    name = command[0]
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, see above
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            env={**_ENVIRONMENT, **(environment or {})},
            pass_fds=fds,
            cwd="/",
            check=False,
        )
    except OSError as error:
        raise HelperError(f"{name}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise HelperError(f"{name} has not ended within {timeout_s:.0f} s") from error
    printed = done.stdout.decode("utf-8", "backslashreplace").strip()
    if done.returncode != 0:
        raise HelperError(f"{name} ended with {done.returncode}: {printed[-300:]}")
    return printed
