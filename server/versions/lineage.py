"""The lineage of tuned models: bases, jobs, adapters on disk and checkpoints as one tree.

A name stays in the tree after its adapter is gone, as long as a job's row has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.access import checkpoints as checkpoint_access
from server.access.keys import Caller
from server.aliases import changes as aliases
from server.jobs import states
from server.storage.tables import FileRow, JobCheckpointRow, JobRow
from serving import Adapter, ModelNotFoundError, Registry

State = Literal["served", "waiting", "refused", "training", "failed", "gone"]
MAX_STEPS = 100
"""Longest chain, in generations: names in a foreign manifest might form a cycle."""


@dataclass(frozen=True)
class DiskSnapshot:
    """A snapshot of the adapters directory, from the registry."""

    adapters: Mapping[str, Adapter]
    """Name → adapter, including unpublished and refused ones."""
    bases: Mapping[str, str]
    """Name of an adapter → name of the base that serves it."""
    waiting: Collection[str]
    refused: Mapping[str, str]
    """Name → why it isn't served."""

    @classmethod
    def read(cls, registry: Registry) -> DiskSnapshot:
        """Take a snapshot. Reads the directory if it has changed, so call it in a thread."""
        waiting = registry.awaiting_gate()
        adapters = {adapter.name: adapter for adapter in (*registry.adapters(), *waiting)}
        refused = {}
        for directory, reason in registry.broken().items():
            try:
                adapter = registry.get(directory)
            except ModelNotFoundError:  # no manifest, so it isn't a version of anything
                continue
            adapters[adapter.name], refused[adapter.name] = adapter, reason
        bases = {name: registry.pool_of(adapter).base.name for name, adapter in adapters.items()}
        return cls(adapters, bases, {adapter.name for adapter in waiting}, refused)


