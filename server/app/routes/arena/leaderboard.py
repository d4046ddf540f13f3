"""`/v1/leaderboard`: the models' scores from the ratings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from server.app.services import ServicesDep
from server.arena.leaderboard.boards import LeaderboardSpec
from server.arena.leaderboard.objects import leaderboard_csv
from server.arena.ratings.reading import RatingFilter

router = APIRouter(prefix="/v1", tags=["ratings"])

UnixTime = Annotated[int, Field(ge=0, lt=2**31)]


class LeaderboardQuery(BaseModel):
    """The query of `GET /v1/leaderboard`."""

    campaign: str | None = Field(None, max_length=100)
    rater: str | None = Field(None, max_length=128)
    after: UnixTime | None = Field(None, description="Only ratings from this time on (Unix seconds).")
    before: UnixTime | None = Field(None, description="Only ratings before this time (Unix seconds).")
    blind_only: bool = Field(True, description="Only ratings made without seeing the models' names.")
    style_control: bool = Field(False, description="Adjust for the effect of answer length and Markdown.")
    confidence: float = Field(0.95, ge=0.5, le=0.999, description="Confidence level of the intervals.")
    format: Literal["json", "csv"] = "json"


@router.get("/leaderboard", response_model=None)
async def get_leaderboard(
    services: ServicesDep, query: Annotated[LeaderboardQuery, Query()]
) -> dict[str, Any] | Response:
    """Get scores with intervals, pairs, rater agreement and position bias, from the ratings that count."""
    wanted = RatingFilter(
        campaign=query.campaign,
        rater=query.rater,
        blind_only=query.blind_only,
        after_s=query.after,
        before_s=query.before,
    )
    question = LeaderboardSpec(wanted, query.confidence, query.style_control, tuple(services.registry.base_names))
    board = await services.leaderboards.get(services.database, question)
    if query.format == "json":
        return board
    headers = {"Content-Disposition": 'attachment; filename="leaderboard.csv"'}
    return StreamingResponse(leaderboard_csv(board), media_type="text/csv; charset=utf-8", headers=headers)
