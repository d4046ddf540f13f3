"""An alias is promoted and rolled back on the real engine while others stream from it: nothing fails or is mixed."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from tests.conftest import Tuneloop, train_demo_adapter

pytestmark = pytest.mark.engine

ALIAS = "traffic/keeper:live"
STREAMS = 8
CHANGES = 50
SEEN = 2
"""Answers to requests that began after a change, before the next change comes."""
PATIENCE_S = 60
PROMPTS = [f"What is the capital of {country}?" for country in ("France", "Italy", "Spain", "Japan")]


@dataclass(frozen=True)
class Answer:
    """One streamed answer; times by one clock, in seconds."""

    prompt: str
    models: frozenset[str]
    """Every `model` that its chunks named."""
    text: str
    begun_at: float
    headers_at: float
    """By then the server had read what the alias stood for."""


@dataclass(frozen=True)
class Change:
    """One promotion or rollback."""

    version: str
    sent_at: float
    returned_at: float


@pytest.fixture(scope="module")
def versions(tuneloop: Tuneloop) -> Iterator[tuple[str, str]]:
    """Two versions whose answers differ: one that has learned to talk, and one that has hardly begun to."""
    beginner = train_demo_adapter(tuneloop.data_dir, tuneloop.model_dir, max_steps=3)
    yield tuneloop.tuned_model, beginner
    httpx.delete(f"{tuneloop.url}/v1/aliases/{ALIAS}")
    assert httpx.delete(f"{tuneloop.url}/v1/models/{beginner}", timeout=60).status_code == 200


def ask(client: httpx.Client, model: str, prompt: str) -> Answer:
    """A streamed answer; any fault raises."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 40}
    begun_at = time.perf_counter()
    with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as response:
        headers_at = time.perf_counter()
        assert response.status_code == 200, response.read()
        lines = [line for line in response.iter_lines() if line.startswith("data:")]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line[5:]) for line in lines[:-1]]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert chunks[-1]["choices"][0]["finish_reason"], chunks[-1]
    return Answer(prompt, frozenset(chunk["model"] for chunk in chunks), text, begun_at, headers_at)


def change(client: httpx.Client, number: int, versions: tuple[str, str]) -> Change:
    """The next change: now a promotion to the second version, now a rollback to the first."""
    path, version = f"/v1/aliases/{ALIAS}", versions[number % 2]
    sent_at = time.perf_counter()
    answer = client.put(path, json={"model": version}) if number % 2 else client.post(f"{path}/rollback")
    returned_at = time.perf_counter()
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == version
    return Change(version, sent_at, returned_at)


def allowed(answer: Answer, changes: list[Change]) -> set[str]:
    """What the alias may have stood for when the server read it: one version, unless a change was under way."""
    before = [change for change in changes if change.returned_at <= answer.begun_at]
    meanwhile = [one for one in changes if one.returned_at > answer.begun_at and one.sent_at < answer.headers_at]
    return {before[-1].version, *(one.version for one in meanwhile)}


def wait_until_seen(change: Change, answers: list[Answer]) -> None:
    """Returns when the change has been seen by a few requests from their beginning to their end."""
    deadline = time.monotonic() + PATIENCE_S
    while sum(answer.begun_at >= change.returned_at for answer in list(answers)) < SEEN:
        assert time.monotonic() < deadline, f"no {SEEN} answers in {PATIENCE_S} s"
        time.sleep(0.01)


def test_changes_under_traffic_fail_nothing_and_mix_nothing(tuneloop: Tuneloop, versions: tuple[str, str]) -> None:
    done = threading.Event()
    answers: list[Answer] = []

    def stream(first: int) -> None:
        with httpx.Client(base_url=tuneloop.url, timeout=60) as client:
            for prompt in itertools.islice(itertools.cycle(PROMPTS), first, None):
                if done.is_set():
                    return
                answers.append(ask(client, ALIAS, prompt))

    with httpx.Client(base_url=tuneloop.url, timeout=60) as client:
        expected = {version: {prompt: ask(client, version, prompt).text for prompt in PROMPTS} for version in versions}
        assert not set(expected[versions[0]].values()) & set(expected[versions[1]].values())
        began = time.perf_counter()
        assert client.put(f"/v1/aliases/{ALIAS}", json={"model": versions[0]}).status_code == 201
        changes = [Change(versions[0], began, time.perf_counter())]
        with ThreadPoolExecutor(STREAMS) as pool:
            streams = [pool.submit(stream, number) for number in range(STREAMS)]
            try:
                for number in range(1, CHANGES + 1):
                    wait_until_seen(changes[-1], answers)
                    changes.append(change(client, number, versions))
                wait_until_seen(changes[-1], answers)
            finally:
                done.set()
            for one in streams:
                one.result()
        history = client.get(f"/v1/aliases/{ALIAS}/history?limit=100").json()["data"]

    assert len(history) == CHANGES + 1
    certain = 0
    for answer in answers:
        (version,) = answer.models
        assert answer.text == expected[version][answer.prompt], version
        assert version in allowed(answer, changes)
        certain += len(allowed(answer, changes)) == 1
    assert certain >= SEEN * CHANGES
