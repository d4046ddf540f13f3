"""`/v1/models/{model}/lineage`: a model's ancestors and descendants, each with its report card.

`server/versions/lineage.py` builds the tree; this module builds the object of each model.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from server.access import checkpoints
from server.access.callers import CallerDep
from server.app.routes.openai import models
from server.app.services import Services, ServicesDep
from server.files.rules import FINE_TUNE
from server.jobs.objects import job_object
from server.settings import Settings
from server.storage.tables import FileRow, JobRow
from server.versions.lineage import DiskSnapshot, LineageTree
from serving import Adapter, ModelNotFoundError

router = APIRouter(prefix="/v1", tags=["models"])

PATH = "/lineage"
RECIPE = ("method", "n_epochs", "batch_size", "learning_rate", "r", "lora_alpha", "quantization", "max_length", "beta")
"""The settings to show; the adapter's manifest has all of them."""


@router.get("/models/{model:path}/lineage")
async def retrieve_lineage(model: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Get the chain from the base model to this model, and the models trained from it, each with job, files, ratings
    and report card."""
    registry = services.registry
    if f"{model}{PATH}" in await run_in_threadpool(registry.names):  # somebody called an adapter so
        return await models.retrieve_model(f"{model}{PATH}", services, caller)
    disk = await run_in_threadpool(DiskSnapshot.read, registry)
    family = await services.database.run(lambda session: LineageTree.read(session, registry, disk, caller))
    name = await _name(services, family, caller, model)
    shown = [*family.get_chain(name), *family.list_descendants(name)]
    told = {one: _version_object(family, one, services.settings) for one in shown}
    return {
        "object": "model.lineage",
        "model": name,
        "chain": [told[one] for one in family.get_chain(name)],
        "descendants": [told[one] for one in family.list_descendants(name)],
    }


async def _name(services: Services, family: LineageTree, caller: Any, model: str) -> str:
    """Return the version's name: of an alias its target, of an adapter's id its name.

    Raises:
        ModelNotFoundError: it doesn't exist and never did.
    """
    version = services.registry.version_of(model)
    by_id = next((adapter.name for adapter in family.disk.adapters.values() if adapter.id == version), version)
    if family.has_model(by_id):
        return by_id
    await checkpoints.check_access(services.database, services.registry, caller, model)
    raise ModelNotFoundError(model, [name for name in services.registry.names() if name not in family.hidden])


def _version_object(family: LineageTree, model: str, settings: Settings) -> dict[str, Any]:
    if model in family.hidden:
        return {"object": "model.version", "model": None, "parent": None, "state": "hidden"}
    adapter, job = family.disk.adapters.get(model), family.get_job(model)
    state, reason = family.get_state(model)
    parent = family.get_parent(model)
    return {
        "object": "model.version",
        "model": model,
        "parent": None if parent in family.hidden else parent,
        "kind": _kind(family, model),
        "state": state,
        "reason": reason,
        "created_at": adapter.created_at if adapter else job.created_at if job else None,
        "adapter_id": adapter.id if adapter else None,
        "aliases": sorted(family.aliases.get(model, [])),
        "job": _job(job, settings),
        "files": _files(family, job),
        "ratings": job_object(job, settings)["tuneloop"].get("ratings") if job else None,
        "report": _report(adapter) if adapter else None,
    }


def _kind(family: LineageTree, model: str) -> str:
    if model in family.base_of:
        return "base"
    if model in family.remote:
        return "remote"
    return "checkpoint" if checkpoints.is_checkpoint(model) else "tuned"


def _job(job: JobRow | None, settings: Settings) -> dict[str, Any] | None:
    if job is None:
        return None
    told = job_object(job, settings)
    named = ("id", "status", "created_at", "finished_at", "model", "seed", "trained_tokens", "metadata")
    return {name: told[name] for name in named} | {"method": job.method}


def _files(family: LineageTree, job: JobRow | None) -> dict[str, Any]:
    """Return its training and validation files; deleted files still have their id."""
    named = {"training_file": job.training_file, "validation_file": job.validation_file} if job else {}
    return {role: _file(file_id, family.files.get(file_id)) for role, file_id in named.items() if file_id}


def _file(file_id: str, row: FileRow | None) -> dict[str, Any]:
    there = row is not None and row.status != "deleted" and row.purpose == FINE_TUNE
    return {
        "id": file_id,
        "filename": row.filename if row and there else None,
        "sha256": row.sha256 if row and there else None,
        "deleted": not there,
    }


def _report(adapter: Adapter) -> dict[str, Any]:
    """Return its metrics. An imported manifest may have any content, so anything but an object is left out."""
    manifest = adapter.manifest
    config, parity, metrics = (_object(manifest.get(name)) for name in ("config", "parity", "metrics"))
    return {
        "r": adapter.r,
        "base_model": adapter.base_model,
        "base_model_sha256": adapter.base_model_sha256,
        "training_file_sha256": manifest.get("training_file_sha256"),
        "metrics": metrics,
        "recipe": {name: config[name] for name in RECIPE if config.get(name) is not None},
        "parity": {name: value for name, value in parity.items() if name != "served"} or None,
        "versions": _object(manifest.get("versions")),
    }


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
