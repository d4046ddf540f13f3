"""Makes a job of a request, once: the run directory first, durable, then the row that the runner finds.

A request that is sent again makes no second job: OpenAI's SDK repeats one whose answer it never saw, and says so in
`x-stainless-retry-count`; other clients name their requests with `Idempotency-Key`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from adapter_format.files import ADAPTER_FILES
from adapter_format.names import fine_tuned_model_name, new_adapter_id
from server.access import checkpoints
from server.access.keys import Caller
from server.files.contents import link_or_copy, sync_folder
from server.files.store import FileStore
from server.jobs.create import inputs
from server.jobs.create.body import CreateJob, read_request
from server.jobs.create.configuration import Checked, Ground, check, compose, in_run_dir
from server.jobs.events import add_event
from server.settings import Settings
from server.storage.database import Database
from server.storage.tables import FileRow, JobRow, new_id, now_s
from server.wire.errors import BadRequest, Conflict
from serving import Adapter, BaseModel, Device, Registry, inspect_device
from training.config.config import TrainingConfig

RETRY_WINDOW_S = 1800
"""A retry this long after the job was made is no retry any more. The SDK waits 600 s for an answer and tries twice
again, so its last retry comes after some 1,201 s."""
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True)
class Sender:
    """Who sent a request, and what the headers say of its being sent again."""

    caller: Caller
    idempotency_key: str | None = None
    """A name for the request that the client chose."""
    is_retry: bool = False
    """Whether the client says that it has sent the same before."""

    @classmethod
    def of(cls, caller: Caller, headers: Mapping[str, str]) -> Sender:
        """The sender by the request's headers.

        Raises:
            BadRequest: the Idempotency-Key isn't one.
        """
        key = headers.get("idempotency-key")
        if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
            raise BadRequest(
                "The header Idempotency-Key must be 1 to 255 visible ASCII characters, such as a UUID.",
                code="invalid_idempotency_key",
            )
        count = headers.get("x-stainless-retry-count", "0")
        return cls(caller, key, count.isascii() and count.isdigit() and count.strip("0") != "")


@dataclass(frozen=True)
class Draft:
    """All that a new job's row and run directory are made from. Nothing of it is written yet."""

    id: str
    request: CreateJob
    checked: Checked
    start: Adapter | None
    ground: Ground
    wanted_model: str
    adapter_id: str
    seed: int
    unchecked: tuple[str, ...]
    """Ids of those of its files that are still being checked: the job waits for that."""

    @property
    def base(self) -> BaseModel:
        """What is trained on."""
        return self.ground.base


