"""What every bay of a dock works with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dockd.config import Config
from dockd.core.errors import ReceiptKeyUnknownError
from dockd.core.interfaces import Clock, Journal
from dockd.core.model import ReceiptClaims
from dockd.dispatch import Dispatcher
from dockd.evidence.keys import SigningKey
from dockd.evidence.receipts import ReceiptVerifier
from dockd.target.uploader import Uploader


async def _nothing_to_learn() -> None:
    """Stand for a target whose key never changes."""


@dataclass(frozen=True, slots=True)
class Services:
    """One of each for the whole dock; which is real and which simulated, only their builder knows."""

    config: Callable[[], Config]
    journal: Journal
    uploader: Uploader
    dispatcher: Dispatcher
    verifier: ReceiptVerifier
    key: SigningKey
    clock: Clock
    learn_receipt_keys: Callable[[], Awaitable[None]] = _nothing_to_learn

    @property
    def dock(self) -> str:
        """The dock's name."""
        return self.config().dock.name

    async def verify_receipt(self, jws: str) -> ReceiptClaims:
        """Return what a receipt states, once the store was asked about a key that is not known yet.

        Raises ReceiptInvalidError.
        """
        try:
            return self.verifier.verify(jws)
        except ReceiptKeyUnknownError:
            await self.learn_receipt_keys()
            return self.verifier.verify(jws)
