"""Where a tuned model comes from and what was made of it: base, jobs, adapters on disk, checkpoints, one family tree.

A name stays in the tree when its adapter is gone, as far as the jobs remember. Knows no HTTP.
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
"""Generations that a chain may have: names in a manifest from elsewhere might form a ring."""


@dataclass(frozen=True)
class OnDisk:
    """The adapters directory as the registry has it now."""

    adapters: Mapping[str, Adapter]
    """Name → adapter, those that may not be asked for included."""
    bases: Mapping[str, str]
    """Name of an adapter → of the base that serves it."""
    waiting: Collection[str]
    refused: Mapping[str, str]
    """Name → why it is not served."""

    @classmethod
    def of(cls, registry: Registry) -> OnDisk:
        """Reads the directory where it has changed: call it in a thread."""
        waiting = registry.awaiting_gate()
        adapters = {adapter.name: adapter for adapter in (*registry.adapters(), *waiting)}
        refused = {}
        for directory, reason in registry.broken().items():
            try:
                adapter = registry.get(directory)
            except ModelNotFoundError:  # not even a manifest: no version of anything
                continue
            adapters[adapter.name], refused[adapter.name] = adapter, reason
        bases = {name: registry.pool_of(adapter).base.name for name, adapter in adapters.items()}
        return cls(adapters, bases, {adapter.name for adapter in waiting}, refused)


@dataclass
class Family:
    """All models and who comes from whom. Read once; the tree is of that moment."""

    base_of: Mapping[str, str]
    """Every name of a base → its own name."""
    disk: OnDisk
    jobs: Mapping[str, JobRow]
    """Wanted name → job."""
    checkpoints: Mapping[str, JobCheckpointRow]
    aliases: Mapping[str, list[str]]
    """Model → the aliases that stand for it."""
    remote: Collection[str] = ()
    """Models of engines that others run."""
    files: Mapping[str, FileRow] = field(default_factory=dict)
    hidden: Collection[str] = ()
    """Checkpoints that the caller isn't told of."""

    @classmethod
    def read(cls, session: Session, registry: Registry, disk: OnDisk, caller: Caller) -> Family:
        """The family as this caller may see it."""
        jobs = {row.wanted_model: row for row in session.scalars(select(JobRow).order_by(JobRow.number))}
        checkpoints = {row.model: row for row in session.scalars(select(JobCheckpointRow))}
        known = {*disk.adapters, *checkpoints, *(job.model for job in jobs.values())}
        by_model = defaultdict(list)
        for row in aliases.read_aliases(session):
            by_model[str(row.model)].append(row.name)
        bases = {name: pool.base.name for name in registry.base_names if (pool := registry.base_pool(name))}
        hidden = checkpoint_access.find_foreign(session, caller, known)
        family = cls(bases, disk, jobs, checkpoints, by_model, registry.remote_names, hidden=hidden)
        family.files = _files(session, jobs.values())
        return family

    def knows(self, model: str) -> bool:
        """Whether there is such a model for this caller, or was."""
        known = any(model in names for names in (self.base_of, self.disk.adapters, self.jobs, self.remote))
        return known and model not in self.hidden

    def parent_of(self, model: str) -> str | None:
        """What it was tuned from; None for a base, and where nobody knows."""
        if model in self.base_of:
            return None if self.base_of[model] == model else self.base_of[model]
        if job := self.job_of(model):
            return self.base_of.get(job.model, job.model)
        adapter = self.disk.adapters.get(model)
        start = self._named_start(adapter) if adapter else None
        if start and start != model:
            return start
        return self.disk.bases.get(model) or self._base_by_name(model)

    def job_of(self, model: str) -> JobRow | None:
        """The job that made it, or is to make it."""
        if checkpoint := self.checkpoints.get(model):
            return self._jobs_by_id.get(checkpoint.job_id)
        return self.jobs.get(model)

    def chain(self, model: str) -> list[str]:
        """From the base to this model."""
        found = [model]
        while (parent := self.parent_of(found[-1])) and parent not in found and len(found) < MAX_STEPS:
            found.append(parent)
        return found[::-1]

    def descendants(self, model: str) -> list[str]:
        """What was tuned from it, and from that, parents before their children.

        What came to nothing is left out, and so is what is gone with everything that was made of it.
        """
        found: dict[str, None] = {}
        rest = list(self._children[model])
        while rest:
            one = rest.pop(0)
            if one not in found and one != model:
                found[one] = None
                rest.extend(self._children[one])
        alive: set[str] = set()
        for one in reversed(found):
            if self.state_of(one)[0] != "gone" or not alive.isdisjoint(self._children[one]):
                alive.add(one)
        return [one for one in found if one in alive and one not in self.hidden]

    def state_of(self, model: str) -> tuple[State, str | None]:
        """What it is now, and why where it is refused or failed."""
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
        there = (*self.disk.adapters, *(name for name, job in self.jobs.items() if _counts(job)))
        for name in sorted(dict.fromkeys(there), key=self._born):
            if parent := self.parent_of(name):
                children[parent].append(name)
        return children

    def _born(self, model: str) -> tuple[int, str]:
        adapter, job = self.disk.adapters.get(model), self.jobs.get(model)
        return (adapter.created_at if adapter else job.created_at if job else 0), model

    def _named_start(self, adapter: Adapter) -> str | None:
        """The adapter that a run without a job went on from: its folder is called by its id."""
        config = adapter.manifest.get("config")
        start = config.get("from_adapter") if isinstance(config, dict) else None
        name = PurePath(start).name if isinstance(start, str) else None
        return self._names_by_id.get(str(name))

    def _base_by_name(self, model: str) -> str | None:
        named = [base for base in self.base_of.values() if model.startswith(f"ft:{base}:")]
        return max(named, key=len, default=None)


def _counts(job: JobRow) -> bool:
    """Whether the job made something or is about to."""
    return job.status in states.NOT_ENDED or job.fine_tuned_model is not None


def _files(session: Session, jobs: Iterable[JobRow]) -> dict[str, FileRow]:
    """The files of these jobs by id, the deleted ones too, as long as their rows are there."""
    wanted = {name for job in jobs for name in (job.training_file, job.validation_file) if name}
    if not wanted:
        return {}
    rows = session.scalars(select(FileRow).where(FileRow.purpose == "fine-tune"))
    return {row.id: row for row in rows if row.id in wanted}
