"""What a run's losses say about it."""
