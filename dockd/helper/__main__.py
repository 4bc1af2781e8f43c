"""``dockd-helper``: reads its configuration, takes the socket that systemd has made, and serves."""

import argparse
import pwd
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyudev

from dockd import __version__
from dockd.cameras.discovery import find_devices
from dockd.cameras.profiles import load_profiles
from dockd.cameras.wiping import WipeAuthority
from dockd.core.errors import ConfigError, DockdError
from dockd.core.model import Confirm
from dockd.evidence.keys import load_verifying_key
from dockd.evidence.receipts import ReceiptVerifier
from dockd.helper.actions import Actions
from dockd.helper.bays import Bays
from dockd.helper.config import DEFAULT_PATH, HelperConfig, load_helper_config
from dockd.helper.ledger import Ledger
from dockd.helper.server import Server, listening_socket
from dockd.ops import events
from dockd.ops.logs import configure_logs


def main() -> None:
    """Run the helper. Exits with 2 when its configuration cannot be used, 1 for other faults."""
    arguments = _arguments()
    configure_logs("info")
    try:
        serve(load_helper_config(arguments.config), arguments.socket)
    except ConfigError as error:
        sys.stderr.write("\n".join((f"dockd-helper: {error.file}:", *error.problems, "")))
        sys.exit(2)
    except (DockdError, OSError) as error:
        sys.exit(f"dockd-helper: {error}")


def serve(config: HelperConfig, socket_path: str | None) -> None:
    """Serve until SIGTERM or SIGINT. Raises DockdError, OSError when it cannot begin."""
    user = pwd.getpwnam(config.user)
    authority = wipe_authority(config)
    ledger = Ledger(config.state_dir / "wipes")
    actions = Actions(
        Bays(
            {bay.name: bay.port for bay in config.bays},
            load_profiles([config.profiles_dir]),
            # A new context each time: libudev's are not for several threads.
            lambda: find_devices(pyudev.Context()),
        ),
        authority,
        ledger,
        (user.pw_uid, user.pw_gid),
        lambda: datetime.now(UTC),
    )
    server = Server(listening_socket(socket_path), actions, {0, user.pw_uid})
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    events.HELPER_STARTED.log(
        version=__version__,
        dock=config.dock,
        store=config.store_id,
        confirm=config.confirm.value,
        receipt_key=authority.verifier.key.key_id,
        bays=actions.bays,
        unfinished=sum(1 for _ in ledger.entries()),
    )
    server.run()


def wipe_authority(config: HelperConfig) -> WipeAuthority:
    """Return by whose word the helper erases. Raises KeyFileError.

    Only where the dock itself confirms is its key at hand, and manifests must be by it, too. Otherwise
    the store's word on the manifest's bytes is what counts.
    """
    key = load_verifying_key(config.proof_key)
    verifier = ReceiptVerifier(config.store_id, key, config.confirm)
    return WipeAuthority(config.dock, key if config.confirm is Confirm.READBACK else None, verifier)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dockd-helper", description=__doc__)
    parser.add_argument("-c", "--config", type=Path, default=DEFAULT_PATH)
    parser.add_argument("--socket", help="listen here; without it, on the socket systemd passes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
