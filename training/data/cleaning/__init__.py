"""Normalize, drop and mask examples, and say how many and why."""
