"""The engine's own endpoints: bodies go in and bytes come out as they are, so what vLLM learns tomorrow works today.

Owned here: the paths. `DirectInference`, a middleware, answers nearly all requests before they come this far.
https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from server.access.keys import ANYBODY, Caller
from server.app.services import Services
from server.inference.answer import EngineAnswer, read_model

router = APIRouter(prefix="/v1", tags=["inference"])


@router.post("/chat/completions")
@router.post("/completions")
@router.post("/responses")
@router.post("/embeddings")
async def infer(request: Request) -> Response:
    """Answer with the model that the body names; every parameter that vLLM knows is passed on."""
    body = await request.body()
    # Not by Depends: FastAPI resolves each on the way of every request, and a token waits for it.
    services: Services = request.app.state.services
    caller: Caller = getattr(request.state, "caller", ANYBODY)
    return EngineAnswer(services.inference, caller, request.url.path, read_model(body), body)
