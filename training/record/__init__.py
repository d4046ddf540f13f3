"""The record of a run: progress events, journal, curves, health."""
