"""Tests of what an installed dock consists of: units, package, maintainer scripts."""
