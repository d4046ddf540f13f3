"""Creates a job from a request, once: first the run directory, synced, then the row that the runner finds.

A repeated request doesn't create a second job: OpenAI's SDK repeats a request whose response it never saw, and says so
in `x-stainless-retry-count`; other clients identify their requests with `Idempotency-Key`.
"""

from __future__ import annotations

import asyncio
import hashlib
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

from adapter_format.disk import sync
from adapter_format.files import ADAPTER_FILES
from adapter_format.names import fine_tuned_model_name, new_adapter_id
from server.access import checkpoints
from server.access.keys import Caller
from server.files.contents import link_or_copy
from server.files.store import FileStore
from server.jobs.create import inputs
from server.jobs.create.body import CreateJob, read_request
from server.jobs.create.configuration import CheckedJob, TrainingTarget, check_job, compose_job, place_in_run_dir
from server.jobs.states import add_event
from server.settings import Settings
from server.storage.database import Database
from server.storage.tables import FileRow, JobRow, new_id, now_s
from server.wire.errors import BadRequest, Conflict
from serving import Adapter, BaseModel, Device, Registry, inspect_device
from serving.machine.division import Division
from training.config.config import TrainingConfig

RETRY_WINDOW_S = 1800
"""A repetition later than this creates a new job. The SDK waits 600 s for a response and retries twice, so its last
retry comes after about 1,201 s."""
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True)
class RequestOrigin:
    """Who sent a request, and whether its headers mark it as a repetition."""

    caller: Caller
    idempotency_key: str | None = None
    """The client's own identifier for the request."""
    is_retry: bool = False
    """Whether the client says that it has sent the request before."""

    @classmethod
    def from_headers(cls, caller: Caller, headers: Mapping[str, str]) -> RequestOrigin:
        """Return the origin of a request with these headers.

        Raises:
            BadRequest: the Idempotency-Key is invalid.
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
class JobDraft:
    """Everything needed for a new job's row and run directory. Nothing is written yet."""

    id: str
    request: CreateJob
    checked: CheckedJob
    start: Adapter | None
    target: TrainingTarget
    wanted_model: str
    adapter_id: str
    seed: int
    unchecked: tuple[str, ...]
    """Ids of the files that are still being checked; the job waits for these checks."""

    @property
    def base(self) -> BaseModel:
        """The base model."""
        return self.target.base