@dataclass
class LineageTree:
    """All models and their parents, as of the moment of reading."""

    base_of: Mapping[str, str]
    """Every name of a base → its main name."""
    disk: DiskSnapshot
    jobs: Mapping[str, JobRow]
    """Name of the future model → job."""
    checkpoints: Mapping[str, JobCheckpointRow]
    aliases: Mapping[str, list[str]]
    """Model → the aliases that stand for it."""
    remote: Collection[str] = ()
    """Models of remote engines."""
    files: Mapping[str, FileRow] = field(default_factory=dict)
    hidden: Collection[str] = ()
    """Checkpoints that are hidden from the caller."""

    @classmethod
    def read(cls, session: Session, registry: Registry, disk: DiskSnapshot, caller: Caller) -> LineageTree:
        """Read the tree as this caller may see it."""
        jobs = {row.wanted_model: row for row in session.scalars(select(JobRow).order_by(JobRow.number))}
        checkpoints = {row.model: row for row in session.scalars(select(JobCheckpointRow))}
        known = {*disk.adapters, *checkpoints, *(job.model for job in jobs.values())}
        by_model = defaultdict(list)
        for row in aliases.read_aliases(session):
            by_model[str(row.model)].append(row.name)
        bases = {name: pool.base.name for name in registry.base_names if (pool := registry.base_pool(name))}
        hidden = checkpoint_access.find_foreign(session, caller, known)
        tree = cls(bases, disk, jobs, checkpoints, by_model, registry.remote_names, hidden=hidden)
        tree.files = _read_files(session, jobs.values())
        return tree

    def has_model(self, model: str) -> bool:
        """Return whether this caller can see such a model, existing or gone."""
        known = any(model in names for names in (self.base_of, self.disk.adapters, self.jobs, self.remote))
        return known and model not in self.hidden

    def get_parent(self, model: str) -> str | None:
        """Return what it was tuned from; None for a base, or if unknown."""
        if model in self.base_of:
            return None if self.base_of[model] == model else self.base_of[model]
        if job := self.get_job(model):
            return self.base_of.get(job.model, job.model)
        adapter = self.disk.adapters.get(model)
        start = self._find_start(adapter) if adapter else None
        if start and start != model:
            return start
        return self.disk.bases.get(model) or self._find_base_by_name(model)

    def get_job(self, model: str) -> JobRow | None:
        """Return the job that made it or will make it."""
        if checkpoint := self.checkpoints.get(model):
            return self._jobs_by_id.get(checkpoint.job_id)
        return self.jobs.get(model)

    def get_chain(self, model: str) -> list[str]:
        """Return the models from the base to this one."""
        found = [model]
        while (parent := self.get_parent(found[-1])) and parent not in found and len(found) < MAX_STEPS:
            found.append(parent)
        return found[::-1]

    def list_descendants(self, model: str) -> list[str]:
        """Return all models that were tuned from it, directly or indirectly, parents before their children.

        Failed ones are left out, and so are models that are gone together with all their descendants.
        """
        found: dict[str, None] = {}
        queue = list(self._children[model])
        while queue:
            name = queue.pop(0)
            if name not in found and name != model:
                found[name] = None
                queue.extend(self._children[name])
        alive: set[str] = set()
        for name in reversed(found):
            if self.get_state(name)[0] != "gone" or not alive.isdisjoint(self._children[name]):
                alive.add(name)
        return [name for name in found if name in alive and name not in self.hidden]

    def get_state(self, model: str) -> tuple[State, str | None]:
        """Return its state, and the reason if it is refused or failed."""
        if reason := self.disk.refused.get(model):
            return "refused", reason
        if model in self.disk.waiting:
            return "waiting", None
        if any(model in names for names in (self.disk.adapters, self.base_of, self.remote)):
            return "served", None
        job = self.jobs.get(model)
        if job and job.status in states.NOT_ENDED:
            return "training", None
        if job and job.status == "failed":
            return "failed", (job.error or {}).get("message")
        return "gone", None

    @cached_property
    def _jobs_by_id(self) -> Mapping[str, JobRow]:
        return {job.id: job for job in self.jobs.values()}

    @cached_property
    def _names_by_id(self) -> Mapping[str, str]:
        return {adapter.id: adapter.name for adapter in self.disk.adapters.values()}

    @cached_property
    def _children(self) -> defaultdict[str, list[str]]:
        children: defaultdict[str, list[str]] = defaultdict(list)
        there = (*self.disk.adapters, *(name for name, job in self.jobs.items() if _is_relevant(job)))
        for name in sorted(dict.fromkeys(there), key=self._get_sort_key):
            if parent := self.get_parent(name):
                children[parent].append(name)
        return children

    def _get_sort_key(self, model: str) -> tuple[int, int, str]:
        # A model keeps its place when its job ends: a page is redrawn while someone is about to click.
        if job := self.jobs.get(model):
            return job.created_at, job.number, model
        adapter = self.disk.adapters.get(model)
        return (adapter.created_at if adapter else 0), 0, model

    def _find_start(self, adapter: Adapter) -> str | None:
        """Return the adapter that a run without a job started from, found by its folder's name, which is its id."""
        config = adapter.manifest.get("config")
        start = config.get("from_adapter") if isinstance(config, dict) else None
        name = PurePath(start).name if isinstance(start, str) else None
        return self._names_by_id.get(str(name))

    def _find_base_by_name(self, model: str) -> str | None:
        named = [base for base in self.base_of.values() if model.startswith(f"ft:{base}:")]
        return max(named, key=len, default=None)


def _is_relevant(job: JobRow) -> bool:
    """Return whether the job made a model or still may."""
    return job.status in states.NOT_ENDED or job.fine_tuned_model is not None


def _read_files(session: Session, jobs: Iterable[JobRow]) -> dict[str, FileRow]:
    """Return the files of these jobs by id, including deleted ones whose rows still exist."""
    wanted = {name for job in jobs for name in (job.training_file, job.validation_file) if name}
    if not wanted:
        return {}
    rows = session.scalars(select(FileRow).where(FileRow.purpose == "fine-tune"))
    return {row.id: row for row in rows if row.id in wanted}
