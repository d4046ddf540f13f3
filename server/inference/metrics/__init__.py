"""What is counted, and how Prometheus is shown it."""
