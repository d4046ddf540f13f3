"""A tuneloop that a test scripts: comparisons, votes, campaigns and the leaderboard over plain memory, pages on it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.browser.scripted import BASE, CAPTAIN, POET
from tests.ui.running import running
from ui import mount

INVITE = "tl-invite-for-ann"
CAMPAIGN = "camp_harbour"
ANSWERS = {
    "left": "The harbour light has burned since 1821.\n\nShips steer by it when fog lies on the bay.",
    "right": "Aye, the old light! Since 1821 she's kept many a keel off the rocks. 灯塔一直亮着。",
}


@dataclass
class Arena:
    """What the server holds; a test changes it while pages are open."""

    models: list[str] = field(default_factory=lambda: [BASE, CAPTAIN, POET])
    pause_s: float = 0.0
    answers: dict[str, str] = field(default_factory=lambda: dict(ANSWERS))
    refuse: dict[tuple[str, str], tuple[int, str, str]] = field(default_factory=dict)
    """(method, path ending) → (status, code, message) that it is refused with."""
    comparisons: dict[str, dict[str, Any]] = field(default_factory=dict)
    ratings: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """(path, body) of each POST."""
    pairs: int = 3
    """How many pairs the campaign has for the invited rater."""
    campaigns: dict[str, dict[str, Any]] = field(default_factory=dict)
    invitations: dict[str, dict[str, Any]] = field(default_factory=dict)
    leaderboards: list[dict[str, str]] = field(default_factory=list)
    """The queries with which the leaderboard was asked."""
    leaderboard: dict[str, Any] = field(default_factory=dict)

    def bodies_sent(self, ending: str) -> list[dict[str, Any]]:
        """The bodies posted to paths that end so."""
        return [body for path, body in self.bodies if path.endswith(ending)]

    def current(self, comparison_id: str) -> dict[str, Any] | None:
        """The comparison's rating that nothing supersedes."""
        own = [rating for rating in self.ratings.values() if rating["comparison_id"] == comparison_id]
        return next((rating for rating in own if rating["superseded_by"] is None), None)


def refused(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "code": code}}, status)


@pytest.fixture(scope="package")
def served_arena() -> Iterator[tuple[str, Arena]]:
    """One server with its pages for all modules, because pages take seconds to make; each test sets its arena anew."""
    arena = Arena()
    with running(lambda url: arena_app(arena, url)) as url:
        yield url, arena


class Refusing:
    """Answers what the arena refuses in the server's place."""

    def __init__(self, app: ASGIApp, arena: Arena) -> None:
        self._app, self._arena = app, arena

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = (scope.get("method"), scope.get("path", ""))
        for (method, ending), answer in self._arena.refuse.items():
            if method == asked[0] and asked[1].endswith(ending):
                await refused(*answer)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def arena_app(arena: Arena, url: str) -> FastAPI:
    """The application; `arena` stays in the test's hands."""
    app = FastAPI()

    app.add_middleware(Refusing, arena=arena)

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"data": [{"id": name, "parent": BASE if name != BASE else None} for name in arena.models]}

    _comparisons(app, arena)
    _campaigns(app, arena)
    _leaderboard(app, arena)
    return mount(app, url)


def _show(arena: Arena, comparison: dict[str, Any]) -> dict[str, Any]:
    rated = any(rating["comparison_id"] == comparison["id"] for rating in arena.ratings.values())
    if rated:
        return comparison
    return comparison | {side: comparison[side] | {"model": None} for side in ("left", "right")}


def _make(arena: Arena, messages: list[Any], campaign: str | None = None) -> dict[str, Any]:
    number = len(arena.comparisons) + 1
    sides = {
        side: {"model": model, "content": arena.answers[side], "finish_reason": "stop", "completion_tokens": 20,
               "time_to_first_token_s": 0.1, "duration_s": 0.5}
        for side, model in (("left", CAPTAIN), ("right", POET))
    }  # fmt: skip
    made = {"id": f"cmp_{number}", "object": "comparison", "created_at": int(time.time()), "blind": True,
            "messages": messages, "sampling": {}, "campaign": campaign, **sides}  # fmt: skip
    arena.comparisons[made["id"]] = made
    return made


