"""Looks up a job's inputs: its files, the model it starts from, the key for Weights & Biases.

The errors follow OpenAI's wording.
"""

from __future__ import annotations

import importlib.util
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from server.files.rules import FINE_TUNE
from server.files.store import is_live, is_unchecked
from server.jobs.create.body import CreateJob
from server.storage.tables import FileRow, JobRow, is_id
from server.wire.errors import BadRequest
from serving import Adapter, AdapterError, ModelNotFoundError, Pool, Registry


def get_usable_file(session: Session, file_id: str, *, param: str) -> FileRow:
    """Return the file with this id, for training or validation. It may still be unchecked, or have failed its check:
    the job waits for the check and reports what is wrong.

    Raises:
        BadRequest: it doesn't exist, or has another purpose.
    """
    row = session.scalar(select(FileRow).where(FileRow.id == file_id, is_live())) if is_id(file_id) else None
    if row is None:
        raise missing_file_error(file_id, param)
    if row.purpose != FINE_TUNE:
        raise BadRequest(
            f"File '{file_id}' has the purpose '{row.purpose}', but {param} must have '{FINE_TUNE}'. Upload it again "
            f"with purpose '{FINE_TUNE}'.",
            param=param,
            code="invalid_file_purpose",
        )
    return row


def is_awaiting_check() -> ColumnElement[bool]:
    """Return the condition for jobs with a file that is still being checked. Files that were deleted or have expired
    don't count: the job has its own copies, and checks those."""
    mix_file = JobRow.settings["mix_file"].as_string()
    named = FileRow.id.in_((JobRow.training_file, JobRow.validation_file, mix_file))
    return exists().where(named, is_unchecked())


def missing_file_error(file_id: str, param: str) -> BadRequest:
    """Return the error for a file that doesn't exist."""
    return BadRequest(
        f"File '{file_id[:100]}' does not exist. GET /v1/files lists the files.", param=param, code="file_not_found"
    )


def find_start_adapter(registry: Registry, model: str) -> Adapter | None:
    """Return the adapter that a job on `model` continues from; None for a base. An alias is resolved now.

    Raises:
        BadRequest: the model doesn't exist, or can't be trained further.
    """
    version = registry.version_of(model)
    if version in registry.base_names:
        return None
    try:
        adapter = registry.get(version)
    except (ModelNotFoundError, AdapterError) as error:
        raise unavailable_model_error(model) from error
    if adapter.name != version:  # adapters also have ids, which aren't names of models
        raise unavailable_model_error(model)
    return adapter


def find_pool(registry: Registry, model: str, start: Adapter | None) -> Pool:
    """Return the base that a job on `model` trains on, with its engines. start: from `find_start_adapter`.

    Raises:
        BadRequest: the base isn't served any more.
    """
    if start:
        return registry.pool_of(start)
    pool = registry.base_pool(registry.version_of(model))
    if pool is None:
        raise unavailable_model_error(model)
    return pool


def unavailable_model_error(model: str) -> BadRequest:
    """Return the error for a model that can't be tuned."""
    return BadRequest(
        f"Model {model[:200]} is not available for fine-tuning or does not exist. GET /v1/models lists the models.",
        param="model",
        code="model_not_available",
    )


def refuse_integrations(request: CreateJob) -> None:
    """Raise BadRequest if Weights & Biases is requested and not available."""
    integrations = request.integrations or []
    if len(integrations) > 1:
        raise BadRequest(
            f"integrations has {len(integrations)} entries, but a run can report to only one project. Use one.",
            param="integrations",
            code="array_above_max_length",
        )
    if not integrations:
        return
    if importlib.util.find_spec("wandb") is None:
        raise BadRequest(
            "Weights & Biases isn't installed on this server. Install it there with: pip install 'tuneloop[wandb]'.",
            param="integrations",
            code="integration_unavailable",
        )
    if (request.tuneloop or {}).get("wandb_mode") != "offline" and not has_wandb_key():
        raise BadRequest(
            "This server has no key for Weights & Biases. Run `wandb login` there or set WANDB_API_KEY, or send "
            'tuneloop {"wandb_mode": "offline"} and upload later with `wandb sync`.',
            param="integrations",
            code="integration_unavailable",
        )


def has_wandb_key() -> bool:
    """Return whether the W&B library will find a key: in the environment, or in the file written by `wandb login`."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(Path(os.environ.get("NETRC") or Path.home() / ".netrc")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
