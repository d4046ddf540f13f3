"""The server's counters, and the metrics that Prometheus reads."""