def _comparisons(app: FastAPI, arena: Arena) -> None:
    @app.post("/v1/comparisons")
    async def compare(request: Request) -> Response:
        body = await request.json()
        arena.bodies.append(("/v1/comparisons", body))
        return StreamingResponse(_events(arena, body["messages"]), media_type="text/event-stream")

    @app.get("/v1/comparisons/{comparison_id}")
    async def comparison(comparison_id: str) -> Response:
        if comparison_id not in arena.comparisons:
            return refused(
                404, "comparison_not_found", f"There is no comparison with the id {comparison_id!r}. Check the id."
            )
        return JSONResponse(_show(arena, arena.comparisons[comparison_id]))

    @app.post("/v1/comparisons/{comparison_id}/ratings", status_code=201)
    async def rate(comparison_id: str, request: Request) -> Response:
        body = await request.json()
        arena.bodies.append((request.url.path, body))
        current = arena.current(comparison_id)
        if current is not None and body.get("supersedes") != current["id"]:
            return refused(409, "already_rated", f"Already rated by {current['id']}; pass it in supersedes.")
        return JSONResponse(_store(arena, comparison_id, body, current), 201)

    @app.post("/v1/ratings/{rating_id}/withdraw", status_code=201)
    async def withdraw(rating_id: str) -> Response:
        rating = arena.ratings[rating_id]
        if rating["superseded_by"]:
            return refused(409, "already_superseded", "That vote isn't the current one any more.")
        return JSONResponse(_store(arena, rating["comparison_id"], {"verdict": "withdrawn"}, rating), 201)


