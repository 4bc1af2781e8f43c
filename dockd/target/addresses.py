"""The addresses of one store: which is in use, and where an upload is found at each.

Uploads are remembered by their URL at the first address, whichever they were created at, so that a
fallback may come and go in the configuration. Only URLs below the address itself can be carried over
to another; a store whose upload URLs lie elsewhere is reached at the address that made them.
"""

from collections.abc import Sequence
from time import monotonic

from yarl import URL

RETURN_AFTER_S = 600.0
"""How long another address than the first one is used before the first one is tried again."""


class Addresses:
    """Keeps to the address that answers, and to the first one where possible."""

    def __init__(self, urls: Sequence[str], *, return_after_s: float = RETURN_AFTER_S) -> None:
        """Build for the addresses in order of preference; each is where uploads are created."""
        self._urls = tuple(URL(url) for url in urls)
        self._return_after_s = return_after_s
        self._return_at_s = 0.0
        self.current = self._urls[0]

    @property
    def return_due(self) -> bool:
        """Whether it is time to see if a better address is there again."""
        return self.current != self._urls[0] and monotonic() >= self._return_at_s

    def to_try(self) -> tuple[URL, ...]:
        """Return all addresses in the order in which to try them now."""
        if self.return_due:
            self._return_at_s = monotonic() + self._return_after_s
            return self._urls
        return (self.current, *(url for url in self._urls if url != self.current))

    def use(self, url: URL) -> bool:
        """Use an address that has answered; return whether it is another than before."""
        changed = url != self.current
        if changed:
            self.current = url
            self._return_at_s = monotonic() + self._return_after_s
        return changed

    def remembered(self, url: URL) -> URL:
        """Return the URL by which an upload is remembered."""
        return self._carried(url, self._urls[0])

    def in_use(self, url: URL) -> URL:
        """Return the URL of an upload at the current address."""
        return self._carried(url, self.current)

    def own(self, url: URL) -> bool:
        """Whether the URL is on the store itself, at whichever address."""
        return url.absolute and any(_place(url) == _place(own) for own in self._urls)

    def _carried(self, url: URL, there: URL) -> URL:
        text = str(url)
        for collection in map(_collection, self._urls):
            if text.startswith(collection):
                return URL(_collection(there) + text.removeprefix(collection), encoded=True)
        return url


def _place(url: URL) -> tuple[str, str | None, int | None]:
    """Return the origin (RFC 6454 §4), with its port even where that is the usual one."""
    return url.scheme, url.host, url.port


def _collection(url: URL) -> str:
    """Return the address as what relative references are added to (RFC 3986 §5.2.3)."""
    return str(url).removesuffix(url.raw_name)
