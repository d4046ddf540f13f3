"""Publishes a run's checkpoints under their own names while it runs, and removes the oldest ones.

The name of a checkpoint follows from its job and step, so publishing it again after a crash doesn't duplicate it.
https://platform.openai.com/docs/api-reference/fine-tuning/checkpoint-object
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from adapter_format.files import CONFIG_FILE, WEIGHTS_FILE
from server.access.checkpoints import is_checkpoint
from server.aliases import changes
from server.jobs.run.context import JobContext
from server.jobs.run_directory import RunDirectory
from server.jobs.states import add_event
from server.storage.tables import CheckpointPermissionRow, JobCheckpointRow, JobRow, new_id
from serving import Adapter, AdapterError, ModelNotFoundError, Registry, ServingError, import_adapter

_BATCH_ROWS = 500
"""Rows per statement."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

logger = logging.getLogger(__name__)


def checkpoint_name(job: JobRow, step: int) -> str:
    """Return `ft:{base}:{organization}:{suffix}:{8 characters}:ckpt-step-{step}`; the 8 differ from the final
    model's."""
    number = int.from_bytes(hashlib.sha256(f"{job.id} {step}".encode()).digest())
    unique = "".join(_DIGITS[number // 36**place % 36] for place in range(8))
    return f"{job.wanted_model.rpartition(':')[0]}:{unique}:ckpt-step-{step}"


async def publish(context: JobContext, job: JobRow, run: RunDirectory, step: int) -> Adapter:
    """Publish a copy of this step's checkpoint as a servable adapter, and return it.

    Raises:
        AdapterError: the checkpoint is gone, or can't be served.
    """
    name = checkpoint_name(job, step)
    try:
        return context.registry.get(name)
    except ModelNotFoundError:
        pass
    staging_dir = run.path / ".publishing" / f"checkpoint-{step}"
    try:
        await asyncio.to_thread(_link_files, run.checkpoint_path(step), staging_dir)
        return await asyncio.to_thread(_import_checkpoint, context, run, staging_dir, name)
    except OSError as error:
        raise AdapterError(f"Its files can't be read: {error.strerror}.") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, staging_dir, ignore_errors=True)


def record(session: Session, job_id: str, step: int, adapter: Adapter, metrics: Mapping[str, Any], at: int) -> None:
    """Store the published checkpoint's row and event; does nothing if it is already stored."""
    if not is_recorded(session, job_id, step):
        session.add(
            JobCheckpointRow(
                id=new_id("ftckpt"),
                job_id=job_id,
                created_at=at,
                step_number=step,
                model=adapter.name,
                adapter_id=adapter.id,
                metrics=dict(metrics),
            )
        )
        message = f"Checkpoint created at step {step} with Snapshot ID: {adapter.name}"
        add_event(session, job_id, message, created_at=at)


def is_recorded(session: Session, job_id: str, step: int) -> bool:
    """Return whether the published checkpoint has a row."""
    known = select(JobCheckpointRow.id).where(JobCheckpointRow.job_id == job_id, JobCheckpointRow.step_number == step)
    return session.scalar(known) is not None


async def prune(context: JobContext, job_id: str) -> None:
    """Remove the job's oldest checkpoints beyond `checkpoints_kept`.

    One in use is kept until the next call, and one with an alias as long as the alias stands for it.
    """
    by_age = (
        select(JobCheckpointRow)
        .where(JobCheckpointRow.job_id == job_id)
        .order_by(JobCheckpointRow.step_number.desc())
        .offset(context.settings.checkpoints_kept)
    )
    in_use = await context.run_transaction(changes.find_models_in_use)
    for row in await context.run_transaction(lambda session: list(session.scalars(by_age))):
        if row.model in in_use:
            continue
        # A checkpoint of another base model isn't in the registry but still on disk.
        if await remove(context.registry, row.model) and not (context.settings.adapters_dir / row.adapter_id).exists():
            await context.run_transaction(partial(delete_rows, [row.model]))


async def prune_all(context: JobContext) -> None:
    """Call `prune` for each job that has more than `checkpoints_kept` checkpoints."""
    count = func.count(JobCheckpointRow.number)
    kept = context.settings.checkpoints_kept
    too_many = select(JobCheckpointRow.job_id).group_by(JobCheckpointRow.job_id).having(count > kept)
    for job_id in await context.run_transaction(lambda session: session.scalars(too_many).all()):
        await prune(context, job_id)


async def delete_orphaned_rows(context: JobContext, job_id: str | None = None) -> None:
    """Delete the rows of checkpoints whose adapter is gone, for example because a client deleted it.

    job_id: only this job's.
    """
    rows = select(JobCheckpointRow.model, JobCheckpointRow.adapter_id)
    if job_id is not None:
        rows = rows.where(JobCheckpointRow.job_id == job_id)
    recorded = await context.run_transaction(lambda session: session.execute(rows).all())
    folder = context.settings.adapters_dir
    gone = await asyncio.to_thread(
        lambda: [model for model, adapter_id in recorded if not (folder / adapter_id).exists()]
    )
    for first in range(0, len(gone), _BATCH_ROWS):
        await context.run_transaction(partial(delete_rows, gone[first : first + _BATCH_ROWS]))


async def remove(registry: Registry, name: str) -> bool:
    """Remove the adapter of this name; return whether it is gone."""
    try:
        # The same checkpoint may be published again, by a job that resumes from an earlier one.
        await registry.remove(name, drain_timeout_s=1.0, keep_name_taken=False)
    except ModelNotFoundError:
        return True
    except ServingError as error:
        logger.warning("Can't remove %s now: %s", name, error)
        return False
    return True


async def remove_unrecorded(context: JobContext, jobs: Mapping[str, JobRow]) -> None:
    """Remove checkpoints that a killed server had published but not recorded, of jobs that have ended since.

    jobs: the ended ones, by id.
    """
    found = {adapter.name for adapter in context.registry.adapters() if is_checkpoint(adapter.name)}
    if found:
        recorded = set(
            await context.run_transaction(lambda session: session.scalars(select(JobCheckpointRow.model)).all())
        )
        for name in found - recorded:
            step = int(name.rpartition("-")[2])
            prefix = name.rsplit(":", 2)[0]
            if any(job.wanted_model.startswith(prefix) and checkpoint_name(job, step) == name for job in jobs.values()):
                await remove(context.registry, name)


def delete_rows(names: Sequence[str], session: Session) -> None:
    """Delete the rows of these checkpoints and the permissions for them."""
    session.execute(delete(JobCheckpointRow).where(JobCheckpointRow.model.in_(names)))
    session.execute(delete(CheckpointPermissionRow).where(CheckpointPermissionRow.checkpoint.in_(names)))


def _link_files(checkpoint: Path, staging_dir: Path) -> None:
    """Link the checkpoint's adapter files, without its pickles, since the run may remove the checkpoint at any time."""
    shutil.rmtree(staging_dir, ignore_errors=True)
    staging_dir.mkdir(parents=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        os.link(checkpoint / name, staging_dir / name)


def _import_checkpoint(context: JobContext, run: RunDirectory, source: Path, name: str) -> Adapter:
    base_name = str(run.config.get("base_model_name") or context.registry.base_names[0])
    pool = context.registry.base_pool(base_name)
    if pool is None:
        raise AdapterError(f"Its base model {base_name!r} is no longer served. Start the server with it.")
    limits = pool.replicas[0].engine.limits
    return import_adapter(source, context.settings.adapters_dir, pool.base, limits, name=name, same_base=True)
