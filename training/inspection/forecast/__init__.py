"""Forecast of a run on a file."""
