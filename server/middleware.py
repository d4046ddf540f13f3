"""Pure ASGI middleware: what happens to every request before its route. The order is the one in `app.create_app`.

RequestContext   gives the request its id, turns anything unforeseen into a 500 in the envelope, counts
HostGuard        on a keyless loopback server, lets in only requests that a local program or page could make
Authenticate     wants a valid key where keys are set, or an invitation, and notes whose it is
(RateLimit, BodyLimit: modules of their own)
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.auth import ANYBODY, Caller, KeyStore
from server.campaigns import invitations
from server.database import Database
from server.errors import APIError, BadRequest, Forbidden, ServerError, Unauthorized, from_database, from_disk
from server.metrics import Metrics
from server.settings import LOOPBACK_HOSTS

log = logging.getLogger(__name__)

CLIENT_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
GUARDED_PREFIXES = ("/v1/", "/v1", "/metrics")


class RequestContext:
    """Outermost: `x-request-id` on every answer, the one catcher of the unforeseen, and the request's metrics."""

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
            answer = _answer_to(error, request_id)
            await self._end(answer, status, scope, receive, send_with_id)
        finally:
            self.metrics.observe_request(_route(scope), scope["method"], status or 500, time.perf_counter() - started_s)

    async def _end(self, answer: APIError, status: int, scope: Scope, receive: Receive, send: Send) -> None:
        if status:  # the answer has begun: all that is left is a last event, which a streaming client can read
            await send({"type": "http.response.body", "body": answer.event(), "more_body": False})
        else:
            await answer.response()(scope, receive, send)


def _answer_to(error: Exception, request_id: str) -> APIError:
    known = error if isinstance(error, APIError) else from_disk(error) or from_database(error)
    if isinstance(error, ClientDisconnect):
        known = BadRequest("The connection ended before the request did.", code="incomplete_body")  # nobody reads it
    if known is not None and (known.status != 500 or known.code == "disk_full"):
        log.warning("request %s: %s", request_id, str(error) or known)
        return known
    log.error("request %s failed", request_id, exc_info=error)
    return known or ServerError(
        f"Something unforeseen happened in request {request_id}; the server's log tells what.", code="internal_error"
    )


class HostGuard:
    """Keeps web pages from reaching a keyless server through the browser of somebody who visits them.

    Without keys, being on this machine is the only credential, and a browser lends it to any site: by a rebound host
    name (the Host header then names the site) or by a cross-site request (the Origin header does).
    """

    def __init__(self, app: ASGIApp, keys: KeyStore, allowed_hosts: list[str]) -> None:
        self.app = app
        self.keys = keys
        self.allowed_hosts = LOOPBACK_HOSTS | {name.lower() for name in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Health is told to anybody, and does not ask the database: that one may be what is wrong.
        if scope["type"] in ("http", "websocket") and not _is_open(scope) and not await self.keys.required():
            headers = Headers(scope=scope)
            for name, value in (
                ("Host", f"//{headers.get('host', '')}"),
                ("Origin", headers.get("origin", "//localhost")),
            ):
                host = _hostname(value)
                if host not in self.allowed_hosts:
                    await _refuse(
                        Forbidden(
                            f"{name} names {host!r}, and a server without API keys answers only on this machine's own "
                            f"names ({', '.join(sorted(self.allowed_hosts))}). Make a key with `tuneloop keys create`, "
                            "or add the name to the setting allowed_hosts.",
                            code="host_not_allowed",
                        ),
                        scope,
                        receive,
                        send,
                    )
                    return
        await self.app(scope, receive, send)


class Authenticate:
    """Wants `Authorization: Bearer KEY` on the API and the metrics once a key was ever made.

    A campaign's invitation counts as a key, also where none is wanted; it opens little.
    """

    def __init__(self, app: ASGIApp, keys: KeyStore, database: Database, *, always: bool) -> None:
        self.app = app
        self.keys = keys
        self.database = database
        self.always = always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(GUARDED_PREFIXES) and not _is_open(scope):
            try:
                scope.setdefault("state", {})["caller"] = await self._caller(scope)
            except (Unauthorized, Forbidden) as error:
                await _refuse(error, scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        scheme, _, secret = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secret.strip().startswith(invitations.TOKEN_PREFIX):
            return await invitations.admit(self.database, secret.strip(), scope["method"], scope["path"])
        if not self.always and not await self.keys.required():
            return ANYBODY
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthorized(
                "This server wants an API key, sent as `Authorization: Bearer KEY` (the SDK's api_key). "
                "Whoever runs the server makes one with `tuneloop keys create`."
            )
        caller = await self.keys.identify(secret.strip())
        if caller is None:
            raise Unauthorized("The API key is not valid here: it is mistyped, revoked or another server's.")
        return caller


def _is_open(scope: Scope) -> bool:
    return scope["path"] in OPEN_PATHS


async def _refuse(error: APIError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await error.response()(scope, receive, send)


def _hostname(value: str) -> str:
    try:
        return (urlsplit(value).hostname or "").lower()
    except ValueError:
        return ""


def _route(scope: Scope) -> str:
    """The route's template, never the path itself: a client must not be able to make new metric labels."""
    route = scope.get("route")
    return getattr(route, "path", None) or "other"
