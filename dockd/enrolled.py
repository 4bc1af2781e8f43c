"""What enrolment has left on the dock: the pinned store, in files that only root may change.

They lie in the directory ``enrolled`` beside the configuration files of the daemon and of the helper, which
both read them where they do not name a store themselves. The dock's own key and certificate are not
among them: the daemon renews the certificate by itself, so they are in its state directory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dockd.core.errors import EnrolmentError
from dockd.journal import durable

KEY_NAME = "dock-key.pem"
CERTIFICATE_NAME = "dock-certificate.pem"

_NAMED_ITSELF = ("store_id", "receipt_key", "confirm")


class Pinned(BaseModel):
    """``store.json``: which store, where, and under which name it knows this dock."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dock: str
    store_id: str
    url: str


@dataclass(frozen=True, slots=True)
class EnrolledFiles:
    """The files of an enrolment."""

    directory: Path

    @classmethod
    def beside(cls, config_file: Path) -> "EnrolledFiles":
        """Return those that belong to a configuration file."""
        return cls(config_file.resolve().parent / "enrolled")

    @property
    def store(self) -> Path:
        """See :class:`Pinned`."""
        return self.directory / "store.json"

    @property
    def ca(self) -> Path:
        """The certificate of the store's authority."""
        return self.directory / "ca.pem"

    @property
    def receipt_key(self) -> Path:
        """The store's receipt key at the time of the enrolment."""
        return self.directory / "receipt-key.pem"

    def read(self) -> Pinned | None:
        """Return the pinned store, None before any enrolment. Blocking. Raises EnrolmentError."""
        try:
            return Pinned.model_validate_json(self.store.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EnrolmentError(f"{self.store}: {error.strerror}") from error
        except ValidationError as error:
            raise EnrolmentError(f"{self.store} is not what an enrolment writes") from error

    def write(self, pinned: Pinned, *, ca: bytes, receipt_key: bytes) -> None:
        """Pin a store, instead of the one before. Blocking. Raises OSError.

        Cut off in between, what is there does not belong together: nothing is accepted then.
        """
        self.directory.mkdir(exist_ok=True)
        self.directory.chmod(0o755)
        for file, content in (
            (self.ca, ca),
            (self.receipt_key, receipt_key),
            (self.store, pinned.model_dump_json().encode() + b"\n"),
        ):
            durable.write_file(file, content, mode=0o644)
            file.chmod(0o644)  # whatever root's umask is: the daemon must read it

    def read_for(self, table: Mapping[str, object]) -> Pinned | None:
        """Return the pinned store unless this table of a configuration names one itself.

        Blocking. Raises EnrolmentError.
        """
        return None if names_a_store(table) else self.read()

    def for_target(self, pinned: Pinned, state_dir: str) -> dict[str, object]:
        """Return what ``[target]`` need not say."""
        return {
            "url": pinned.url,
            "store_id": pinned.store_id,
            "receipt_key": str(self.receipt_key),
            "ca_file": str(self.ca),
            "certificate": str(Path(state_dir) / CERTIFICATE_NAME),
            "private_key": str(Path(state_dir) / KEY_NAME),
        }

    def for_helper(self, pinned: Pinned) -> dict[str, object]:
        """Return what the helper's configuration need not say."""
        return {
            "dock": pinned.dock,
            "store_id": pinned.store_id,
            "receipt_key": str(self.receipt_key),
        }


def names_a_store(table: Mapping[str, object]) -> bool:
    """Whether a table of a configuration says itself whose word counts."""
    return any(key in table for key in _NAMED_ITSELF)
