"""Running jobs: from the queue to the end."""
