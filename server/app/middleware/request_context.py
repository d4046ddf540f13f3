"""Request ids, the request log and request metrics."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.inference.metrics.server import Metrics
from server.wire.errors import APIError, BadRequest, ServerError, from_database, from_disk

log = logging.getLogger(__name__)

CLIENT_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")


class RequestContext:
    """Outermost middleware: sets `x-request-id` on every response, catches unexpected errors, and records the request's
    metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if CLIENT_REQUEST_ID.match(given) else f"req_{secrets.token_hex(16)}"
        scope.setdefault("state", {})["request_id"] = request_id
        started_s, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 (the outermost catcher; it is logged)
            answer = _answer_error(error, request_id)
            await self._end(answer, status, scope, receive, send_with_id)
        finally:
            self.metrics.observe_request(_route(scope), scope["method"], status or 500, time.perf_counter() - started_s)

    async def _end(self, answer: APIError, status: int, scope: Scope, receive: Receive, send: Send) -> None:
        if status:  # the answer has begun: all that is left is a last event, which a streaming client can read
            await send({"type": "http.response.body", "body": answer.event(), "more_body": False})
        else:
            await answer.response()(scope, receive, send)


def _answer_error(error: Exception, request_id: str) -> APIError:
    known = error if isinstance(error, APIError) else from_disk(error) or from_database(error)
    if isinstance(error, ClientDisconnect):
        known = BadRequest("The connection ended before the request did.", code="incomplete_body")  # nobody reads it
    if known is not None and (known.status != 500 or known.code == "disk_full"):
        log.warning("request %s: %s", request_id, str(error) or known)
        return known
    log.error("request %s failed", request_id, exc_info=error)
    return known or ServerError(
        f"An unexpected error occurred in request {request_id}; see the server's log for details.",
        code="internal_error",
    )


def _route(scope: Scope) -> str:
    """Return the route's template, never the path itself: a client must not be able to make new metric labels."""
    route = scope.get("route")
    return getattr(route, "path", None) or "other"