class JobCreator:
    """The one place where jobs are made; one at a time, so that two equal requests can't pass each other."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        registry: Registry,
        files: FileStore,
        on_created: Callable[[], None],
    ) -> None:
        """on_created: called after each new job, which is queued then."""
        self._settings, self._database = settings, database
        self._registry, self._files, self._on_created = registry, files, on_created
        self._lock = asyncio.Lock()
        self._device: Device | None = None

    async def create(
        self, body: bytes, sender: Sender, *, asked: bytes | None = None, ratings: dict[str, Any] | None = None
    ) -> JobRow:
        """The job that this request makes, or has made already.

        asked: what the client sent, to know it by, where `body` is only what that came to. ratings: the votes that the
        training file was made from.

        Raises:
            BadRequest: the request breaks a rule.
            Conflict: its Idempotency-Key was used for another request.
        """
        sha256 = _sha256(body if asked is None else asked)
        async with self._lock:
            try:
                row = await self._database.run(lambda session: self._create(session, body, sender, sha256, ratings))
            except IntegrityError:  # another server on this database was faster
                found = await self._database.run(lambda session: _repeated(session, sha256, sender))
                if found is None:
                    raise
                return found
        self._on_created()
        return row

    async def made_before(self, asked: bytes, sender: Sender) -> JobRow | None:
        """The job that this request, sent again, has made already; None when it is new. Raises: as `create`."""
        return await self._database.run(lambda session: _repeated(session, _sha256(asked), sender))

    async def draft(self, body: bytes, caller: Caller) -> Draft:
        """What `create` would write, but for the preflight: see `configuration.look_ahead`.

        Raises:
            BadRequest: the request breaks a rule.
        """
        request = read_request(body)
        return await self._database.run(lambda session: self._draft(session, request, caller, make=compose))

    def _create(
        self, session: Session, body: bytes, sender: Sender, sha256: str, ratings: dict[str, Any] | None
    ) -> JobRow:
        repeated = _repeated(session, sha256, sender)
        if repeated is not None:
            return repeated
        draft = self._draft(session, read_request(body), sender.caller)
        run_dir = self._settings.runs_dir / draft.id
        try:
            self._write_run_dir(run_dir, draft)
            row = _new_row(draft, sender, sha256)
            if ratings is not None:
                row.ratings = ratings
                _keep(session, [row.training_file, ratings["holdout_file"]])
            session.add(row)
            session.flush()
            _tell(session, draft)
            session.flush()
        except BaseException:
            shutil.rmtree(run_dir, ignore_errors=True)
            raise  # once the commit is under way, the directory stays: the row may be there although an error came
        return row

    def _draft(
        self, session: Session, request: CreateJob, caller: Caller, *, make: Callable[..., Checked] = check
    ) -> Draft:
        """Everything checked, nothing written."""
        request = request.model_copy(update={"model": self._registry.version_of(request.model)})
        start = inputs.starting_point(self._registry, request.model)
        if start and checkpoints.find_hidden(session, caller, [start.name]):
            raise inputs.unavailable_model(request.model)
        files = [inputs.usable_file(session, file_id, param=param) for param, file_id in _files_of(request).items()]
        unchecked = tuple(dict.fromkeys(file.id for file in files if file.status == "uploaded"))
        inputs.refuse_integrations(request)
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        pool = inputs.pool_of(self._registry, request.model, start)
        ground = Ground(pool.base, pool.replicas[0].engine.limits, self._known_device())
        checked = make(request, ground, start, seed=seed, checkpoints_kept=self._settings.checkpoints_kept)
        name = self._name(pool.base, request.suffix)
        return Draft(new_id("ftjob-"), request, checked, start, ground, name, new_adapter_id(), seed, unchecked)

    def _known_device(self) -> Device:
        if self._device is None:  # asking a GPU's driver takes a moment, and what is there doesn't change
            self._device = inspect_device()
        return self._device

    def _name(self, base: BaseModel, suffix: str | None) -> str:
        """A fresh name for the tuned model; spaces in the suffix become hyphens."""
        part = "-".join((suffix or "").split())
        try:
            if suffix and not part:
                raise ValueError("it is blank")
            return fine_tuned_model_name(base.name, self._settings.organization, part)
        except ValueError as error:
            raise BadRequest(
                f"suffix is {suffix!r}, but must be 1 to 64 letters, digits, '.', '_', '-' or spaces, the first a "
                "letter or digit: it becomes a part of the model's name.",
                param="suffix",
                code="invalid_value",
            ) from error

    def _write_run_dir(self, run_dir: Path, draft: Draft) -> None:
        """Writes what the run reads, and returns when it would survive a power cut."""
        run_dir.mkdir(parents=True, mode=0o700)
        for param, file_id in _files_of(draft.request).items():
            try:
                link_or_copy(self._files.path(file_id), run_dir / f"{_ROLES[param]}.jsonl")
            except FileNotFoundError as error:
                raise inputs.missing_file(file_id, param) from error
        if draft.start:
            _take_adapter(draft.start, run_dir / "from_adapter")
        output_dir = self._output_dir(draft)
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        config = in_run_dir(draft.checked.config, run_dir, draft.base, output_dir, draft.wanted_model)
        _write(run_dir / "config.json", config.to_json())
        sync_folder(run_dir)
        sync_folder(run_dir.parent)

    def _output_dir(self, draft: Draft) -> Path:
        """Only what can be hot-loaded goes where the server looks for adapters."""
        config: TrainingConfig = draft.checked.config
        if config.serve_as == "adapter":
            return self._settings.adapters_dir / draft.adapter_id
        folder = "models" if config.serve_as == "model" else "unserved"
        return self._settings.data_dir / folder / draft.adapter_id


_ROLES = {"training_file": "training", "validation_file": "validation", "tuneloop.mix_file": "mix"}
"""Where in the request a file is named, and what it is called in the run directory."""


def _files_of(request: CreateJob) -> dict[str, str]:
    """Place in the request -> file id, of every file that it names."""
    mix = (request.tuneloop or {}).get("mix_file")
    named = {
        "training_file": request.training_file,
        "validation_file": request.validation_file,
        "tuneloop.mix_file": mix if isinstance(mix, str) else None,  # of another type: the configuration refuses it
    }
    return {place: file_id for place, file_id in named.items() if file_id is not None}


def _repeated(session: Session, sha256: str, sender: Sender) -> JobRow | None:
    """The job that this request has made before; None when it is new.

    Raises:
        Conflict: its Idempotency-Key was used for another request.
    """
    mine = (
        select(JobRow)
        .where(JobRow.created_by.is_not_distinct_from(sender.caller.key_id))
        .order_by(JobRow.number.desc())
    )
    if sender.idempotency_key is not None:
        row = session.scalar(mine.where(JobRow.idempotency_key == sender.idempotency_key).limit(1))
        if row is not None and row.request_sha256 != sha256:
            raise Conflict(
                f"The Idempotency-Key {sender.idempotency_key!r} was used for another request, which made {row.id}. "
                "Use a new key for a new job.",
                code="idempotency_key_reused",
            )
        return row
    if not sender.is_retry:
        return None
    recent = mine.where(JobRow.request_sha256 == sha256, JobRow.created_at >= now_s() - RETRY_WINDOW_S)
    return session.scalar(recent.limit(1))


def _new_row(draft: Draft, sender: Sender, request_sha256: str) -> JobRow:
    request, checked = draft.request, draft.checked
    return JobRow(
        id=draft.id,
        status="validating_files",
        created_at=now_s(),
        created_by=sender.caller.key_id,
        project=sender.caller.project,
        model=request.model,
        training_file=request.training_file,
        validation_file=request.validation_file,
        suffix=request.suffix or "",
        seed=draft.seed,
        method=request.method_type,
        hyperparameters=checked.hyperparameters,
        base_learning_rate=checked.base_learning_rate,
        settings=request.tuneloop or {},
        integrations=[one.model_dump() for one in request.integrations] if request.integrations else None,
        metadata_=request.metadata,
        wanted_model=draft.wanted_model,
        adapter_id=draft.adapter_id,
        result_files=[],
        request_sha256=request_sha256,
        idempotency_key=sender.idempotency_key,
    )


def _keep(session: Session, file_ids: Sequence[str | None]) -> None:
    """The files that were made for this job don't expire any more."""
    session.execute(update(FileRow).where(FileRow.id.in_(list(filter(None, file_ids)))).values(expires_at=None))


def _tell(session: Session, draft: Draft) -> None:
    request = draft.request
    add_event(session, draft.id, f"Created fine-tuning job: {draft.id}")
    session.flush()  # events are listed in the order of their numbers
    beside = f" and validation file: {request.validation_file}" if request.validation_file else ""
    add_event(session, draft.id, f"Validating training file: {request.training_file}{beside}")
    if draft.unchecked:
        session.flush()
        add_event(session, draft.id, f"Waiting for the check of {' and '.join(draft.unchecked)}")


def _take_adapter(adapter: Adapter, folder: Path) -> None:
    """A copy of the adapter, so that deleting the model later harms no job that goes on from it."""
    folder.mkdir(mode=0o700)
    try:
        for name in ADAPTER_FILES:
            link_or_copy(adapter.path / name, folder / name)
    except FileNotFoundError as error:
        raise inputs.unavailable_model(adapter.name) from error
    sync_folder(folder)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
