"""/metrics: what is counted of each model and engine, what is passed on of the engines' own, and who shows it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.inference.metrics.engines import merge_expositions
from serving import EngineState, EngineUnavailableError
from tests.server.conftest import Gateway, StartGateway
from tests.server.fake_engine import FakeAnswer, streamed

CHAT = "/v1/chat/completions"
ASKED = {"model": "base", "messages": [], "stream": True}
DIED = EngineUnavailableError("The engine died.", retry_after_s=2, before_answer=True)
CUT = EngineUnavailableError("The engine died.", retry_after_s=2)
OWN = b"""# HELP vllm:running How many.
# TYPE vllm:running gauge
vllm:running{engine="0",model_name="a b,c"} 2.0
# HELP vllm:up Whether.
# TYPE vllm:up gauge
vllm:up 1.0
"""


def sample(text: str, name: str, **labels: str) -> float:
    """The value of the sample with this name and these labels; 0 where there is none."""
    for family in text_string_to_metric_families(text):
        for found in family.samples:
            if found.name == name and labels.items() <= found.labels.items():
                return float(found.value)
    return 0.0


def get_metrics(gateway: Gateway) -> str:
    """What /metrics says now."""
    return gateway.http.get("/metrics").raise_for_status().text


def outcomes(gateway: Gateway, model: str = "base") -> dict[str, float]:
    """The model's requests by outcome."""
    families = {family.name: family for family in text_string_to_metric_families(get_metrics(gateway))}
    return {
        found.labels["outcome"]: found.value
        for found in families["tuneloop_model_requests"].samples
        if found.labels["model"] == model
    }


def answering_in_turn(*answers: FakeAnswer | Exception) -> Any:
    """A script that gives one of these after another."""
    left = iter(answers)

    def script(_body: object) -> FakeAnswer:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return script


def test_a_stream_counts_its_tokens_and_waits(gateway: Gateway) -> None:
    gateway.http.post(CHAT, json=ASKED)
    text = get_metrics(gateway)
    assert outcomes(gateway) == {"ok": 1}
    assert sample(text, "tuneloop_model_output_tokens_total", model="base") == 2  # hel, lo, the end, [DONE]: events − 2
    assert sample(text, "tuneloop_model_first_token_seconds_count", model="base") == 1
    assert sample(text, "tuneloop_model_inter_token_seconds_count", model="base") == 3
    assert sample(text, "tuneloop_model_requests_in_flight", model="base") == 0
    assert sample(text, "tuneloop_model_requests_waiting", model="base") == 0


def test_the_engines_own_count_of_tokens_is_believed(start_gateway: StartGateway) -> None:
    quoted = json.dumps({"content": 'she said "completion_tokens": 99'}).encode()
    usage = b'{"choices":[' + quoted + b'],"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5}}'
    gateway = start_gateway(lambda _body: FakeAnswer(usage[:40], usage[40:]))
    gateway.http.post(CHAT, json={"model": "base", "messages": []})
    text = get_metrics(gateway)
    assert sample(text, "tuneloop_model_output_tokens_total", model="base") == 5
    assert sample(text, "tuneloop_model_prompt_tokens_total", model="base") == 7
    assert sample(text, "tuneloop_model_first_token_seconds_count", model="base") == 0  # it was no stream


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (FakeAnswer(b'{"error":{"message":"m"}}', status=400), "refused"),
        (FakeAnswer(b'{"error":{"message":"m"}}', status=500), "failed"),
        (EngineUnavailableError("It is starting.", 3), "unavailable"),
        (streamed("base", "one", end=CUT), "cut"),
    ],
)
def test_what_went_wrong_is_told_by_the_outcome(
    start_gateway: StartGateway, answer: FakeAnswer | Exception, expected: str
) -> None:
    gateway = start_gateway(answering_in_turn(answer))
    gateway.http.post(CHAT, json=ASKED)
    assert outcomes(gateway) == {expected: 1}


