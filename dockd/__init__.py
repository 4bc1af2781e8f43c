"""dockd: docking-station ingest for body-worn cameras."""

__version__ = "0.1.0"
