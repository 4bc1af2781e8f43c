"""Durable state: the atomic file writer, the SQLite database with group commit, the dock's journal."""
