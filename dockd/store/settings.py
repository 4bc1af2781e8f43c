"""The store's limits. The defaults are for the field; tests choose their own."""

from dataclasses import dataclass
from datetime import timedelta

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Limits and times.

    ``reserve_bytes`` of the disk are never taken by footage, so that catalogue and checks can go on.
    ``expire_after`` the last byte an unfinished upload is dropped. A request whose body stands still
    for ``stall_timeout_s`` is cut off. A final answer waits ``receipt_wait_s`` for its receipt, a
    request for a receipt ``receipt_poll_s``: it holds up no further upload.
    """

    max_size_bytes: int = 256 * GIB
    reserve_bytes: int = 1 * GIB
    expire_after: timedelta = timedelta(days=7)
    stall_timeout_s: float = 30.0
    receipt_wait_s: float = 0.2
    receipt_poll_s: float = 1.0
    bodies_at_once: int = 256
    checks_waiting: int = 10_000
    small_bytes: int = 1024 * 1024
    retry_s: float = 5.0
    sweep_s: float = 600.0