def _store(arena: Arena, comparison_id: str, body: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    comparison = arena.comparisons[comparison_id]
    rating = {"id": f"rating_{len(arena.ratings) + 1}", "object": "rating", "comparison_id": comparison_id,
              "rater": body.get("rater") or "anonymous", "superseded_by": None, "supersedes": before and before["id"],
              **{key: comparison[key] for key in ("messages", "left", "right")}, **body}  # fmt: skip
    if before is not None:
        before["superseded_by"] = rating["id"]
    arena.ratings[rating["id"]] = rating
    return rating


async def _events(arena: Arena, messages: list[Any]) -> AsyncIterator[bytes]:
    comparison_id = f"cmp_{len(arena.comparisons) + 1}"
    yield _sse({"type": "comparison.created", "comparison_id": comparison_id})
    words = {side: [word + " " for word in answer.split(" ")] for side, answer in arena.answers.items()}
    for number in range(max(map(len, words.values()))):
        for side in words:
            if number < len(words[side]):
                yield _sse({"type": "comparison.delta", "side": side, "delta": words[side][number]})
        await asyncio.sleep(arena.pause_s)
    for side in words:
        yield _sse({"type": "comparison.side_done", "side": side, "model": None, "finish_reason": "stop"})
    yield _sse({"type": "comparison.completed", "comparison": _show(arena, _make(arena, messages))})
    yield b"data: [DONE]\n\n"


def _sse(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _campaigns(app: FastAPI, arena: Arena) -> None:
    @app.get("/v1/invitation")
    async def invitation(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {INVITE}":
            return refused(401, "invalid_api_key", "This invitation is unknown, expired or revoked.")
        campaign = arena.campaigns.get(CAMPAIGN, {"status": "open", "name": "Harbour answers", "dimensions": True})
        done = _done(arena)
        return JSONResponse({"object": "invitation", "rater": "Ann", "campaign": {"id": CAMPAIGN} | campaign,
                             "done": done, "remaining": arena.pairs - done})  # fmt: skip

    @app.post("/v1/campaigns/{campaign_id}/assignments")
    async def assign(campaign_id: str) -> Response:
        mine = [one for one in arena.comparisons.values() if one["campaign"] == campaign_id]
        open_one = next((one for one in mine if not _rated(arena, one["id"])), None)
        if open_one is None and len(mine) < arena.pairs:
            question = f"Question {len(mine) + 1}: why do lighthouses blink?"
            open_one = _make(arena, [{"role": "user", "content": question}], campaign_id)
        done = _done(arena)
        comparison = _show(arena, open_one) if open_one else None
        return JSONResponse({"object": "assignment", "comparison": comparison, "done": done,
                             "remaining": arena.pairs - done})  # fmt: skip

    @app.get("/v1/campaigns")
    async def campaigns() -> dict[str, Any]:
        return {"object": "list", "data": list(reversed(arena.campaigns.values())), "has_more": False}

    @app.post("/v1/campaigns")
    async def create(request: Request) -> Response:
        body = await request.json()
        arena.bodies.append(("/v1/campaigns", body))
        made = campaign_object(f"camp_{len(arena.campaigns) + 1}", body["name"], body["models"], status="generating")
        arena.campaigns[made["id"]] = made
        return JSONResponse(made)

    @app.get("/v1/campaigns/{campaign_id}")
    async def campaign_of(campaign_id: str) -> Response:
        if campaign_id not in arena.campaigns:
            return refused(404, "campaign_not_found", f"No campaign has the id {campaign_id!r}.")
        return JSONResponse(arena.campaigns[campaign_id])

    @app.get("/v1/campaigns/{campaign_id}/answers")
    async def answers(campaign_id: str) -> dict[str, Any]:
        error = {
            "message": "The prompt has 9,000 tokens, more than the model's 4,096.",
            "code": "context_length_exceeded",
        }
        failed = [{"model": POET, "status": "failed", "error": error}]
        return {"object": "list", "data": failed, "has_more": False}

    @app.post("/v1/campaigns/{campaign_id}/{step}")
    async def step(campaign_id: str, step: str, request: Request) -> Response:
        if step == "invitations":
            return JSONResponse(_invite(arena, campaign_id, await request.json()), 201)
        arena.campaigns[campaign_id]["status"] = {"close": "closed", "reopen": "open"}[step]
        return JSONResponse(arena.campaigns[campaign_id])

    @app.delete("/v1/campaigns/{campaign_id}")
    async def delete(campaign_id: str) -> Response:
        if arena.campaigns[campaign_id]["votes"]["done"]:
            return refused(409, "campaign_has_votes", "This campaign has votes, which are never deleted. Close it.")
        del arena.campaigns[campaign_id]
        return JSONResponse({"id": campaign_id, "deleted": True})

    @app.get("/v1/campaigns/{campaign_id}/invitations")
    async def invitations(campaign_id: str) -> dict[str, Any]:
        hidden = [one | {"token": None, "path": None} for one in arena.invitations.values()]
        return {"object": "list", "data": hidden, "has_more": False}

    @app.delete("/v1/campaigns/{campaign_id}/invitations/{invitation_id}")
    async def revoke(campaign_id: str, invitation_id: str) -> dict[str, Any]:
        arena.invitations[invitation_id]["revoked_at"] = int(time.time())
        return {"id": invitation_id, "deleted": True}


def _rated(arena: Arena, comparison_id: str) -> bool:
    current = arena.current(comparison_id)
    return current is not None and current["verdict"] != "withdrawn"


def _done(arena: Arena) -> int:
    return sum(_rated(arena, one["id"]) for one in arena.comparisons.values() if one["campaign"])


def _invite(arena: Arena, campaign_id: str, body: dict[str, Any]) -> dict[str, Any]:
    number = len(arena.invitations) + 1
    now = int(time.time())
    made = {"id": f"inv_{number}", "object": "campaign.invitation", "created_at": now, "expires_at": now + 2_592_000,
            "campaign": campaign_id, "rater": body["rater"], "token": f"tl-invite-{number}",
            "path": f"/rate?invite=tl-invite-{number}", "revoked_at": None}  # fmt: skip
    arena.invitations[made["id"]] = made
    return made


def campaign_object(campaign_id: str, name: str, models: list[str], **changes: Any) -> dict[str, Any]:
    """A campaign on the wire."""
    now = int(time.time())
    return {"id": campaign_id, "object": "campaign", "created_at": now - 3600, "name": name, "status": "open",
            "error": None, "models": models, "prompts": 20, "answers": {"done": 12, "total": 40, "failed": 0},
            "votes": {"done": 0, "total": 40}, "raters_per_item": 2, "items": 20, "sampling": {"max_tokens": 512},
            "dimensions": True, "blind": True, "raters": [], "estimated_finish": now + 300, "closed_at": None,
            "created_by": None} | changes  # fmt: skip


def _leaderboard(app: FastAPI, arena: Arena) -> None:
    @app.get("/v1/leaderboard")
    async def leaderboard(request: Request) -> Response:
        query = dict(request.query_params)
        arena.leaderboards.append(query)
        if query.get("format") == "csv":
            return PlainTextResponse("model,rating\nbase,1000\n", media_type="text/csv")
        return JSONResponse(arena.leaderboard)

    @app.get("/v1/files")
    async def files() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "file-holdout", "filename": "ratings-holdout.jsonl",
                                            "purpose": "fine-tune", "bytes": 1}], "has_more": False}  # fmt: skip

    @app.post("/v1/ratings/fine_tuning_jobs")
    async def train(request: Request) -> Response:
        body = await request.json()
        arena.bodies.append((request.url.path, body))
        return JSONResponse({"id": "ftjob-1", "object": "fine_tuning.job", "status": "queued", "model": body["model"],
                             "tuneloop": {"ratings": {"votes": 120, "pairs": 96, "left_out": {"tie": 20},
                                                      "holdout_file": "file-holdout", "campaign": None}}})  # fmt: skip
