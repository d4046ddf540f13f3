"""The engine's endpoints: request and response bodies are passed on unchanged, so new vLLM features work without
changes here.

This module has the paths. The middleware `DirectInference` handles nearly all requests before they get here.
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
    """Generate with the model in the body; all parameters of vLLM are supported."""
    body = await request.body()
    # Not by Depends: FastAPI resolves each on the way of every request, and a token waits for it.
    services: Services = request.app.state.services
    caller: Caller = getattr(request.state, "caller", ANYBODY)
    return EngineAnswer(services.inference, caller, request.url.path, read_model(body), body)
