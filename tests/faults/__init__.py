"""Bad luck for the real daemon: killed at any step, stopped at any moment, its disk failing."""
