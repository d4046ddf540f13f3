"""What the parity gate asks an engine: token ids of a chat, log-probabilities of given tokens. It judges nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from serving.engines.engine import AdapterPlace
from serving.errors import AdapterError, EngineUnavailableError
from serving.parity.reference import Conversation

_RETRY_AFTER_S = 5.0
_NOT_FINITE = "Out of range float"
"""What vLLM says when a log-probability is no number: it can't be written as JSON."""


class EngineAnswerError(AdapterError):
    """The engine refused a question that it should answer, or answers with what is no number."""


async def engine_token_ids(engine: AdapterPlace, model: str, conversation: Conversation) -> tuple[int, ...]:
    """The conversation as the engine tokenises it. Raises: EngineAnswerError, EngineUnavailableError."""
    answer = await _ask(
        engine,
        "/tokenize",
        {
            "model": model,
            "messages": list(conversation.messages),
            "add_generation_prompt": conversation.add_generation_prompt,
            "add_special_tokens": False,  # the chat template writes those that it wants
        },
    )
    tokens = answer.get("tokens")
    if not isinstance(tokens, list):
        raise EngineAnswerError("The engine's /tokenize answers without `tokens`. Use vLLM 0.32.")
    return tuple(tokens)


async def engine_log_probabilities(
    engine: AdapterPlace, model: str, prompts: Sequence[Sequence[int]]
) -> list[tuple[float, ...]]:
    """For each row of token ids the log-probabilities of all but the first, in nats, rounded to 5 digits.

    Such a request takes nothing from the engine's cache of prompts, and so tells what the weights say.
    Raises: EngineAnswerError, EngineUnavailableError.
    """
    body = {"model": model, "prompt": [list(ids) for ids in prompts], "prompt_logprobs": 0, "max_tokens": 1}
    answer = await _ask(engine, "/v1/completions", body | {"temperature": 0})
    try:
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        told = [_row(choice["prompt_logprobs"], ids) for choice, ids in zip(choices, prompts, strict=True)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EngineAnswerError(
            f"The engine's log-probabilities can't be read ({error!r}): `prompt_logprobs` isn't what vLLM 0.32 gives."
        ) from error
    if not all(math.isfinite(value) for row in told for value in row):
        raise EngineAnswerError("The engine gives log-probabilities that aren't finite: the weights are broken.")
    return told


def _row(told: Sequence[dict[str, dict[str, float]] | None], ids: Sequence[int]) -> tuple[float, ...]:
    pairs = zip(told[1:], ids[1:], strict=True)
    return tuple(round(float((one or {})[str(token_id)]["logprob"]), 5) for one, token_id in pairs)


async def _ask(engine: AdapterPlace, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with engine.request(
        "POST", path, body=json.dumps(body).encode(), headers={"content-type": "application/json"}
    ) as response:
        said = (await response.read()).decode("utf-8", "replace")
    if response.status >= 500 and _NOT_FINITE not in said:
        raise EngineUnavailableError(f"The engine answered {response.status} to {path}. Try again.", _RETRY_AFTER_S)
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    if response.status >= 400 or not isinstance(answer, dict):
        raise EngineAnswerError(f"The engine answers {response.status} to {path}: {' '.join(said.split())[:300]}")
    return answer
