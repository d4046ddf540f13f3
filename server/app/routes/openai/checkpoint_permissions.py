"""`/v1/fine_tuning/checkpoints/{model}/permissions`: which projects may use a checkpoint.

Requires an admin key. `server/access/checkpoints.py` applies the permissions. Checkpoint names contain `:` and may
contain `/`, raw or percent-encoded, hence the `:path` parameters.
https://platform.openai.com/docs/api-reference/fine-tuning/list-permissions"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import CursorResult, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from server.access.callers import AdminDep
from server.access.keys import PROJECT
from server.app.services import ServicesDep
from server.storage.list_pages import build_list_page, fetch_page
from server.storage.tables import CheckpointPermissionRow, JobCheckpointRow, new_id, now_s
from server.wire.errors import BadRequest, NotFound

router = APIRouter(prefix="/v1", tags=["checkpoint permissions"])

PERMISSIONS = "/fine_tuning/checkpoints/{model:path}/permissions"


class CreatePermissions(BaseModel):
    """The body of `POST /v1/fine_tuning/checkpoints/{model}/permissions`."""

    model_config = ConfigDict(extra="forbid")

    project_ids: Annotated[
        list[str], Field(min_length=1, max_length=100, description="Projects to give access to the checkpoint.")
    ]


@router.post(PERMISSIONS)
async def create_permissions(
    model: str, body: CreatePermissions, services: ServicesDep, _admin: AdminDep
) -> dict[str, Any]:
    """Create permissions for these projects; existing ones are returned unchanged."""
    projects = _check_projects(body.project_ids)
    rows = await services.database.run(lambda session: _grant(session, model, projects))
    return build_list_page([_permission_object(row) for row in rows], has_more=False)


@router.get(PERMISSIONS)
async def list_permissions(
    model: str,
    services: ServicesDep,
    _admin: AdminDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    order: Literal["ascending", "descending"] = "descending",
    project_id: str | None = None,
) -> dict[str, Any]:
    """List the checkpoint's permissions, newest first."""

    def page(session: Session) -> dict[str, Any]:
        _check_is_there(session, model)
        where = [CheckpointPermissionRow.checkpoint == model]
        if project_id is not None:
            where.append(CheckpointPermissionRow.project_id == project_id)
        rows, has_more = fetch_page(
            session, CheckpointPermissionRow, *where, after=after, limit=limit, ascending=order == "ascending"
        )
        return build_list_page([_permission_object(row) for row in rows], has_more=has_more)

    return await services.database.run(page)


@router.delete(PERMISSIONS + "/{permission_id}")
async def delete_permission(model: str, permission_id: str, services: ServicesDep, _admin: AdminDep) -> dict[str, Any]:
    """Delete the permission; takes effect with the project's next request."""

    def remove(session: Session) -> int:
        gone = session.execute(
            delete(CheckpointPermissionRow).where(
                CheckpointPermissionRow.checkpoint == model, CheckpointPermissionRow.id == permission_id
            )
        )
        return cast("CursorResult[Any]", gone).rowcount

    if not await services.database.run(remove):
        raise NotFound(
            f"The checkpoint {model[:200]!r} has no permission with the id {permission_id[:200]!r}. List its "
            "permissions to see the ids.",
            code="permission_not_found",
            param="permission_id",
        )
    return {"id": permission_id, "object": "checkpoint.permission", "deleted": True}


def _grant(session: Session, model: str, projects: list[str]) -> list[CheckpointPermissionRow]:
    _check_is_there(session, model)
    # Two requests for the same project at once both succeed: the table's constraint keeps one row of them.
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    for project in projects:
        values = {"id": new_id("cp"), "checkpoint": model, "project_id": project, "created_at": now_s()}
        session.execute(insert(CheckpointPermissionRow).values(values).on_conflict_do_nothing())
    query = select(CheckpointPermissionRow).where(
        CheckpointPermissionRow.checkpoint == model, CheckpointPermissionRow.project_id.in_(projects)
    )
    by_project = {row.project_id: row for row in session.scalars(query)}
    # READ COMMITTED may show a moment in which somebody else has just taken one back again.
    return [by_project[project] for project in projects if project in by_project]


def _check_is_there(session: Session, model: str) -> None:
    if session.scalar(select(JobCheckpointRow.id).where(JobCheckpointRow.model == model).limit(1)) is None:
        raise NotFound(
            f"There is no checkpoint {model[:200]!r}. GET /v1/fine_tuning/jobs/JOB_ID/checkpoints lists a job's; "
            "other models need no permission.",
            code="checkpoint_not_found",
            param="fine_tuned_model_checkpoint",
        )


def _check_projects(project_ids: list[str]) -> list[str]:
    for project in project_ids:
        if not PROJECT.fullmatch(project):
            raise BadRequest(
                f"The project {project[:100]!r} must be 1 to 64 letters, digits, hyphens or underscores, starting "
                "with a letter or digit. `tuneloop keys list` shows each key's project.",
                code="invalid_project_id",
                param="project_ids",
            )
    return list(dict.fromkeys(project_ids))


def _permission_object(row: CheckpointPermissionRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "checkpoint.permission",
        "created_at": row.created_at,
        "project_id": row.project_id,
    }
