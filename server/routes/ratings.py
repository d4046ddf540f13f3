"""`/v1/…/ratings`: people's verdicts on comparisons, in and out."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from sqlalchemy.orm import Session

from server import export, ratings
from server.errors import BadRequest
from server.pages import list_page
from server.services import KeyIdDep, ServicesDep

router = APIRouter(prefix="/v1", tags=["ratings"])

Dimension = Literal["instruction_following", "relevance", "fluency", "helpfulness"]
Score = Annotated[int, Field(ge=1, le=5, strict=True)]
Rater = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]


class CreateRating(BaseModel):
    """The body of `POST /v1/comparisons/{id}/ratings`."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal["left", "right", "tie", "both_bad"]
    dimensions: dict[Dimension, Score] = Field(default_factory=dict, description="1 (poor) to 5 (excellent) each.")
    unsafe: Literal["left", "right", "both"] | None = Field(None, description="Which answer is unsafe, if any.")
    comment: str | None = Field(None, max_length=4000)
    rater: Rater | None = Field(None, description="Who votes; by default the API key's id.")

    @field_validator("comment", "rater")
    @classmethod
    def _storable(cls, text: str | None) -> str | None:
        # PostgreSQL cannot store U+0000 and no encoding can carry half a surrogate pair.
        if text is not None and ("\0" in text or any("\ud800" <= character <= "\udfff" for character in text)):
            raise ValueError("holds a NUL or half a surrogate pair; send plain Unicode text")
        return text


@router.post("/comparisons/{comparison_id}/ratings", status_code=201)
async def create_rating(
    comparison_id: str, body: CreateRating, services: ServicesDep, key_id: KeyIdDep
) -> dict[str, Any]:
    """Store a vote; the answer reveals the models' names. A second vote by the same rater is a 409."""
    rater = body.rater or key_id or "anonymous"
    return await services.database.run(
        lambda session: ratings.add_rating(
            session,
            comparison_id,
            rater=rater,
            verdict=body.verdict,
            dimensions={str(name): score for name, score in body.dimensions.items()},
            unsafe=body.unsafe,
            comment=body.comment,
        )
    )


@router.get("/ratings")
async def list_ratings(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: str | None = None,
    order: ratings.Order = "desc",
) -> dict[str, Any]:
    """A page of ratings, newest first, each with its whole context."""

    def read(session: Session) -> dict[str, Any]:
        rows, has_more = ratings.list_ratings(session, limit=limit, after=after, order=order)
        return list_page([ratings.rating_object(row) for row in rows], has_more=has_more)

    return await services.database.run(read)


@router.get("/ratings/export")
async def export_ratings(
    services: ServicesDep,
    format: Literal["openai_dpo", "jsonl", "csv"] = "jsonl",
    blind_only: bool = True,
) -> Response:
    """Every rating as a file. `openai_dpo` holds only what may train a model; x-tuneloop-left-out counts the rest."""
    everything = await services.database.run(
        lambda session: [ratings.rating_object(row) for row in ratings.all_ratings(session)]
    )
    headers = {"Content-Disposition": f'attachment; filename="ratings.{"csv" if format == "csv" else "jsonl"}"'}
    if format == "csv":
        return StreamingResponse(export.to_csv(everything), media_type="text/csv; charset=utf-8", headers=headers)
    if format == "jsonl":
        return StreamingResponse(export.to_jsonl(everything), media_type="application/jsonl", headers=headers)
    lines, left_out = export.to_openai_dpo(everything, blind_only=blind_only)
    if not everything:
        raise BadRequest("There are no ratings yet. Rate some blind comparisons first.", code="no_usable_ratings")
    if not lines:
        raise BadRequest(
            f"None of the {len(everything)} ratings can become a training pair: {json.dumps(dict(left_out))}. "
            "Rate more blind comparisons with a clear winner, or pass blind_only=false to take open ones too.",
            code="no_usable_ratings",
        )
    headers["x-tuneloop-left-out"] = json.dumps(dict(left_out))
    return StreamingResponse(export.to_jsonl(lines), media_type="application/jsonl", headers=headers)
