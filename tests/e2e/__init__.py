"""dockd in a booted Debian 12 with cameras plugged into an emulated USB hub; run it with ``make e2e``."""
