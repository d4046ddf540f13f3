"""Makes a run's checkpoints answer under names of their own while the run goes on, and lets the oldest go.

The name of a checkpoint follows from its job and step, so that publishing one twice, after a crash, makes one.
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
from server.jobs.events import add_event
from server.jobs.run.context import Workshop
from server.jobs.run_directory import RunDirectory
from server.storage.tables import CheckpointPermissionRow, JobCheckpointRow, JobRow, new_id
from serving import Adapter, AdapterError, ModelNotFoundError, Registry, ServingError, import_adapter

_AT_ONCE = 500
"""Rows that one statement names."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

logger = logging.getLogger(__name__)


def checkpoint_name(job: JobRow, step: int) -> str:
    """`ft:{base}:{organization}:{suffix}:{8 characters}:ckpt-step-{step}`; the 8 differ from the final model's."""
    number = int.from_bytes(hashlib.sha256(f"{job.id} {step}".encode()).digest())
    unique = "".join(_DIGITS[number // 36**place % 36] for place in range(8))
    return f"{job.wanted_model.rpartition(':')[0]}:{unique}:ckpt-step-{step}"


async def publish(workshop: Workshop, job: JobRow, run: RunDirectory, step: int) -> Adapter:
    """The checkpoint of this step as an adapter that answers, a copy of its own.

    Raises:
        AdapterError: it is gone, or can't be served.
    """
    name = checkpoint_name(job, step)
    try:
        return workshop.registry.get(name)
    except ModelNotFoundError:
        pass
    aside = run.path / ".publishing" / f"checkpoint-{step}"
    try:
        await asyncio.to_thread(_hold, run.checkpoint(step), aside)
        return await asyncio.to_thread(_import, workshop, run, aside, name)
    except OSError as error:
        raise AdapterError(f"Its files can't be had: {error.strerror}.") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)


def note(session: Session, job_id: str, step: int, adapter: Adapter, metrics: Mapping[str, Any], at: int) -> None:
    """Writes that the checkpoint answers; nothing where that has been written."""
    if not is_noted(session, job_id, step):
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
        told = f"Checkpoint created at step {step} with Snapshot ID: {adapter.name}"
        add_event(session, job_id, told, created_at=at)


def is_noted(session: Session, job_id: str, step: int) -> bool:
    """Whether it has been written that this checkpoint answers."""
    known = select(JobCheckpointRow.id).where(JobCheckpointRow.job_id == job_id, JobCheckpointRow.step_number == step)
    return session.scalar(known) is not None


async def let_go(workshop: Workshop, job_id: str) -> None:
    """Removes the job's oldest checkpoints beyond those that are kept.

    One in use stays until the next time, and one that an alias stands for as long as it does.
    """
    by_age = (
        select(JobCheckpointRow)
        .where(JobCheckpointRow.job_id == job_id)
        .order_by(JobCheckpointRow.step_number.desc())
        .offset(workshop.settings.checkpoints_kept)
    )
    in_use = await workshop.transaction(changes.find_models_in_use)
    for row in await workshop.transaction(lambda session: list(session.scalars(by_age))):
        if row.model in in_use:
            continue
        # One of another base model isn't in the registry and yet there.
        if (
            await remove(workshop.registry, row.model)
            and not (workshop.settings.adapters_dir / row.adapter_id).exists()
        ):
            await workshop.transaction(partial(forget, [row.model]))


async def let_go_of_all(workshop: Workshop) -> None:
    """`let_go` for each job that has more checkpoints than are kept."""
    count = func.count(JobCheckpointRow.number)
    kept = workshop.settings.checkpoints_kept
    too_many = select(JobCheckpointRow.job_id).group_by(JobCheckpointRow.job_id).having(count > kept)
    for job_id in await workshop.transaction(lambda session: session.scalars(too_many).all()):
        await let_go(workshop, job_id)


async def forget_gone(workshop: Workshop, job_id: str | None = None) -> None:
    """Drops the rows of checkpoints whose adapter is gone, such as those that a client deleted.

    job_id: of this job alone.
    """
    rows = select(JobCheckpointRow.model, JobCheckpointRow.adapter_id)
    if job_id is not None:
        rows = rows.where(JobCheckpointRow.job_id == job_id)
    noted = await workshop.transaction(lambda session: session.execute(rows).all())
    folder = workshop.settings.adapters_dir
    gone = await asyncio.to_thread(lambda: [model for model, adapter_id in noted if not (folder / adapter_id).exists()])
    for first in range(0, len(gone), _AT_ONCE):
        await workshop.transaction(partial(forget, gone[first : first + _AT_ONCE]))


async def remove(registry: Registry, name: str) -> bool:
    """Whether the adapter of this name is gone."""
    try:
        # The same checkpoint may be published again, by a job that goes on from an earlier one.
        await registry.remove(name, drain_timeout_s=1.0, keep_name_taken=False)
    except ModelNotFoundError:
        return True
    except ServingError as error:
        logger.warning("%s can't be removed now: %s", name, error)
        return False
    return True


async def remove_unnoted(workshop: Workshop, jobs: Mapping[str, JobRow]) -> None:
    """Removes what a server that was killed had begun to publish of jobs that have ended since.

    jobs: the ended ones, by id.
    """
    found = {adapter.name for adapter in workshop.registry.adapters() if is_checkpoint(adapter.name)}
    if found:
        noted = set(await workshop.transaction(lambda session: session.scalars(select(JobCheckpointRow.model)).all()))
        for name in found - noted:
            step = int(name.rpartition("-")[2])
            prefix = name.rsplit(":", 2)[0]
            if any(job.wanted_model.startswith(prefix) and checkpoint_name(job, step) == name for job in jobs.values()):
                await remove(workshop.registry, name)


def forget(names: Sequence[str], session: Session) -> None:
    """Drops the rows of the checkpoints of these names, and who was let in to them."""
    session.execute(delete(JobCheckpointRow).where(JobCheckpointRow.model.in_(names)))
    session.execute(delete(CheckpointPermissionRow).where(CheckpointPermissionRow.checkpoint.in_(names)))


def _hold(checkpoint: Path, aside: Path) -> None:
    """Links to the files of the checkpoint, which the run removes in its own time; it holds pickles, too."""
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        os.link(checkpoint / name, aside / name)


def _import(workshop: Workshop, run: RunDirectory, source: Path, name: str) -> Adapter:
    base_name = str(run.config.get("base_model_name") or workshop.registry.base_names[0])
    pool = workshop.registry.base_pool(base_name)
    if pool is None:
        raise AdapterError(f"Its base model {base_name!r} isn't served any more. Start the server with it again.")
    limits = pool.replicas[0].engine.limits
    return import_adapter(source, workshop.settings.adapters_dir, pool.base, limits, name=name, same_base=True)
