"""Inference that bypasses FastAPI's handling: the body's bytes go to the engine unchanged."""

from __future__ import annotations

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from server.access.keys import ANYBODY, Caller
from server.app.middleware.body_limit import read_body
from server.app.routes.openai.inference import router
from server.inference.answer import EngineAnswer, read_model
from server.inference.ask import Inference
from server.wire.errors import APIError


class DirectInference:
    """Pure ASGI middleware, the innermost: handles the engine's endpoints without FastAPI's routing to `infer`.

    That routing takes a fifth of a request's time here. The routes remain for /docs, and for anything but a POST to
    exactly these paths.
    """

    def __init__(self, app: ASGIApp, inference: Inference) -> None:
        self.app = app
        self.inference = inference
        self.routes = {route.path: route for route in router.routes if isinstance(route, APIRoute)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self.routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = route  # the metrics' label
        caller: Caller = scope.get("state", {}).get("caller", ANYBODY)
        answer: EngineAnswer | None = None
        try:
            body = await read_body(receive)
            answer = EngineAnswer(self.inference, caller, scope["path"], read_model(body), body)
            await answer(scope, receive, send)
        except APIError as error:
            if answer is not None and answer.has_begun:
                raise
            await error.response()(scope, receive, send)
