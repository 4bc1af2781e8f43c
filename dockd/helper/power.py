"""Data and power of one bay's USB port, through the kernel's own switches in sysfs.

``authorized`` of a device switches its data and leaves its power on. ``disable`` of a hub's port
(kernel 6.0 and newer) takes its power away, on hubs that really can: some say that they can and do
not, so what is reported here is the hub's own word. Nothing else in sysfs is ever written.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dockd.core.errors import CameraGoneError, HelperError
from dockd.core.model import Power

CYCLE_OFF_S = 3.0
"""How long the power stays off in a cycle, so that a camera really starts anew."""


class Port:
    """The USB port of a bay, as the configuration names it: ``1-1.4``."""

    def __init__(
        self,
        port: str,
        *,
        sysfs: Path = Path("/sys"),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Build for a port; nothing is touched yet."""
        self._port = port
        self._devices = sysfs / "bus/usb/devices"
        self._sleep = sleep

    def set_data(self, *, on: bool) -> None:
        """Switch the data of the device in the port. Raises CameraGoneError, HelperError."""
        switch = self._devices / self._port / "authorized"
        try:
            if (switch.read_text(encoding="ascii").strip() == "1") != on:
                switch.write_text("1" if on else "0", encoding="ascii")
        except FileNotFoundError as error:
            raise CameraGoneError(f"nothing is in USB port {self._port}") from error
        except OSError as error:
            raise HelperError(f"{switch}: {error.strerror}") from error

    def power(self) -> Power:
        """Return what the hub says about the port's power; unknown where the port has no switch."""
        states = set()
        for switch in self._power_switches():
            try:
                states.add(switch.read_text(encoding="ascii").strip())
            except OSError:
                return Power.UNKNOWN
        if states == {"0"}:
            return Power.ON
        return Power.OFF if states == {"1"} else Power.UNKNOWN

    def set_power(self, *, on: bool) -> Power:
        """Switch the port's power where it has a switch. Raises HelperError when the hub refuses."""
        wanted = "0" if on else "1"
        for switch in self._power_switches():
            try:
                if switch.read_text(encoding="ascii").strip() != wanted:
                    switch.write_text(wanted, encoding="ascii")
            except OSError as error:
                raise HelperError(f"{switch}: {error.strerror}") from error
        return self.power()

    def cycle_power(self) -> Power:
        """Take the port's power away for a moment. Raises HelperError when the hub refuses."""
        if self.set_power(on=False) is Power.UNKNOWN:
            return Power.UNKNOWN
        self._sleep(CYCLE_OFF_S)
        return self.set_power(on=True)

    def _power_switches(self) -> Iterator[Path]:
        """Find the switch of the port, and of its peer.

        A USB 3 hub is two hubs, and each of its sockets is a port of both: it has power until both
        have let go of it.
        """
        bus, _, ports = self._port.partition("-")
        hub, _, number = ports.rpartition(".")
        # The root hub is called usb1, its interface 1-0:1.0; a hub at 1-1 has the interface 1-1:1.0.
        interface = f"{bus}-{hub or '0'}:1.0"
        name = f"{f'{bus}-{hub}' if hub else f'usb{bus}'}-port{number}"
        port = self._devices / interface / name
        for place in (port, port / "peer"):
            switch = place / "disable"
            if switch.exists():
                yield switch
