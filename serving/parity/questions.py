"""The parity gate's requests to an engine: token ids of a chat, log-probabilities of given tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from serving.engines.engine import AdapterHost
from serving.errors import AdapterError, EngineUnavailableError
from serving.parity.reference import Conversation

_RETRY_AFTER_S = 5.0
_NOT_FINITE = "Out of range float"
"""vLLM's error for a log-probability that is NaN or infinite: it can't be written as JSON."""


class EngineAnswerError(AdapterError):
    """The engine refused a request that it should answer, or its answer isn't finite."""


async def engine_token_ids(engine: AdapterHost, model: str, conversation: Conversation) -> tuple[int, ...]:
    """Return the conversation as the engine tokenises it. Raises: EngineAnswerError, EngineUnavailableError."""
    answer = await _post(
        engine,
        "/tokenize",
        {
            "model": model,
            "messages": list(conversation.messages),
            "add_generation_prompt": conversation.add_generation_prompt,
            "add_special_tokens": False,  # the chat template writes those that it needs
        },
    )
    tokens = answer.get("tokens")
    if not isinstance(tokens, list):
        raise EngineAnswerError("The engine's /tokenize response has no `tokens`. Use vLLM 0.32.")
    return tuple(tokens)


async def engine_log_probabilities(
    engine: AdapterHost, model: str, prompts: Sequence[Sequence[int]]
) -> list[tuple[float, ...]]:
    """Return for each row of token ids the log-probabilities of all but the first, in nats, rounded to 5 digits.

    Such a request doesn't use the engine's prefix cache, and so shows what the weights say.
    Raises: EngineAnswerError, EngineUnavailableError.
    """
    body = {"model": model, "prompt": [list(ids) for ids in prompts], "prompt_logprobs": 0, "max_tokens": 1}
    answer = await _post(engine, "/v1/completions", body | {"temperature": 0})
    try:
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        rows = [_row(choice["prompt_logprobs"], ids) for choice, ids in zip(choices, prompts, strict=True)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EngineAnswerError(
            f"The engine's log-probabilities can't be read ({error!r}): `prompt_logprobs` doesn't have the "
            "format of vLLM 0.32. Use that version."
        ) from error
    if not all(math.isfinite(value) for row in rows for value in row):
        raise EngineAnswerError(
            "The engine returns log-probabilities that aren't finite: the weights are broken. Check the adapter "
            "and the base model."
        )
    return rows


def _row(logprobs: Sequence[dict[str, dict[str, float]] | None], ids: Sequence[int]) -> tuple[float, ...]:
    pairs = zip(logprobs[1:], ids[1:], strict=True)
    return tuple(round(float((entry or {})[str(token_id)]["logprob"]), 5) for entry, token_id in pairs)


async def _post(engine: AdapterHost, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with engine.request(
        "POST", path, body=json.dumps(body).encode(), headers={"content-type": "application/json"}
    ) as response:
        content = (await response.read()).decode("utf-8", "replace")
    if response.status >= 500 and _NOT_FINITE not in content:
        raise EngineUnavailableError(
            f"The engine responded with {response.status} to {path}. Try again.", _RETRY_AFTER_S
        )
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if response.status >= 400 or not isinstance(answer, dict):
        raise EngineAnswerError(
            f"The engine responds with {response.status} to {path}: {' '.join(content.split())[:300]}"
        )
    return answer
