"""What happened in a run: progress, journal, curves, health."""
