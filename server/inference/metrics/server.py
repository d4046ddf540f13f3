"""The gateway's Prometheus metrics. Each app has its own registry, so that two apps never share counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from server.inference.metrics.models import ModelMetrics
from serving import EngineState
from serving.registry.loader import RegistryObserver
from serving.registry.pool import Replica

SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """The counters of one app."""

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
        self.database_up = Gauge("tuneloop_database_up", "1 if the database is reachable.", registry=self._registry)
        self._jobs = Gauge(
            "tuneloop_fine_tuning_jobs", "Fine-tuning jobs by status.", ["status"], registry=self._registry
        )
        self.models = ModelMetrics()
        self._registry.register(self.models)
        self._engines = _EngineCollector()
        self._registry.register(self._engines)

    def make_observer(self) -> RegistryObserver:
        """Return the observer that the registry reports loads, evictions and refusals to."""
        return self.models.make_observer()

    def set_engines(self, replicas: Iterable[Replica]) -> None:
        """Set the engines whose state is reported."""
        self._engines.replicas = tuple(replicas)

    def count_jobs(self, by_status: Mapping[str, int]) -> None:
        """Set how many jobs there are of each status."""
        for status, count in by_status.items():
            self._jobs.labels(status).set(count)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineCollector:
    """Reads the engines' state whenever Prometheus collects."""

    def __init__(self) -> None:
        self.replicas: tuple[Replica, ...] = ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics for Prometheus' library."""
        up = GaugeMetricFamily("tuneloop_engine_up", "1 if the engine accepts requests.", labels=["engine"])
        in_flight = GaugeMetricFamily(
            "tuneloop_engine_requests_in_flight", "Requests in progress on the engine.", labels=["engine"]
        )
        held = GaugeMetricFamily("tuneloop_engine_adapters", "Adapters loaded in the engine.", labels=["engine"])
        restarts = CounterMetricFamily("tuneloop_engine_restarts", "Engine restarts.", labels=["engine"])
        for replica in self.replicas:
            up.add_metric([replica.id], replica.engine.state is EngineState.READY)
            in_flight.add_metric([replica.id], replica.in_flight)
            held.add_metric([replica.id], len(replica.loaded_names()))
            restarts.add_metric([replica.id], max(0, replica.engine.generation - 1))
        return (up, in_flight, held, restarts)