def test_unknown_models_make_no_labels(gateway: Gateway) -> None:
    assert gateway.http.post(CHAT, json=ASKED | {"model": "made-up"}).status_code == 404
    assert "made-up" not in get_metrics(gateway)


def test_an_engine_that_dies_before_its_first_byte_is_asked_once_more(start_gateway: StartGateway) -> None:
    gateway = start_gateway(answering_in_turn(FakeAnswer(DIED), streamed("base", "back")))
    response = gateway.http.post(CHAT, json=ASKED)
    assert (response.status_code, "back" in response.text) == (200, True)
    assert outcomes(gateway) == {"asked_again": 1, "ok": 1}


def test_a_request_that_the_engine_dies_of_twice_is_given_up(start_gateway: StartGateway) -> None:
    gateway = start_gateway(answering_in_turn(FakeAnswer(DIED), DIED, streamed("base", "never asked for")))
    response = gateway.http.post(CHAT, json=ASKED)
    assert (response.status_code, gateway.error(response)["code"]) == (503, "engine_unavailable")
    assert "retry-after" in response.headers
    assert outcomes(gateway) == {"asked_again": 1, "unavailable": 1}


def test_an_answer_that_has_begun_is_never_asked_for_again(start_gateway: StartGateway) -> None:
    gateway = start_gateway(lambda body: streamed(body["model"], "one", end=CUT))
    assert gateway.http.post(CHAT, json=ASKED).text.count("one") == 1
    assert len(gateway.engine.requests) == 1


def test_the_registry_tells_loads_evictions_and_refusals(gateway: Gateway) -> None:
    observer = gateway.services.metrics.make_observer()
    observer.loaded("ft:a", "engine-0", 0.2)
    observer.evicted("ft:a", "engine-0")
    observer.refused("ft:a", "its rank is too high")
    observer.parity("ft:a", True)
    observer.parity("ft:a", False)
    text = get_metrics(gateway)
    for name in ("load_seconds_count", "evictions_total", "load_failures_total", "parity_failures_total"):
        assert sample(text, f"tuneloop_model_{name}", model="ft:a") == 1
    observer.removed("ft:a")
    assert "ft:a" not in get_metrics(gateway)


def test_the_engines_own_metrics_are_passed_on_with_its_name(gateway: Gateway) -> None:
    gateway.engine.metrics = FakeAnswer(OWN, content_type="text/plain; version=0.0.4")
    text = get_metrics(gateway)
    assert sample(text, "vllm:running", engine="engine-0", exported_engine="0", model_name="a b,c") == 2
    assert sample(text, "vllm:up", engine="engine-0") == 1
    assert sample(text, "tuneloop_engine_up", engine="engine-0") == 1


@pytest.mark.parametrize(
    "answer",
    [
        FakeAnswer(OWN, content_type="text/plain", status=503),
        FakeAnswer(OWN[:50], CUT, content_type="text/plain"),
        FakeAnswer(OWN, content_type="text/html"),
    ],
)
def test_an_engine_that_has_no_metrics_now_is_left_out(gateway: Gateway, answer: FakeAnswer) -> None:
    gateway.engine.metrics = answer
    assert "vllm:" not in get_metrics(gateway)


def test_an_engine_that_is_down_is_told_to_be_and_not_asked(gateway: Gateway) -> None:
    gateway.engine.metrics = FakeAnswer(OWN, content_type="text/plain")
    gateway.engine.state = EngineState.DEAD
    text = get_metrics(gateway)
    assert "vllm:" not in text
    assert sample(text, "tuneloop_engine_up", engine="engine-0") == 0


def test_engines_share_each_family() -> None:
    text = merge_expositions({"a": OWN, "b": OWN}).decode()
    assert text.count("# TYPE vllm:running gauge") == 1
    assert [sample(text, "vllm:running", engine=engine) for engine in "ab"] == [2, 2]
