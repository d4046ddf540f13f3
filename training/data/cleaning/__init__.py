"""Normalises, drops and masks examples, and reports how many and why."""
