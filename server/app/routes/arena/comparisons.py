"""`/v1/comparisons`: two to four models answer side by side; the answers are stored for reading and rating."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from server.access.callers import CallerDep
from server.access.checkpoints import refuse_unknown
from server.access.keys import Caller
from server.app.services import Services, ServicesDep
from server.arena.comparisons import generate, pair_draw, store
from server.arena.comparisons.generate import Side
from server.arena.comparisons.sampling import Sampling
from server.arena.comparisons.store import ALL_SIDES, SIDES
from server.storage.tables import ComparisonRow, new_id, now_s
from server.wire.errors import APIError, BadRequest
from server.wire.storable_json import find_storage_fault

router = APIRouter(prefix="/v1", tags=["comparisons"])

Messages = Annotated[list[dict[str, Any]], Field(min_length=1)]


class CreateComparison(Sampling):
    """The body of `POST /v1/comparisons`."""

    messages: Messages | None = Field(None, description="The conversation that all models answer.")
    histories: list[Messages] | None = Field(
        None, description="One conversation for each model, in the same order, instead of `messages`."
    )
    models: Annotated[list[str], Field(min_length=2, max_length=4)] | None = Field(
        None, description="Names of two to four models. Default: the server picks a pair for a blind comparison."
    )
    blind: bool = Field(
        False, description="Shuffle the sides and hide the models' names until the comparison is rated."
    )
    stream: bool = Field(False, description="Stream events as the answers arrive, instead of one object at the end.")


@router.post("/comparisons", status_code=201)
async def create_comparison(body: CreateComparison, services: ServicesDep, caller: CallerDep) -> Response:
    """Create a comparison: all models answer side by side. With `stream`, sends server-sent events, the last one with
    the stored comparison."""
    blind = body.blind or body.models is None
    _refuse_contradictions(body, blind=blind)
    _refuse_unstorable(body)
    models = await _models(services, caller, body, blind=blind)
    asked = body.histories or [body.messages or []] * len(models)
    sides = {
        name: Side(model, messages=messages)
        for name, model, messages in zip(ALL_SIDES, models, asked, strict=False)  # ALL_SIDES has four names
    }
    comparison = Comparison(services, body, sides, caller, blind=blind)
    if body.stream:
        return StreamingResponse(
            comparison.event_stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
    return JSONResponse(await comparison.run(), 201)


@router.get("/comparisons/{comparison_id}")
async def retrieve_comparison(comparison_id: str, services: ServicesDep) -> dict[str, Any]:
    """Get a comparison; a blind one hides the models' names until it is rated."""
    return await services.database.run(
        lambda session: store.comparison_object(
            store.get_comparison(session, comparison_id),
            reveal=store.is_rated(session, comparison_id),
        )
    )


def _refuse_unstorable(body: CreateComparison) -> None:
    for param, given in (("messages", [body.messages]), ("histories", body.histories or [])):
        if fault := next((found for messages in given if (found := find_storage_fault(messages))), None):
            raise BadRequest(f"The conversation {fault}", param=param, code="invalid_value")


def _refuse_contradictions(body: CreateComparison, *, blind: bool) -> None:
    if (body.messages is None) == (body.histories is None):
        raise BadRequest(
            "Send either `messages`, which all models answer, or `histories`, one conversation for each model.",
            param="messages",
            code="missing_required_parameter" if body.messages is None else "invalid_value",
        )
    if not blind:
        if body.histories and body.models and len(body.histories) != len(body.models):
            raise BadRequest(
                f"There are {len(body.histories)} histories for {len(body.models)} models. Send one for each model.",
                param="histories",
                code="invalid_value",
            )
        return
    if body.histories:
        raise BadRequest(
            "In a blind comparison both models must get the same conversation: different ones could reveal the "
            "models or affect the rating. Send `messages` instead of `histories`, or set `models` and leave out "
            "`blind`.",
            param="histories",
            code="invalid_value",
        )
    if body.models and len(body.models) > len(SIDES):
        raise BadRequest(
            f"A blind comparison takes two models, but {len(body.models)} are given. Use two, or leave out `blind`.",
            param="models",
            code="array_above_max_length",
        )


async def _models(services: Services, caller: Caller, body: CreateComparison, *, blind: bool) -> list[str]:
    """Return the models in the order of their sides."""
    if body.models is None:
        return await pair_draw.draw_pair(services.registry, services.database, services.pair_votes, caller)
    await refuse_unknown(services.database, services.registry, caller, body.models)
    return random.sample(body.models, len(body.models)) if blind else body.models


class Comparison:
    """Creates one comparison, from the request to the stored row."""

    def __init__(
        self, services: Services, body: CreateComparison, sides: Mapping[str, Side], caller: Caller, *, blind: bool
    ) -> None:
        self._services, self._body, self._sides, self._caller, self._blind = services, body, sides, caller, blind
        self._id = new_id("cmp")

    async def run(self) -> dict[str, Any]:
        """Return the stored comparison.

        Raises:
            APIError: a side failed; nothing is stored then.
        """
        async for _event in self._events():
            pass
        self._raise_failure()
        return await self._store()

    async def event_stream(self) -> AsyncIterator[bytes]:
        """Yield the events of the API as server-sent events."""
        yield _sse({"type": "comparison.created", "comparison_id": self._id})
        async for event in self._events():
            yield _sse(event)
        try:
            self._raise_failure()
            yield _sse({"type": "comparison.completed", "comparison": await self._store()})
        except APIError as error:
            yield _sse({"type": "comparison.failed", **error.body()})
        yield b"data: [DONE]\n\n"

    def _events(self) -> AsyncIterator[generate.Event]:
        return generate.generate(
            self._services.inference, self._caller, self._body.sampling(), self._sides, blind=self._blind
        )

    def _raise_failure(self) -> None:
        for side in self._sides.values():
            if side.error is not None:
                raise side.error
        if not any(side.content for side in self._sides.values()):
            raise BadRequest(
                "All answers are empty. Raise max_tokens or change the prompt.",
                code="empty_answers",
            )

    async def _store(self) -> dict[str, Any]:
        stored = {name: side.to_record() for name, side in self._sides.items()}
        row = ComparisonRow(
            id=self._id,
            created_at=now_s(),
            created_by=self._caller.key_id,
            blind=self._blind,
            messages=self._body.messages or [],
            histories=self._body.histories,
            sampling=self._body.sampling(),
            **{name: stored.pop(name) for name in SIDES},
            others=stored or None,
        )
        return await self._services.database.run(lambda session: store.add_comparison(session, row))


def _sse(event: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"
