"""The world around the daemon, simulated: time, stores, cameras. Same doors, no wires, no waiting."""
