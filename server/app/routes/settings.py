"""`/v1/settings`, ours: what this server runs with and where each value came from. For admins, and to look at only.

How a value is shown, and what is hidden of it, is in `settings_shown`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from server.access.callers import AdminDep
from server.app.services import ServicesDep
from server.app.settings_shown import UNSET, describe
from server.settings import is_secret
from server.storage.list_pages import build_list_page

router = APIRouter(prefix="/v1/settings", tags=["settings"])


@router.get("")
async def list_settings(services: ServicesDep, admin: AdminDep) -> dict[str, Any]:
    """Every setting with its value as text, its origin (`default`, a file, a variable or `flag`) and its meaning."""
    rows = [
        {
            "id": name,
            "object": "setting",
            "value": None if value == UNSET else value,
            "origin": origin,
            "description": description,
            "is_secret": is_secret(name),
        }
        for name, value, origin, description in describe(services.settings)
    ]
    return build_list_page(rows, has_more=False)
