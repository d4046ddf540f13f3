"""What the routes are given: one object an app, made by whoever composes it. No route fetches anything for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from server.auth import KeyStore
from server.database import Database
from server.metrics import Metrics
from server.settings import Settings
from serving import Engine, Registry


@dataclass(frozen=True)
class Services:
    """The running parts behind the routes."""

    settings: Settings
    engine: Engine
    registry: Registry
    database: Database
    keys: KeyStore
    metrics: Metrics


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]


def _key_id(request: Request) -> str | None:
    key_id: str | None = getattr(request.state, "key_id", None)
    return key_id


KeyIdDep = Annotated[str | None, Depends(_key_id)]
"""The id of the API key that made the request; None on a keyless server."""
