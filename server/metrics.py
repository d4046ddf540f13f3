"""Owns the gateway's Prometheus metrics. Each app has a registry of its own, so that two apps never share counts."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of one app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tuneloop_http_requests_total", "Requests answered.", ["route", "method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "tuneloop_http_request_seconds",
            "Time from a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.engine_up = Gauge("tuneloop_engine_up", "1 while the engine answers.", registry=self._registry)
        self.database_up = Gauge("tuneloop_database_up", "1 while the database answers.", registry=self._registry)
        self._jobs = Gauge(
            "tuneloop_fine_tuning_jobs", "Fine-tuning jobs by status.", ["status"], registry=self._registry
        )

    def count_jobs(self, by_status: Mapping[str, int]) -> None:
        """Set how many jobs there are of each status."""
        for status, count in by_status.items():
            self._jobs.labels(status).set(count)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)
