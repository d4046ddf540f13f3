"""What a job is made from, looked up: its files, the model it starts from, the key for Weights & Biases.

Each is refused in the words that OpenAI uses. Knows no configuration and writes nothing.
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


def usable_file(session: Session, file_id: str, *, param: str) -> FileRow:
    """The file with this id, for training or validation. One that is still being checked, or failed its check, is let
    through: the job waits for it, and says what is wrong with it.

    Raises:
        BadRequest: there is none, or it is for something else.
    """
    row = session.scalar(select(FileRow).where(FileRow.id == file_id, is_live())) if is_id(file_id) else None
    if row is None:
        raise missing_file(file_id, param)
    if row.purpose != FINE_TUNE:
        raise BadRequest(
            f"File '{file_id}' has the purpose '{row.purpose}', but {param} must have '{FINE_TUNE}'. Upload it again "
            f"with purpose '{FINE_TUNE}'.",
            param=param,
            code="invalid_file_purpose",
        )
    return row


def awaits_a_check() -> ColumnElement[bool]:
    """The condition of a job that names a file which is still being checked. For one that was deleted or has expired
    meanwhile nobody waits: the job has its own copy, and looks through that."""
    mix_file = JobRow.settings["mix_file"].as_string()
    named = FileRow.id.in_((JobRow.training_file, JobRow.validation_file, mix_file))
    return exists().where(named, is_unchecked())


def missing_file(file_id: str, param: str) -> BadRequest:
    """The refusal of a file that there isn't."""
    return BadRequest(
        f"File '{file_id[:100]}' does not exist. GET /v1/files lists the files.", param=param, code="file_not_found"
    )


def starting_point(registry: Registry, model: str) -> Adapter | None:
    """The adapter that a job on `model` goes on from; None for the base. An alias means what it stands for now.

    Raises:
        BadRequest: there is no such model, or it can't be gone on from.
    """
    version = registry.version_of(model)
    if version in registry.base_names:
        return None
    try:
        adapter = registry.get(version)
    except (ModelNotFoundError, AdapterError) as error:
        raise unavailable_model(model) from error
    if adapter.name != version:  # adapters have ids, too, which are no names of models
        raise unavailable_model(model)
    return adapter


def pool_of(registry: Registry, model: str, start: Adapter | None) -> Pool:
    """The base that a job on `model` trains on, with its engines. start: from `starting_point`.

    Raises:
        BadRequest: the base went away meanwhile.
    """
    if start:
        return registry.pool_of(start)
    pool = registry.base_pool(registry.version_of(model))
    if pool is None:
        raise unavailable_model(model)
    return pool


def unavailable_model(model: str) -> BadRequest:
    """The refusal of a model that can't be tuned."""
    return BadRequest(
        f"Model {model[:200]} is not available for fine-tuning or does not exist. GET /v1/models lists the names.",
        param="model",
        code="model_not_available",
    )


def refuse_integrations(request: CreateJob) -> None:
    """Raises BadRequest when Weights & Biases is wanted and can't be had."""
    integrations = request.integrations or []
    if len(integrations) > 1:
        raise BadRequest(
            f"integrations has {len(integrations)} entries, but a run here reports to one project. Give one.",
            param="integrations",
            code="array_above_max_length",
        )
    if not integrations:
        return
    if importlib.util.find_spec("wandb") is None:
        raise BadRequest(
            "Weights & Biases isn't installed on this server: pip install 'tuneloop[wandb]' there.",
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
    """Whether a key is where the W&B library looks for it: the environment, or the file where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(Path(os.environ.get("NETRC") or Path.home() / ".netrc")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