class JobCreator:
    """Creates all jobs, one at a time, so that of two equal requests the second always sees the first."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        registry: Registry,
        files: FileStore,
        on_created: Callable[[], None],
        division: Division | None = None,
    ) -> None:
        """on_created: called after each new job is stored. division: what trainings have of this machine."""
        self._settings, self._database = settings, database
        self._registry, self._files, self._on_created = registry, files, on_created
        self._division = division or Division()
        self._lock = asyncio.Lock()
        self._device: Device | None = None

    async def create(
        self,
        body: bytes,
        origin: RequestOrigin,
        *,
        original_body: bytes | None = None,
        ratings: dict[str, Any] | None = None,
    ) -> JobRow:
        """Return the job that this request creates, or has already created.

        original_body: what the client sent, if `body` was derived from it; repetitions are recognized by it.
        ratings: the ratings that the training file was made from.

        Raises:
            BadRequest: the request breaks a rule.
            Conflict: its Idempotency-Key was used for another request.
        """
        sha256 = _sha256(body if original_body is None else original_body)
        async with self._lock:
            try:
                row = await self._database.run(lambda session: self._create(session, body, origin, sha256, ratings))
            except IntegrityError:  # another server on this database created it first
                found = await self._database.run(lambda session: _find_repeated(session, sha256, origin))
                if found is None:
                    raise
                return found
        self._on_created()
        return row

    async def find_repeated(self, original_body: bytes, origin: RequestOrigin) -> JobRow | None:
        """Return the job that this request has already created, None if it is new. Raises: as `create`."""
        return await self._database.run(lambda session: _find_repeated(session, _sha256(original_body), origin))

    async def build_draft(self, body: bytes, caller: Caller) -> JobDraft:
        """Return what `create` would write, without the preflight: see `configuration.check_feasible`.

        Raises:
            BadRequest: the request breaks a rule.
        """
        request = read_request(body)
        return await self._database.run(lambda session: self._build_draft(session, request, caller, check=compose_job))

    def _create(
        self, session: Session, body: bytes, origin: RequestOrigin, sha256: str, ratings: dict[str, Any] | None
    ) -> JobRow:
        repeated = _find_repeated(session, sha256, origin)
        if repeated is not None:
            return repeated
        draft = self._build_draft(session, read_request(body), origin.caller)
        run_dir = self._settings.runs_dir / draft.id
        try:
            self._write_run_dir(run_dir, draft)
            row = _build_row(draft, origin, sha256)
            if ratings is not None:
                row.ratings = ratings
                _clear_expiry(session, [row.training_file, ratings["holdout_file"]])
            session.add(row)
            session.flush()
            _add_created_events(session, draft)
            session.flush()
        except BaseException:
            shutil.rmtree(run_dir, ignore_errors=True)
            raise  # after an error in the commit itself the directory stays, since the row may have been stored
        return row

    def _build_draft(
        self, session: Session, request: CreateJob, caller: Caller, *, check: Callable[..., CheckedJob] = check_job
    ) -> JobDraft:
        """Check everything without writing anything."""
        request = request.model_copy(update={"model": self._registry.version_of(request.model)})
        start = inputs.find_start_adapter(self._registry, request.model)
        if start and checkpoints.find_hidden(session, caller, [start.name]):
            raise inputs.unavailable_model_error(request.model)
        files = [
            inputs.get_usable_file(session, file_id, param=param) for param, file_id in _list_files(request).items()
        ]
        unchecked = tuple(dict.fromkeys(file.id for file in files if file.status == "uploaded"))
        inputs.refuse_integrations(request)
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        pool = inputs.find_pool(self._registry, request.model, start)
        target = TrainingTarget(pool.base, pool.replicas[0].engine.limits, self._get_device(), self._division)
        checked = check(request, target, start, seed=seed, checkpoints_kept=self._settings.checkpoints_kept)
        name = self._build_name(pool.base, request.suffix)
        return JobDraft(new_id("ftjob-"), request, checked, start, target, name, new_adapter_id(), seed, unchecked)

    def _get_device(self) -> Device:
        if self._device is None:  # querying the GPU's driver is slow, and the hardware doesn't change
            self._device = inspect_device()
        return self._device

    def _build_name(self, base: BaseModel, suffix: str | None) -> str:
        """Return a new name for the tuned model; spaces in the suffix become hyphens."""
        part = "-".join((suffix or "").split())
        try:
            if suffix and not part:
                raise ValueError("it is blank")
            return fine_tuned_model_name(base.name, self._settings.organization, part)
        except ValueError as error:
            raise BadRequest(
                f"suffix is {suffix!r}, but must be 1 to 64 letters, digits, '.', '_', '-' or spaces, starting with "
                "a letter or digit: it becomes part of the model's name.",
                param="suffix",
                code="invalid_value",
            ) from error

    def _write_run_dir(self, run_dir: Path, draft: JobDraft) -> None:
        """Write the run's inputs, synced to disk."""
        run_dir.mkdir(parents=True, mode=0o700)
        for param, file_id in _list_files(draft.request).items():
            try:
                link_or_copy(self._files.path(file_id), run_dir / f"{_ROLES[param]}.jsonl")
            except FileNotFoundError as error:
                raise inputs.missing_file_error(file_id, param) from error
        if draft.start:
            _copy_adapter(draft.start, run_dir / "from_adapter")
        output_dir = self._choose_output_dir(draft)
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        config = place_in_run_dir(draft.checked.config, run_dir, draft.base, output_dir, draft.wanted_model)
        _write_synced(run_dir / "config.json", config.to_json())
        sync(run_dir)
        sync(run_dir.parent)

    def _choose_output_dir(self, draft: JobDraft) -> Path:
        """Return where the result goes: only servable adapters go into the server's folder of adapters."""
        config: TrainingConfig = draft.checked.config
        if config.serve_as == "adapter":
            return self._settings.adapters_dir / draft.adapter_id
        folder = "models" if config.serve_as == "model" else "unserved"
        return self._settings.data_dir / folder / draft.adapter_id


