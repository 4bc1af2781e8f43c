"""What ops staff see: events, logs and the status answer."""
