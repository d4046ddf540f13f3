"""Pure ASGI middleware that lets a request in or refuses it.

HostGuard        on a keyless loopback server, lets in only requests that a local program or page could make
Authenticate     wants a valid key where keys are set, or an invitation, and notes whose it is
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.access.keys import ANYBODY, Caller, KeyStore
from server.arena.campaigns import invitations
from server.settings import LOOPBACK_HOSTS
from server.storage.database import Database
from server.wire.errors import APIError, Forbidden, Unauthorized

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
GUARDED_PREFIXES = ("/v1/", "/v1", "/metrics")


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
        # Health checks need no key and no database, which may be what is failing.
        if scope["type"] in ("http", "websocket") and not _is_open(scope) and not await self.keys.is_required():
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
            return await invitations.authenticate(self.database, secret.strip(), scope["method"], scope["path"])
        if not self.always and not await self.keys.is_required():
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