_ROLES = {"training_file": "training", "validation_file": "validation", "tuneloop.mix_file": "mix"}
"""The request's field for a file → its name in the run directory."""


def _list_files(request: CreateJob) -> dict[str, str]:
    """Return field of the request → file id, for every file that it names."""
    mix = (request.tuneloop or {}).get("mix_file")
    named = {
        "training_file": request.training_file,
        "validation_file": request.validation_file,
        "tuneloop.mix_file": mix if isinstance(mix, str) else None,  # other types are refused by the configuration
    }
    return {place: file_id for place, file_id in named.items() if file_id is not None}


def _find_repeated(session: Session, sha256: str, origin: RequestOrigin) -> JobRow | None:
    """Return the job that this request has created before; None if it is new.

    Raises:
        Conflict: its Idempotency-Key was used for another request.
    """
    own = (
        select(JobRow)
        .where(JobRow.created_by.is_not_distinct_from(origin.caller.key_id))
        .order_by(JobRow.number.desc())
    )
    if origin.idempotency_key is not None:
        row = session.scalar(own.where(JobRow.idempotency_key == origin.idempotency_key).limit(1))
        if row is not None and row.request_sha256 != sha256:
            raise Conflict(
                f"The Idempotency-Key {origin.idempotency_key!r} was already used for a different request, which "
                f"created {row.id}. Use a new key for a new job.",
                code="idempotency_key_reused",
            )
        return row
    if not origin.is_retry:
        return None
    recent = own.where(JobRow.request_sha256 == sha256, JobRow.created_at >= now_s() - RETRY_WINDOW_S)
    return session.scalar(recent.limit(1))


def _build_row(draft: JobDraft, origin: RequestOrigin, request_sha256: str) -> JobRow:
    request, checked = draft.request, draft.checked
    return JobRow(
        id=draft.id,
        status="validating_files",
        created_at=now_s(),
        created_by=origin.caller.key_id,
        project=origin.caller.project,
        model=request.model,
        training_file=request.training_file,
        validation_file=request.validation_file,
        suffix=request.suffix or "",
        seed=draft.seed,
        method=request.method_type,
        hyperparameters=checked.hyperparameters,
        base_learning_rate=checked.base_learning_rate,
        settings=request.tuneloop or {},
        integrations=[integration.model_dump() for integration in request.integrations]
        if request.integrations
        else None,
        metadata_=request.metadata,
        wanted_model=draft.wanted_model,
        adapter_id=draft.adapter_id,
        result_files=[],
        request_sha256=request_sha256,
        idempotency_key=origin.idempotency_key,
    )


def _clear_expiry(session: Session, file_ids: Sequence[str | None]) -> None:
    """Keep the files that were made for this job from expiring."""
    session.execute(update(FileRow).where(FileRow.id.in_(list(filter(None, file_ids)))).values(expires_at=None))


def _add_created_events(session: Session, draft: JobDraft) -> None:
    request = draft.request
    add_event(session, draft.id, f"Created fine-tuning job: {draft.id}")
    session.flush()  # events are listed in the order of their numbers
    beside = f" and validation file: {request.validation_file}" if request.validation_file else ""
    add_event(session, draft.id, f"Validating training file: {request.training_file}{beside}")
    if draft.unchecked:
        session.flush()
        add_event(session, draft.id, f"Waiting for {' and '.join(draft.unchecked)} to be checked")


def _copy_adapter(adapter: Adapter, folder: Path) -> None:
    """Copy the adapter, so that a job can continue from it even if the model is deleted later."""
    folder.mkdir(mode=0o700)
    try:
        for name in ADAPTER_FILES:
            link_or_copy(adapter.path / name, folder / name)
    except FileNotFoundError as error:
        raise inputs.unavailable_model_error(adapter.name) from error
    sync(folder)


def _write_synced(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    sync(path)


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
