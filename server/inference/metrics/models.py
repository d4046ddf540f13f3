"""The metrics of each model, as Prometheus reads them. The counters are in `counts`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from server.inference.metrics.counts import OUTCOMES, ModelCounts, RequestCounts
from server.wire.errors import APIError
from serving import EngineUnavailableError
from serving.registry.loader import RegistryObserver

_COUNTERS = {
    "output_tokens": "Completion tokens, from the engine's usage, or one per stream event without it.",
    "prompt_tokens": "Prompt tokens, where the engine reports usage.",
    "evictions": "Adapters unloaded to make room for another.",
    "load_failures": "Adapter loads that failed.",
    "parity_failures": "Parity gate failures.",
}
_GAUGES = {
    "in_flight": "Requests in progress.",
    "waiting": "Requests in progress without any output yet: the engine's queue, as clients see it.",
}
_HISTOGRAMS = {
    "first_token": "Time from the request to the first bytes of a streamed answer.",
    "inter_token": "Time between two events of a stream.",
    "load": "Duration of adapter loads into an engine.",
}


class ModelMetrics:
    """The counters of all models. Removed models are dropped, so that there are no more labels than models."""

    def __init__(self) -> None:
        self._models: dict[str, ModelCounts] = {}
        self._resolving = 0

    @contextmanager
    def count_resolving(self) -> Iterator[None]:
        """Count a request while its model is looked up or loaded."""
        self._resolving += 1
        try:
            yield
        finally:
            self._resolving -= 1

    @contextmanager
    def count_request(self, model: str) -> Iterator[RequestCounts]:
        """Count a request to this model, given by its name in the registry."""
        counts = RequestCounts(self._get_counts(model))
        outcome = "cancelled"  # the generator was closed before the answer's end
        try:
            yield counts
        except BaseException as error:
            outcome = _classify_error(error)
            raise
        finally:
            counts.finish(outcome)

    def make_observer(self) -> RegistryObserver:
        """Return the observer that the registry reports loads, evictions and refusals to."""
        return RegistryObserver(
            loaded=lambda model, _engine, seconds: self._get_counts(model).load.observe(seconds),
            evicted=lambda model, _engine: self._count(model, "evictions"),
            refused=lambda model, _reason: self._count(model, "load_failures"),
            parity=lambda model, passed: None if passed else self._count(model, "parity_failures"),
            removed=lambda model: self._forget(model),
        )

    def collect(self) -> Iterable[Metric]:
        """Return the metrics for Prometheus' library."""
        yield GaugeMetricFamily(
            "tuneloop_requests_resolving", "Requests waiting for their model to load.", self._resolving
        )
        yield from self._collect_models()

    def _collect_models(self) -> Iterator[Metric]:
        models = self._models.items()
        requests = CounterMetricFamily(
            "tuneloop_model_requests", f"Requests by outcome: {', '.join(OUTCOMES)}.", labels=["model", "outcome"]
        )
        for name, model in models:
            for outcome, count in model.outcomes.items():
                requests.add_metric([name, outcome], count)
        yield requests
        for attribute, help_text in _COUNTERS.items():
            counter = CounterMetricFamily(f"tuneloop_model_{attribute}", help_text, labels=["model"])
            for name, model in models:
                counter.add_metric([name], getattr(model, attribute))
            yield counter
        for attribute, help_text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"tuneloop_model_requests_{attribute}", help_text, labels=["model"])
            for name, model in models:
                gauge.add_metric([name], getattr(model, attribute))
            yield gauge
        for attribute, help_text in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"tuneloop_model_{attribute}_seconds", help_text, labels=["model"])
            for name, model in models:
                seconds = getattr(model, attribute)
                histogram.add_metric([name], seconds.list_buckets(), seconds.sum_s)
            yield histogram

    def _get_counts(self, model: str) -> ModelCounts:
        return self._models.setdefault(model, ModelCounts())

    def _count(self, model: str, attribute: str) -> None:
        counts = self._get_counts(model)
        setattr(counts, attribute, getattr(counts, attribute) + 1)

    def _forget(self, model: str) -> None:
        self._models.pop(model, None)


def _classify_error(error: BaseException) -> str:
    match error:
        case asyncio.CancelledError() | GeneratorExit():
            return "cancelled"
        case EngineUnavailableError():
            return "unavailable"
        case APIError() if error.status < 500:
            return "refused"
        case _:
            return "failed"
