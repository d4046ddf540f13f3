"""A tuneloop that a test scripts: the few endpoints of the Compare page over plain memory, with the pages on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from ui import mount

BASE, CAPTAIN, POET = "base", "ft:base:personal:captain:aaaaaaaa", "ft:base:personal:poet:bbbbbbbb"
SIDES = ("left", "right", "third", "fourth")


@dataclass
class Script:
    """What the server does next; a test changes it while pages are open."""

    models: list[str] = field(default_factory=lambda: [BASE, CAPTAIN, POET])
    ready: str = "ready"
    answers: dict[str, str] = field(default_factory=dict)
    """Model → what it answers; else its name and the last prompt."""
    answered_by: dict[str, str] = field(default_factory=dict)
    """Model → the name that stands in `model` instead."""
    pause_s: float = 0.0
    """Between two words."""
    break_off_after: int | None = None
    """Words after which the connection breaks off."""
    refuse: dict[str, Any] | None = None
    """An error object that each comparison is refused with."""
    listings: int = 0
    """Times that the models were asked for."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """What was asked."""
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)


def scripted_app(script: Script, url: str, *, example_prompts: tuple[str, ...] = ()) -> FastAPI:
    """The application; `script` stays in the test's hands."""
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> Response:
        return JSONResponse({"status": script.ready}, 200 if script.ready == "ready" else 503)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        script.listings += 1
        return {"data": [{"id": name, "parent": BASE if name != BASE else None} for name in script.models]}

    @app.post("/v1/comparisons")
    async def compare(request: Request) -> Response:
        body = await request.json()
        script.bodies.append(body)
        if script.refuse is not None:
            return JSONResponse({"error": script.refuse}, 503)
        return StreamingResponse(_events(script, body), media_type="text/event-stream")

    @app.get("/v1/comparisons/{comparison_id}")
    async def comparison(comparison_id: str) -> Response:
        if comparison_id in script.stored:
            return JSONResponse(script.stored[comparison_id])
        error = {"message": "No such comparison.", "type": "invalid_request_error", "code": "comparison_not_found"}
        return JSONResponse({"error": error}, 404)

    return mount(app, url, example_prompts=example_prompts)


async def _events(script: Script, body: dict[str, Any]) -> AsyncIterator[bytes]:
    comparison_id = f"cmp_{len(script.bodies)}"
    yield _sse({"type": "comparison.created", "comparison_id": comparison_id})
    histories = body.get("histories") or [body["messages"]] * len(body["models"])
    sides = dict(zip(SIDES, body["models"], strict=False))
    answers = {
        side: script.answers.get(model, f"{model} answers: {history[-1]['content']}")
        for (side, model), history in zip(sides.items(), histories, strict=True)
    }
    words = {side: [word + " " for word in answer.split(" ")] for side, answer in answers.items()}
    for number in range(max(map(len, words.values()))):
        if number == script.break_off_after:
            return
        for side in sides:
            if number < len(words[side]):
                yield _sse({"type": "comparison.delta", "side": side, "delta": words[side][number]})
        await asyncio.sleep(script.pause_s)
    stored = {}
    for side, model in sides.items():
        stored[side] = {
            "model": script.answered_by.get(model, model), "content": "".join(words[side]), "finish_reason": "stop",
            "completion_tokens": len(words[side]), "time_to_first_token_s": 0.12, "duration_s": 0.62,
        }  # fmt: skip
        yield _sse({"type": "comparison.side_done", "side": side, **stored[side]})
    comparison = {
        "id": comparison_id, "object": "comparison", "created_at": 1, "blind": False,
        "messages": body.get("messages"), "histories": body.get("histories"), "sampling": {}, **stored,
    }  # fmt: skip
    script.stored[comparison_id] = comparison
    yield _sse({"type": "comparison.completed", "comparison": comparison})
    yield b"data: [DONE]\n\n"


def _sse(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"
