"""How the store is reached: at which addresses, trusting whom, as whom, and through which proxy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dockd.config import TargetConfig


@dataclass(frozen=True, slots=True)
class Connection:
    """What a dock's configuration says of the way to its store; by default the plainest way.

    ``ca_file`` holds the only authorities that are trusted (None: the system's). ``certificate`` and
    ``private_key`` are what the dock shows of itself. ``proxy`` is an HTTP proxy (CONNECT, RFC 9110
    §9.3.6), with a user's name in it where it wants one.
    """

    fallback_urls: tuple[str, ...] = ()
    ca_file: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    proxy: str | None = None
    proxy_password_file: Path | None = None

    @classmethod
    def of(cls, config: TargetConfig) -> Self:
        """Return what ``[target]`` says."""
        return cls(
            fallback_urls=config.fallback_urls,
            ca_file=config.ca_file,
            certificate=config.certificate,
            private_key=config.private_key,
            proxy=config.proxy,
            proxy_password_file=config.proxy_password_file,
        )
