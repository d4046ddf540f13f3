"""`/v1/settings`: the server's settings and the source of each value. Read-only, for admins.

`settings_shown` formats values and hides secrets.
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
    """List all settings with value, origin (`default`, a file, a variable or `flag`) and description."""
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
