"""The Grafana dashboard shows what a running tuneloop counts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import REPOSITORY, Tuneloop

BOARD = json.loads((REPOSITORY / "monitoring" / "grafana-dashboard.json").read_text(encoding="utf-8"))


def dashboard_metrics() -> Iterator[str]:
    """Every metric that the dashboard's queries name."""
    queries = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", [])]
    queries += [variable["definition"] for variable in BOARD["templating"]["list"] if "definition" in variable]
    for query in queries:
        yield from re.findall(r"(?:tuneloop_|vllm:)\w+", query)


def test_the_dashboard_has_panels_of_its_own_data_source() -> None:
    graphs = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    assert all(panel["datasource"]["uid"] == "${datasource}" and panel["targets"] for panel in graphs)


@pytest.mark.engine
def test_every_metric_of_the_dashboard_exists(tuneloop: Tuneloop) -> None:
    with httpx.Client(base_url=tuneloop.url, timeout=120) as http:
        asked = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "stream": True}
        for model in (tuneloop.base_model, tuneloop.tuned_model):
            http.post("/v1/chat/completions", json=asked | {"model": model}).raise_for_status()
        text = http.get("/metrics").text
    samples = [found for family in text_string_to_metric_families(text) for found in family.samples]
    known = {found.name for found in samples}
    # What only counts once it has happened has its family all the same.
    known |= {f"{family.name}_total" for family in text_string_to_metric_families(text) if family.type == "counter"}
    assert set(dashboard_metrics()) - known == set()
    loads = [found for found in samples if found.name == "tuneloop_model_load_seconds_count"]
    assert sum(found.value for found in loads if found.labels.get("model") == tuneloop.tuned_model) >= 1
