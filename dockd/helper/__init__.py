"""The privileged process: mounts, write block, erase, port power. It has no network."""
