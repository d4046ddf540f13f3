"""Pure ASGI middleware that accepts or rejects a request.

HostGuard        on a keyless loopback server, only accepts requests that a local program or page could make
Authenticate     requires a valid key if there are any, or an invitation, and records the caller
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
    """Keeps web pages from reaching a keyless server through a visitor's browser.

    Without keys, being on this machine is the only credential, and a browser passes it on to any site: by DNS rebinding
    (the Host header then names the site) or by a cross-site request (the Origin header does).
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
                            f"{name} is {host!r}, but a server without API keys only accepts local host names "
                            f"({', '.join(sorted(self.allowed_hosts))}). Create a key with `tuneloop keys create`, "
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
    """Requires `Authorization: Bearer KEY` for the API and the metrics once any key has been created.

    A campaign's invitation also counts as a key, even if none is required, with very limited access.
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
                "This server requires an API key, sent as `Authorization: Bearer KEY` (the SDK's api_key). The "
                "server's operator can create one with `tuneloop keys create`."
            )
        caller = await self.keys.identify(secret.strip())
        if caller is None:
            raise Unauthorized(
                "The API key isn't valid here: it is misspelled, revoked, or from another server. Check the key."
            )
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
