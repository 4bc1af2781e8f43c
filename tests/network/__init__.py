"""The real dock and the real store with a network between them that does everything networks do."""
