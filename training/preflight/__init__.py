"""Checks before a run starts, without torch."""
