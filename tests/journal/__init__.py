"""Tests of the journal, and the scripted visit that they share."""
