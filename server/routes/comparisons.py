"""`/v1/comparisons`: two models answer the same messages; the pair is stored, to be rated."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from server import checkpoint_access, comparing, ratings
from server.auth import Caller
from server.comparing import Side
from server.errors import APIError, BadRequest, NotFound
from server.ratings import SIDES
from server.services import CallerDep, Services, ServicesDep
from server.tables import ComparisonRow, new_id, now_s

router = APIRouter(prefix="/v1", tags=["comparisons"])

SAMPLING = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
)


class CreateComparison(BaseModel):
    """The body of `POST /v1/comparisons`."""

    model_config = ConfigDict(extra="forbid")

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, description="The conversation both models answer.")]
    models: Annotated[list[str], Field(min_length=2, max_length=2, description="The two models' names.")]
    blind: bool = Field(False, description="Shuffle the sides and keep the names back until somebody has voted.")
    stream: bool = Field(False, description="Send events as the answers come, instead of one object at the end.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)

    def sampling(self) -> dict[str, Any]:
        """The sampling parameters that were given."""
        return self.model_dump(include=set(SAMPLING), exclude_none=True)


@router.post("/comparisons", status_code=201)
async def create_comparison(body: CreateComparison, services: ServicesDep, caller: CallerDep) -> Response:
    """Both answers, side by side. With `stream`, server-sent events whose last one carries the stored comparison."""
    names = services.registry.names()
    unseen = await services.database.run(
        lambda session: checkpoint_access.hidden_among(session, caller, names, version_of=services.registry.version_of)
    )
    known = set(names) - unseen
    for model in body.models:
        if model not in known:
            raise NotFound(
                f"The model {model[:200]!r} does not exist here. GET /v1/models lists the names.",
                code="model_not_found",
                param="models",
            )
    models = random.sample(body.models, 2) if body.blind else body.models
    comparison = Comparison(services, body, dict(zip(SIDES, map(Side, models), strict=True)), caller)
    if body.stream:
        return StreamingResponse(
            comparison.event_stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
    return JSONResponse(await comparison.run(), 201)


@router.get("/comparisons/{comparison_id}")
async def retrieve_comparison(comparison_id: str, services: ServicesDep) -> dict[str, Any]:
    """A stored comparison; a blind one without names until somebody has voted on it."""
    return await services.database.run(
        lambda session: ratings.comparison_object(
            ratings.get_comparison(session, comparison_id), reveal=ratings.is_rated(session, comparison_id)
        )
    )


class Comparison:
    """One comparison from request to row."""

    def __init__(self, services: Services, body: CreateComparison, sides: Mapping[str, Side], caller: Caller) -> None:
        self._services, self._body, self._sides, self._caller = services, body, sides, caller
        self._id = new_id("cmp")

    async def run(self) -> dict[str, Any]:
        """The stored comparison.

        Raises:
            APIError: a side failed; nothing is stored then.
        """
        async for _event in self._events():
            pass
        self._raise_failure()
        return await self._store()

    async def event_stream(self) -> AsyncIterator[bytes]:
        """The events of the public contract, as server-sent events."""
        yield _sse({"type": "comparison.created", "comparison_id": self._id})
        async for event in self._events():
            yield _sse(event)
        try:
            self._raise_failure()
            yield _sse({"type": "comparison.completed", "comparison": await self._store()})
        except APIError as error:
            yield _sse({"type": "comparison.failed", **error.body()})
        yield b"data: [DONE]\n\n"

    def _events(self) -> AsyncIterator[comparing.Event]:
        request = {"messages": self._body.messages, **self._body.sampling()}
        return comparing.generate(self._services, self._caller, request, self._sides, blind=self._body.blind)

    def _raise_failure(self) -> None:
        for side in self._sides.values():
            if side.error is not None:
                raise side.error
        if not any(side.content for side in self._sides.values()):
            raise BadRequest(
                "Both answers are empty, so there is nothing to compare. Raise max_tokens or change the prompt.",
                code="empty_answers",
            )

    async def _store(self) -> dict[str, Any]:
        row = ComparisonRow(
            id=self._id,
            created_at=now_s(),
            created_by=self._caller.key_id,
            blind=self._body.blind,
            messages=self._body.messages,
            sampling=self._body.sampling(),
            **{name: side.stored() for name, side in self._sides.items()},
        )
        return await self._services.database.run(lambda session: ratings.add_comparison(session, row))


def _sse(event: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"
