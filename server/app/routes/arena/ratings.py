"""`/v1/…/ratings`: creates, lists and exports ratings, and trains on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from server.access.callers import CallerDep
from server.access.keys import Caller
from server.app.services import Services, ServicesDep
from server.arena.comparisons.holdout import Part, assign_part
from server.arena.preferences import export, training_file
from server.arena.preferences.pairs import PreferencePairs
from server.arena.preferences.training_file import PAGE, CreateFromRatings
from server.arena.ratings import reading
from server.arena.ratings import votes as ratings
from server.arena.ratings.reading import RatingFilter
from server.arena.ratings.requests import CreateRating, ExportQuery, ListQuery, Withdraw
from server.arena.ratings.votes import RatingAuthor, RatingContent
from server.jobs import listing, states
from server.jobs.create.creator import RequestOrigin
from server.jobs.objects import job_object
from server.storage.list_pages import build_list_page
from server.wire.errors import BadRequest

router = APIRouter(prefix="/v1", tags=["ratings"])


@router.post("/comparisons/{comparison_id}/ratings", status_code=201)
async def create_rating(
    comparison_id: str, body: CreateRating, services: ServicesDep, caller: CallerDep
) -> dict[str, Any]:
    """Rate a comparison; the response reveals the models' names. To replace a rating, set `supersedes` to its id."""
    said = RatingContent(body.verdict, body.dimensions, body.unsafe, body.comment)
    voter = _get_author(caller, body.rater)

    def work(session: Session) -> dict[str, Any]:
        row = ratings.add_rating(session, comparison_id, said, author=voter, supersedes=body.supersedes)
        return reading.read_rating_object(session, row)

    return await ratings.run_with_retry(services.database, work)


@router.post("/ratings/{rating_id}/withdraw", status_code=201)
async def withdraw_rating(
    rating_id: str, services: ServicesDep, caller: CallerDep, body: Withdraw | None = None
) -> dict[str, Any]:
    """Withdraw a recent rating. It remains readable, marked as withdrawn."""
    voter, window_s = _get_author(caller, body.rater if body else None), services.settings.undo_window_s

    def work(session: Session) -> dict[str, Any]:
        row = ratings.withdraw(session, rating_id, author=voter, window_s=window_s)
        return reading.read_rating_object(session, row)

    return await ratings.run_with_retry(services.database, work)


@router.get("/ratings")
async def list_ratings(services: ServicesDep, query: Annotated[ListQuery, Query()]) -> Response:
    """List the ratings, newest first, each with its full context."""
    rating_filter = query.to_filter(services.registry, blind_only=query.blind_only, current_only=query.current_only)

    def read(session: Session) -> Response:
        page, has_more = reading.list_ratings(
            session, rating_filter, limit=query.limit, after=query.after, order=query.order
        )
        return JSONResponse(build_list_page(page, has_more=has_more))  # made in the thread: there may be megabytes

    return await services.database.run(read)


@router.get("/ratings/export")
async def export_ratings(services: ServicesDep, query: Annotated[ExportQuery, Query()]) -> Response:
    """Export all ratings as a file. `openai_dpo` contains only ratings to train on; x-tuneloop-left-out counts the
    others."""
    if query.format == "openai_dpo":
        return await _dpo_file(services, query)
    rating_filter = query.to_filter(services.registry, blind_only=bool(query.blind_only))
    if query.format == "csv":
        texts = _texts(services, rating_filter, query, export.rating_csv_line, head=export.csv_header())
        return StreamingResponse(texts, media_type="text/csv; charset=utf-8", headers=_attachment("csv"))
    texts = _texts(services, rating_filter, query, export.jsonl_line)
    return StreamingResponse(texts, media_type="application/jsonl", headers=_attachment("jsonl"))


@router.post("/ratings/fine_tuning_jobs")
async def create_job_from_ratings(
    request: Request, body: CreateFromRatings, services: ServicesDep, caller: CallerDep
) -> dict[str, Any]:
    """Create a training file from the ratings and start a `dpo` job on it; held-out prompts are also saved as a
    file."""
    origin = RequestOrigin.from_headers(caller, request.headers)
    row = await training_file.create_job(
        services.database, services.files, services.jobs, body, origin, original_body=await request.body()
    )

    def read(session: Session) -> dict[str, Any]:
        job = states.read(session, row.id)
        place = listing.find_queue_positions(session, [job]).get(job.id)
        return job_object(job, services.settings, queue_position=place)

    return await services.database.run(read)


def _get_author(caller: Caller, given: str | None) -> RatingAuthor:
    """Return the rating's author. An invitation is for one rater, regardless of the request."""
    return RatingAuthor(caller.rater or given or caller.key_id or "anonymous", caller)


async def _dpo_file(services: Services, query: ExportQuery) -> Response:
    blind_only = query.blind_only is not False
    rating_filter = query.to_filter(services.registry)

    def work() -> tuple[PreferencePairs, list[str], dict[str, int]]:
        votes = training_file.read_preference_pairs(services.database, rating_filter, blind_only=blind_only)
        return votes, *votes.lines(query.selected_part, query.holdout_fraction)

    votes, lines, left_out = await run_in_threadpool(work)
    if not lines:
        raise _nothing_usable_error(votes, query, left_out)
    headers = _attachment("jsonl") | {"x-tuneloop-left-out": json.dumps(dict(left_out))}
    texts = ("".join(lines[start : start + PAGE]) for start in range(0, len(lines), PAGE))
    return StreamingResponse(texts, media_type="application/jsonl", headers=headers)


def _nothing_usable_error(votes: PreferencePairs, query: ExportQuery, left_out: dict[str, int]) -> BadRequest:
    if not votes.seen:
        message = "No ratings yet. Rate some blind comparisons first."
    elif votes.votes and query.selected_part:
        message = f"There are no training pairs in part={query.part}. Rate more prompts, or change holdout_fraction."
    else:
        message = (
            f"None of the {votes.seen} ratings can be used as a training pair: {json.dumps(dict(left_out))}. Rate "
            "more blind comparisons with a clear winner, or pass blind_only=false to include open ones."
        )
    return BadRequest(message, code="no_usable_ratings")


def _texts(
    services: Services,
    rating_filter: RatingFilter,
    query: ExportQuery,
    line: Callable[[dict[str, Any]], str],
    *,
    head: str = "",
) -> Iterator[str]:
    """Yield the export page by page; the response reads each in a thread."""
    yield head
    for page in training_file.iterate_pages(services.database, rating_filter):
        if query.selected_part:
            page = [rating for rating in page if _part(rating, query.holdout_fraction) == query.selected_part]
        yield "".join(map(line, page))


def _part(rating: dict[str, Any], holdout_fraction: float) -> Part:
    return assign_part(rating["messages"] or rating["histories"][0], holdout_fraction)


def _attachment(suffix: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="ratings.{suffix}"'}
