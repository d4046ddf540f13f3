"""The API calls of the models page: get everything, and every change that a user can make."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ui.server_client import ServerClient, UIError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Survey:
    """All models of a server, as of one moment."""

    bases: Sequence[str] = ()
    remote: Sequence[str] = ()
    """Models of remote engines."""
    versions: Mapping[str, Row] = field(default_factory=dict)
    """Name → `model.version`, every parent before its children."""
    aliases: Sequence[Row] = ()
    engines: Sequence[Row] | None = ()
    """None if only admins may see them."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Directory → why it isn't a valid adapter; versions are left out."""
    ratings: Mapping[str, Row] = field(default_factory=dict)
    """Model → its row of the leaderboard."""

    @property
    def served(self) -> list[str]:
        """The models that an alias can point to, bases first."""
        tuned = [name for name, version in self.versions.items() if version["state"] == "served"]
        return list(dict.fromkeys([*self.bases, *tuned, *self.remote]))


async def survey(client: ServerClient, api_key: str) -> Survey:
    """Return everything that the page shows.

    Raises:
        UIError: the server can't be reached or refuses.
    """
    listed, adapters, aliases, engines, board = await asyncio.gather(
        client.call("GET", "/v1/models", api_key),
        client.call("GET", "/v1/adapters", api_key),
        client.call("GET", "/v1/aliases", api_key),
        _or_none(client.call("GET", "/v1/engines", api_key)),
        _or_none(client.call("GET", "/v1/leaderboard", api_key)),
    )
    named = listed.get("data", [])
    bases = [one["id"] for one in named if one.get("owned_by") == "base" and one.get("parent") is None]
    trees = await asyncio.gather(*(lineage(client, api_key, base) for base in bases))
    versions = {one["model"]: one for tree in trees for one in (*tree["chain"], *tree["descendants"])}
    folders = {version.get("adapter_id") for version in versions.values()}
    return Survey(
        bases=bases,
        remote=[one["id"] for one in named if one.get("owned_by") == "remote"],
        versions=versions,
        aliases=aliases.get("data", []),
        engines=None if engines is None else engines.get("data", []),
        broken={name: why for name, why in adapters.get("broken", {}).items() if name not in folders},
        ratings={row["model"]: row for row in (board or {}).get("models", []) if row.get("votes")},
    )


async def lineage(client: ServerClient, api_key: str, model: str) -> dict[str, Any]:
    """Return the `model.lineage`. Raises: UIError."""
    return await client.call("GET", f"/v1/models/{_path(model)}/lineage", api_key)


async def promote(client: ServerClient, api_key: str, alias: str, model: str) -> Row:
    """Point the alias to the model and return it; loading the model may take a while. Raises: UIError."""
    return await client.call("PUT", f"/v1/aliases/{_path(alias)}", api_key, {"model": model}, timeout_s=120)


async def roll_back(client: ServerClient, api_key: str, alias: str) -> Row:
    """Point the alias back to its previous model and return it. Raises: UIError."""
    return await client.call("POST", f"/v1/aliases/{_path(alias)}/rollback", api_key, timeout_s=120)


async def delete_alias(client: ServerClient, api_key: str, alias: str) -> None:
    """Delete the alias. Raises: UIError."""
    await client.call("DELETE", f"/v1/aliases/{_path(alias)}", api_key)


async def alias_history(client: ServerClient, api_key: str, alias: str) -> list[Row]:
    """Return the alias's changes, newest first. Raises: UIError."""
    page = await client.call("GET", f"/v1/aliases/{_path(alias)}/history", api_key, query={"limit": 20})
    return list(page.get("data", []))


async def delete_model(client: ServerClient, api_key: str, model: str) -> None:
    """Delete the model permanently, after answers in flight have finished. Raises: UIError."""
    await client.call("DELETE", f"/v1/models/{_path(model)}", api_key, timeout_s=90)


async def _or_none(call: Any) -> dict[str, Any] | None:
    """Return the response; None if it doesn't exist for this caller."""
    try:
        response: dict[str, Any] = await call
    except UIError as error:
        if error.problem.kind in ("unreachable", "unauthorized"):
            raise
        return None
    return response


def _path(name: str) -> str:
    """Return a name as one part of a path; names of models contain `/` and `:`."""
    return quote(name, safe="")
