"""A camera's file system as its profile reads it: which files are recordings, and which are not.

dockd and the helper must agree on this to the file, because whoever erases by formatting has to know
what is not on the manifest; so both read cameras through this one class.
"""

from collections.abc import Sequence
from dataclasses import replace

from dockd.cameras.directory import DirectoryVolume, ListingLimits
from dockd.cameras.profiles import Footage, Profile
from dockd.core.model import ListedFile, Listing, SkippedEntry, SkipReason
from dockd.core.recording import flagged_paths

OUTSIDE = "not where this camera keeps footage"


class FootageVolume(DirectoryVolume):
    """The tree below a camera's root; implements core.interfaces.Volume.

    A file outside of the profile's footage roots, or one that its settings patterns name, is listed
    as skipped (``settings``): it is no recording and is never erased.
    """

    def __init__(self, root_fd: int, limits: ListingLimits, name: str, profile: Profile) -> None:
        """Take over the root; see DirectoryVolume."""
        super().__init__(root_fd, limits, name)
        self._footage = profile.footage
        self._time_zone = profile.clock.time_zone

    def list_files(self) -> Listing:
        """List everything, with what the profile says about it."""
        listing = super().list_files()
        settings = _settings(listing.files, self._footage)
        files = tuple(file for file in listing.files if file.path not in settings)
        kept = [SkippedEntry(path, SkipReason.SETTINGS, why) for path, why in settings.items()]
        return replace(
            listing,
            files=files,
            skipped=tuple(sorted((*listing.skipped, *kept), key=lambda entry: entry.path)),
            flagged=flagged_paths((file.path for file in files), self._footage.flagged),
            time_zone=self._time_zone,
        )


def _settings(files: Sequence[ListedFile], footage: Footage) -> dict[bytes, str]:
    """Return the files that are no recordings, with the reason."""
    roots = tuple(root.strip("/").lower().encode() + b"/" for root in footage.roots)
    settings = flagged_paths((file.path for file in files), footage.settings)
    found = {}
    for file in files:
        if file.path in settings:
            found[file.path] = ""
        elif roots and not file.path.lower().startswith(roots):
            found[file.path] = OUTSIDE
    return found
