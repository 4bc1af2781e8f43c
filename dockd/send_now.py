"""What a person wants to have sent before all else: finds it in the bays, and puts it first.

A recording is named by its path on the camera or the end of it, with the camera's id before it where
several cameras have one of that name: ``MOV_0001.MP4``, ``DCIM/MOV_0001.MP4``, ``cam-7/DCIM/MOV_0001.MP4``.
It holds until the camera is pulled or the daemon ends.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dockd.bay import Bay
from dockd.core.model import display_name
from dockd.ops import events
from dockd.recordings import Recordings

MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class _Match:
    bay: Bay
    recordings: Recordings
    camera: str
    visit: str
    path: bytes | None

    @property
    def name(self) -> str:
        return self.camera if self.path is None else f"{self.camera}/{display_name(self.path)}"


def send_now(bays: Iterable[Bay], what: str) -> dict[str, object]:
    """Put a camera's recordings, or one recording, before all others.

    Returns what it is (``found``: its name, or None), the bay and its state, how many recordings
    ``waiting`` are now sent first, and ``candidates``: the names that would fit as well, of which
    somebody must choose one before anything is done.
    """
    bays = list(bays)
    matches = list(_cameras(bays, what)) or list(_recordings(bays, what))
    if len(matches) != 1:
        names = sorted(match.name for match in matches)
        return _answer(what, None, None, 0, names)
    (match,) = matches
    waiting = match.recordings.hurry(None if match.path is None else {match.path})
    events.UPLOAD_SEND_NOW.log(
        bay=match.bay.name,
        camera=match.camera,
        visit=match.visit,
        recordings=waiting,
        what=match.name,
    )
    return _answer(what, match.name, match.bay, waiting, [])


def _answer(
    what: str, found: str | None, bay: Bay | None, waiting: int, names: list[str]
) -> dict[str, object]:
    return {
        "what": what,
        "found": found,
        "bay": bay.name if bay is not None else None,
        "state": bay.state.value if bay is not None else None,
        "waiting": waiting,
        "candidates": names[:MAX_SHOWN],
        "candidates_in_all": len(names),
    }


def _cameras(bays: Iterable[Bay], what: str) -> Iterator[_Match]:
    for bay in bays:
        if bay.visit is not None and bay.recordings is not None:
            camera = bay.visit.camera.camera_id
            if what in (camera, display_name(camera.encode())):
                yield _Match(bay, bay.recordings, camera, bay.visit.visit_id, None)


def _recordings(bays: Iterable[Bay], what: str) -> Iterator[_Match]:
    for bay in bays:
        if bay.visit is not None and bay.recordings is not None:
            camera = bay.visit.camera.camera_id
            for path in bay.recordings.by_path:
                name = f"{camera}/{display_name(path)}"
                if name == what or name.endswith(f"/{what}"):
                    yield _Match(bay, bay.recordings, camera, bay.visit.visit_id, path)
