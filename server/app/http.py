"""Builds the HTTP app: routes, middleware, error handlers. The services are opened by the caller."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from server.app.middleware.body_limit import BodyLimit
from server.app.middleware.direct_inference import DirectInference
from server.app.middleware.guards import Authenticate, HostGuard
from server.app.middleware.rate_limit import RateLimit
from server.app.middleware.request_context import RequestContext
from server.app.routes import health, inspection, keys
from server.app.routes import settings as settings_view
from server.app.routes.arena import campaigns, comparisons, invitations, leaderboard, ratings
from server.app.routes.openai import checkpoint_permissions, files, fine_tuning, inference, models, uploads, webhooks
from server.app.routes.versions import adapters, aliases, engines, lineage
from server.app.services import Services
from server.wire.errors import APIError, BadRequest, MethodNotAllowed, NotFound, fault_code, from_serving
from serving import ServingError

DESCRIPTION = """Fine-tune, serve, compare and rate chat models behind the OpenAI API.
Point any OpenAI client here: `OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="…")`."""

ROUTERS = tuple(
    module.router
    for module in (
        health,
        lineage,  # before models, whose names may hold a slash
        models,
        adapters,
        aliases,
        engines,
        inference,
        files,
        inspection,
        uploads,
        fine_tuning,
        checkpoint_permissions,
        webhooks,
        keys,
        settings_view,
        comparisons,
        campaigns,
        invitations,
        ratings,
        leaderboard,
    )
)
"""In the order of matching, and of /docs."""
MAX_FAULTS = 8
"""Maximum number of faults of a body that an error lists."""
MAX_FAULT = 300
"""Maximum length of a fault, in characters: it may quote the request."""

VERSION = version("tuneloop")
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(services: Services, *, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the app over these parts, which the caller has opened and will close.

    All errors, including FastAPI's own, are returned in OpenAI's envelope.
    """
    app: FastAPI = FastAPIOffline(
        title="tuneloop",
        version=VERSION,
        description=DESCRIPTION,
        redoc_url=None,
        lifespan=lifespan,
        middleware=_build_middleware(services),
        exception_handlers=_build_handlers(),
    )
    app.state.services = services
    for router in ROUTERS:  # not by `include_router`, which would analyse each route's parameters again
        app.router.routes.extend(router.routes)
    for path in ("/v1", "/v1/{path:path}"):  # unknown API paths must not reach the pages mounted behind
        app.router.routes.append(Route(path, _UnknownEndpoint, include_in_schema=False))
    return app


def _build_middleware(services: Services) -> list[Middleware]:
    """Return the middleware, outermost first."""
    settings, keys = services.settings, services.keys
    return [
        Middleware(RequestContext, metrics=services.metrics),
        Middleware(HostGuard, keys=keys, allowed_hosts=settings.allowed_hosts),
        Middleware(Authenticate, keys=keys, database=services.database, always=not settings.is_loopback),
        Middleware(RateLimit, requests_per_minute=settings.requests_per_minute),
        Middleware(BodyLimit, max_body_bytes=settings.max_body_bytes, max_file_bytes=settings.max_file_bytes),
        Middleware(DirectInference, inference=services.inference),
    ]


class _UnknownEndpoint(HTTPEndpoint):
    """Answers every method; a function route would accept only the methods that it lists."""

    async def dispatch(self) -> None:
        method, path = self.scope["method"], self.scope["path"]
        raise NotFound(f"There is no endpoint {method} {path}. /docs lists all endpoints.", code="unknown_url")


def _build_handlers() -> dict[Any, Any]:
    return {
        APIError: _on_api_error,
        ServingError: _on_serving_error,
        RequestValidationError: _on_validation_error,
        HTTPException: _on_http_exception,
    }


async def _on_api_error(_request: Request, error: APIError) -> Response:
    return error.response()


async def _on_serving_error(_request: Request, error: ServingError) -> Response:
    return from_serving(error).response()


async def _on_validation_error(_request: Request, error: RequestValidationError) -> Response:
    faults = list(error.errors())
    messages = [f"{_get_param(fault) or 'the body'}: {str(fault['msg'])[:MAX_FAULT]}" for fault in faults[:MAX_FAULTS]]
    if len(faults) > MAX_FAULTS:
        messages.append(f"and {len(faults) - MAX_FAULTS} more")
    return BadRequest(
        "; ".join(messages) + ".", param=_get_param(faults[0]), code=fault_code(faults[0]["type"])
    ).response()


def _get_param(fault: dict[str, Any]) -> str | None:
    path = [str(part)[:MAX_FAULT] for part in fault["loc"][1:]]
    return ".".join(path)[:MAX_FAULT] if path and fault["type"] != "json_invalid" else None


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    if isinstance(error.__cause__, APIError):  # FastAPI hides what a body's reader raised behind a 400 of its own
        return error.__cause__.response()
    if isinstance(error.__cause__, ValueError | RecursionError):  # the same, of what its parser raised
        return BadRequest(f"The request body is not valid JSON: {error.__cause__}.", code="invalid_json").response()
    if error.status_code == 404:
        return NotFound(f"{request.url.path} doesn't exist. /docs lists all endpoints.", code="unknown_url").response()
    if error.status_code == 405:
        return MethodNotAllowed(
            f"{request.url.path} doesn't support {request.method}. /docs lists the methods of each endpoint.",
            code="method_not_allowed",
        ).response()
    return BadRequest(str(error.detail)).response()
