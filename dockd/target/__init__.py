"""Where footage goes: the tus client, and the one place that retries."""
