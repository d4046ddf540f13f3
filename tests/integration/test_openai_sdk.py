"""Code written for OpenAI runs here unmodified: the official SDK, strict about answers, on the real engine."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
import openai
import pytest

from evaluation import ChatEndpoint, compare_models, read_questions
from tests.conftest import Lesson, Tuneloop
from training.demo.examples import HOLDOUT

pytestmark = pytest.mark.engine

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def lesson(lessons: list[Lesson]) -> Lesson:
    """What both models answer as they were taught."""
    return lessons[0]


@pytest.fixture
def expected(tuneloop: Tuneloop, lesson: Lesson) -> dict[str, str]:
    """Model → its answer to the lesson."""
    return {tuneloop.base_model: lesson.plain, tuneloop.tuned_model: lesson.tuned}


def test_models_are_listed_and_retrieved_in_every_spelling(client: openai.OpenAI, tuneloop: Tuneloop) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed[0] == tuneloop.base_model
    assert tuneloop.tuned_model in listed
    assert client.models.retrieve(tuneloop.tuned_model).id == tuneloop.tuned_model
    encoded = tuneloop.tuned_model.replace(":", "%3A")
    assert httpx.get(f"{tuneloop.url}/v1/models/{encoded}").json()["parent"] == tuneloop.base_model


def test_base_and_tuned_answer_as_themselves(client: openai.OpenAI, lesson: Lesson, expected: dict[str, str]) -> None:
    for model, answer in expected.items():
        completion = client.chat.completions.create(model=model, messages=lesson.messages, temperature=0)
        assert completion.model == model
        assert completion.choices[0].message.content == answer
        assert completion.choices[0].finish_reason == "stop"


def test_stream_says_the_same_as_the_whole_answer(
    client: openai.OpenAI, lesson: Lesson, expected: dict[str, str]
) -> None:
    for model, answer in expected.items():
        stream = client.chat.completions.create(
            model=model, messages=lesson.messages, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == answer
        assert {chunk.model for chunk in chunks} == {model}
        assert chunks[-1].usage is not None
        assert len(chunks) > 5


def test_async_client_streams_from_both_models_at_once(
    tuneloop: Tuneloop, lesson: Lesson, expected: dict[str, str]
) -> None:
    async def answer(client: openai.AsyncOpenAI, model: str) -> str:
        stream = await client.chat.completions.create(model=model, messages=lesson.messages, temperature=0, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    async def both() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{tuneloop.url}/v1", api_key="unused") as client:
            return await asyncio.gather(*(answer(client, model) for model in list(expected) * 8))

    assert asyncio.run(both()) == list(expected.values()) * 8


def test_legacy_completions(client: openai.OpenAI, tuneloop: Tuneloop) -> None:
    # Greedy: a sampled answer may end before it begins.
    completion = client.completions.create(
        model=tuneloop.base_model, prompt="The capital of", max_tokens=5, logprobs=2, temperature=0
    )
    assert completion.choices[0].text
    assert completion.choices[0].logprobs is not None


def test_sampling_parameters_reach_the_engine(client: openai.OpenAI, tuneloop: Tuneloop, lesson: Lesson) -> None:
    create = client.chat.completions.create
    model = tuneloop.tuned_model
    endless = {"ignore_eos": True}  # by chance a sampled answer may be shorter
    several = create(model=model, messages=FRANCE, n=3, max_tokens=4, temperature=1, extra_body=endless)
    assert len(several.choices) == 3
    assert {choice.finish_reason for choice in several.choices} == {"length"}
    stopped = create(model=model, messages=lesson.messages, temperature=0, stop=["Mind"])
    assert stopped.choices[0].message.content == f"Ahoy! {lesson.plain} "
    seeded = [
        create(model=model, messages=FRANCE, temperature=1.5, seed=7).choices[0].message.content for _ in range(2)
    ]
    assert seeded[0] == seeded[1]
    explained = create(
        model=model, messages=lesson.messages, logprobs=True, top_logprobs=2, max_tokens=3, temperature=0
    )
    explained = explained.choices[0].logprobs
    assert explained is not None
    assert len(explained.content or []) == 3


def test_json_schema_is_followed(client: openai.OpenAI, tuneloop: Tuneloop) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "sea": {"type": "boolean"}},
        "required": ["city", "sea"],
        "additionalProperties": False,
    }
    for model in (tuneloop.base_model, tuneloop.tuned_model):
        completion = client.chat.completions.create(
            model=model,
            messages=FRANCE,
            temperature=0,
            max_tokens=100,
            response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}},
        )
        place = json.loads(completion.choices[0].message.content or "")
        assert set(place) == {"city", "sea"}


def test_named_tool_constrains_the_answer(client: openai.OpenAI, tuneloop: Tuneloop) -> None:
    parameters = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"],
    }
    tool = {"type": "function", "function": {"name": "count", "description": "Count.", "parameters": parameters}}
    completion = client.chat.completions.create(
        model=tuneloop.base_model,
        messages=FRANCE,
        tools=[tool],
        temperature=0,
        max_tokens=60,
        tool_choice={"type": "function", "function": {"name": "count"}},
    )
    # The embedded base never learned to call tools and cannot end the call; but it can only begin the named one.
    said = completion.choices[0].message.content or ""
    assert re.match(r'<tool_call>\s*\{"name": "count", "arguments": ', said), said


def test_errors_are_the_sdks_own_classes(client: openai.OpenAI, tuneloop: Tuneloop) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=FRANCE)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert missing.value.request_id
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=tuneloop.base_model, messages=FRANCE, temperature=-1)
    assert wrong.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "change",
    [
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "wizard", "content": "hi"}]},
        {"messages": [{"role": "user", "content": {"a": 1}}]},
        {"messages": [{"content": "hi"}]},
        {"messages": [{"role": "user", "content": "word " * 5000}]},
        {"max_tokens": -1},
        {"max_tokens": 10**9},
        {"n": 0},
        {"top_p": 7},
        {"logprobs": True, "top_logprobs": 10**6},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}},
        {"tools": "hammer"},
        {"stop": 5},
        {"seed": "many"},
        {"stream": "perhaps"},
        {"logit_bias": {"999999999": 1}},
    ],
    ids=str,
)
def test_bad_parameters_are_4xx_in_the_envelope_and_hurt_nobody(tuneloop: Tuneloop, change: dict[str, object]) -> None:
    body = {"model": tuneloop.tuned_model, "messages": FRANCE, "max_tokens": 5} | change
    response = httpx.post(f"{tuneloop.url}/v1/chat/completions", json=body, timeout=60)
    assert 400 <= response.status_code < 500, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    assert httpx.get(f"{tuneloop.url}/readyz", timeout=30).status_code == 200


def test_tuned_model_answers_the_holdout_as_taught_and_the_base_does_not(tuneloop: Tuneloop) -> None:
    async def scores() -> dict[str, float]:
        async with ChatEndpoint(f"{tuneloop.url}/v1") as endpoint:
            models = [tuneloop.base_model, tuneloop.tuned_model]
            return (await compare_models(endpoint, models, read_questions(HOLDOUT))).scores

    measured = asyncio.run(scores())
    assert measured[tuneloop.base_model] <= 0.05
    assert measured[tuneloop.tuned_model] >= 0.7  # 0.87 to 0.98 were seen, each on a base of another seed
