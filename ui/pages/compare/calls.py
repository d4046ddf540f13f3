"""The API calls of the Compare page: send a question to several models, get a stored comparison."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from ui.server_client import ServerClient


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters."""

    temperature: float
    top_p: float
    max_tokens: int
    """Maximum length of an answer in tokens."""
    seed: int | None = None
    """The same seed gives the same answer, as far as the engine can; with None, answers vary."""

    def body(self) -> dict[str, Any]:
        """Return the request's fields."""
        drawn = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        return drawn | ({} if self.seed is None else {"seed": self.seed})


@dataclass(frozen=True)
class Question:
    """What is sent to the models."""

    models: tuple[str, ...]
    histories: Sequence[Sequence[dict[str, Any]]]
    """The messages for each model."""
    sampling: Sampling

    def body(self) -> dict[str, Any]:
        """Return the body of a streaming `POST /v1/comparisons`, with one list of messages if all are the same."""
        first = self.histories[0]
        shared = all(history == first for history in self.histories)
        asked = {"messages": first} if shared else {"histories": self.histories}
        return {"models": list(self.models), "blind": False, "stream": True, **asked, **self.sampling.body()}


def ask(client: ServerClient, api_key: str, question: Question) -> AsyncGenerator[dict[str, Any]]:
    """Yield the comparison's events as they arrive. Closing the iterator stops all answers.

    Raises:
        UIError: the request is refused, or the stream ends early.
    """
    return client.stream("/v1/comparisons", api_key, question.body())


async def comparison(client: ServerClient, api_key: str, comparison_id: str) -> dict[str, Any]:
    """Return a stored comparison.

    Raises:
        UIError: it doesn't exist, or the server can't be reached or refuses.
    """
    return await client.call("GET", f"/v1/comparisons/{comparison_id}", api_key)
