"""Owns the metrics of each model: who counts, and how Prometheus is told. What is counted is in `counts`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from server.inference.metrics.counts import OUTCOMES, Counted, ModelCounts
from server.wire.errors import APIError
from serving import EngineUnavailableError
from serving.registry.observer import RegistryObserver

_COUNTERS = {
    "output_tokens": "Tokens of answers; by the engine's usage, or one an event of a stream without it.",
    "prompt_tokens": "Tokens of prompts, where the engine's usage says.",
    "evictions": "Times an adapter made room for another.",
    "load_failures": "Loads that were refused.",
    "parity_failures": "Times the parity gate refused it.",
}
_GAUGES = {
    "in_flight": "Requests that are being answered, or about to be.",
    "waiting": "Of these, the ones with nothing of an answer yet: the engine's queue, as clients feel it.",
}
_SPREADS = {
    "first_token": "From the request to the first bytes of a streamed answer.",
    "inter_token": "Between one event of a stream and the next.",
    "load": "Loads of an adapter into an engine, as many as there were.",
}


class ModelMetrics:
    """What all models do. A model that was removed leaves nothing, so the labels stay as few as the models."""

    def __init__(self) -> None:
        self._models: dict[str, ModelCounts] = {}
        self._resolving = 0

    @contextmanager
    def resolving(self) -> Iterator[None]:
        """Counts a request while its model is looked up, loaded, or waited for."""
        self._resolving += 1
        try:
            yield
        finally:
            self._resolving -= 1

    @contextmanager
    def request(self, model: str) -> Iterator[Counted]:
        """Counts a request to this model, a name that the registry gave."""
        counted = Counted(self._of(model))
        outcome = "cancelled"  # left before the answer's end, without a word
        try:
            yield counted
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            counted.end(outcome)

    def observer(self) -> RegistryObserver:
        """What the registry tells its loads to."""
        return RegistryObserver(
            loaded=lambda model, _engine, seconds: self._of(model).load.observe(seconds),
            evicted=lambda model, _engine: self._count(model, "evictions"),
            refused=lambda model, _reason: self._count(model, "load_failures"),
            parity=lambda model, passed: None if passed else self._count(model, "parity_failures"),
            removed=lambda model: self._forget(model),
        )

    def collect(self) -> Iterable[Metric]:
        """The metrics as Prometheus' library takes them."""
        yield GaugeMetricFamily(
            "tuneloop_requests_resolving", "Requests that wait for their model to be loaded.", self._resolving
        )
        yield from self._families()

    def _families(self) -> Iterator[Metric]:
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
        for attribute, help_text in _SPREADS.items():
            spread = HistogramMetricFamily(f"tuneloop_model_{attribute}_seconds", help_text, labels=["model"])
            for name, model in models:
                seconds = getattr(model, attribute)
                spread.add_metric([name], seconds.buckets(), seconds.sum_s)
            yield spread

    def _of(self, model: str) -> ModelCounts:
        return self._models.setdefault(model, ModelCounts())

    def _count(self, model: str, attribute: str) -> None:
        counted = self._of(model)
        setattr(counted, attribute, getattr(counted, attribute) + 1)

    def _forget(self, model: str) -> None:
        self._models.pop(model, None)


def _outcome(error: BaseException) -> str:
    match error:
        case asyncio.CancelledError() | GeneratorExit():
            return "cancelled"
        case EngineUnavailableError():
            return "unavailable"
        case APIError() if error.status < 500:
            return "refused"
        case _:
            return "failed"
