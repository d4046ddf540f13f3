"""Checks a fine-tuning job before it is created: what creation checks, and what the job would find later.

Nothing is stored. The rules are those of `jobs/create/configuration.py` and `training.preflight`; time and schedule
come from a process that reads the file with the base's tokenizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from server.access.keys import Caller
from server.files.check import FileCheckError, check_for_job
from server.files.store import FileStore
from server.inspection.processes import Inspections
from server.jobs.create import inputs
from server.jobs.create.body import CreateJob
from server.jobs.create.configuration import build_refusal, check_feasible
from server.jobs.create.creator import JobCreator, JobDraft
from server.jobs.listing import WAITING, count_jobs
from server.storage.database import Database
from server.wire.errors import APIError, BadRequest
from training.config.config import ConfigError
from training.data.check import JobCheck
from training.preflight.servable import find_unservable

Problem = dict[str, Any]
"""`param`, `message` and `code`, as in an error envelope."""


async def preflight(
    database: Database, files: FileStore, inspections: Inspections, jobs: JobCreator, body: bytes, caller: Caller
) -> dict[str, Any]:
    """Return the `fine_tuning.preflight` for the request `body`.

    Raises:
        BadRequest: the body isn't a JSON object. Everything else that is wrong is listed in `problems`.
        ServiceUnavailable: the machine is too busy.
    """
    try:
        draft = await jobs.build_draft(body, caller)
    except BadRequest as error:
        if error.code == "invalid_json":
            raise
        return _build_object([_build_problem(error)])
    problems = list(_find_refusals(draft))
    servable = draft.checked.config.serve_as != "none" and not find_unservable(
        draft.checked.config, draft.target.limits
    )
    run = None
    try:
        checked = await _check_files(files, draft)
        if checked.code:
            problems.append({"param": checked.param, "message": checked.message, "code": checked.code})
        run = await _forecast_run(files, inspections, draft)
    except BadRequest as error:
        problems.append(_build_problem(error))
    counts = await database.run(count_jobs)
    waiting = sum(counts[status] for status in (*WAITING, "running"))
    return _build_object(problems, servable=servable, run=run, draft=draft, jobs_ahead=waiting)


def _find_refusals(draft: JobDraft) -> Iterator[Problem]:
    """Yield what `create` would refuse although each value is valid by itself."""
    try:
        check_feasible(draft.checked.config, draft.target)
    except ConfigError as error:
        for sentence in error.faults:
            fault = ConfigError([sentence], param=error.param if sentence == error.faults[0] else None)
            yield _build_problem(build_refusal(fault, draft.request, draft.start))


async def _check_files(files: FileStore, draft: JobDraft) -> JobCheck:
    """Check the files as the job's first step would."""
    request, config = draft.request, draft.checked.config
    validation = None if request.validation_file is None else files.path(request.validation_file)
    try:
        return await check_for_job(
            files.path(request.training_file),
            validation,
            config.method,
            file_format=config.file_format,
            on_leakage=config.on_leakage,
        )
    except FileNotFoundError as error:
        raise inputs.missing_file_error(request.training_file, "training_file") from error
    except FileCheckError as error:
        raise BadRequest(str(error), param="training_file", code="file_check_failed") from error


async def _forecast_run(files: FileStore, inspections: Inspections, draft: JobDraft) -> dict[str, Any] | None:
    """Return the forecast; None if the base's shape is unknown, or no example can be trained on."""
    target = draft.target
    if target.shape is None:
        return None
    folder, file = str(target.base.path), files.path(draft.request.training_file)
    config = dataclasses.replace(draft.checked.config, base_model=folder, training_file=str(file)).to_dict()
    # On a GPU the engine frees memory before a training starts; on a CPU everything keeps running.
    free_bytes = target.memory_bytes if target.on_gpu else None
    try:
        run: dict[str, Any] | None = await inspections.inspect("run", config=config, free_bytes=free_bytes)
    except BadRequest as error:
        text = error.message.replace(folder, target.base.name).replace(str(file), draft.request.training_file)
        raise BadRequest(text, param=_find_param(error.param, draft.request), code=error.code) from error
    if run:
        for name in ("refusals", "findings"):
            run[name] = [sentence.replace(folder, target.base.name) for sentence in run[name]]
    return run


def _find_param(param: str | None, request: CreateJob) -> str | None:
    error = build_refusal(ConfigError([""], param=param), request, None)
    return error.param


def _build_problem(error: APIError) -> Problem:
    return {"param": error.param, "message": error.message, "code": error.code}


def _build_object(
    problems: list[Problem],
    *,
    servable: bool | None = None,
    run: Mapping[str, Any] | None = None,
    draft: JobDraft | None = None,
    jobs_ahead: int | None = None,
) -> dict[str, Any]:
    """Return the object; what couldn't be checked is null."""
    notes: list[str] = []
    if run:
        known = {problem["message"] for problem in problems}
        problems = problems + [
            {"param": None, "message": sentence, "code": "invalid_value"}
            for sentence in run["refusals"]
            if sentence not in known
        ]
        problems += [
            {"param": "training_file", "message": f"line {fault['line']}: {fault['message']}", "code": "unlearnable"}
            for fault in run["faults"][:20]
        ]
        notes = [*run["findings"], *run["plan"]["reasons"]]
        if run["seconds"] is None:
            notes.append("There is no time estimate for GPUs; the job reports one after its first steps.")
    fits = None if run is None or draft is None else _fits_in_memory(run, draft)
    return {
        "object": "fine_tuning.preflight",
        "ready": not problems,
        "fits": fits,
        "servable": servable,
        "problems": problems,
        "memory": None if run is None else {**run["memory"], "total": run["memory_total_bytes"]},
        "free_bytes": None if run is None else run["free_bytes"],
        "seconds": None if run is None else run["seconds"],
        "steps": None if run is None else run["plan"]["total_steps"],
        "examples": None if run is None else run["examples"],
        "training_rows": None if run is None else run["training_rows"],
        "trained_tokens": None if run is None else run["trained_tokens"],
        "hyperparameters": None if run is None or draft is None else _build_hyperparameters(run["plan"], draft),
        "jobs_ahead": jobs_ahead,
        "notes": notes,
    }


def _fits_in_memory(run: Mapping[str, Any], draft: JobDraft) -> bool:
    """Return whether the estimate is within the free memory, and within `max_memory_gb`."""
    allowed = draft.checked.config.max_memory_gb
    limits = [run["free_bytes"], None if allowed is None else allowed * 1e9]
    return all(limit is None or run["memory_total_bytes"] <= limit for limit in limits)


def _build_hyperparameters(plan: Mapping[str, Any], draft: JobDraft) -> dict[str, Any]:
    """Return the hyperparameters by OpenAI's names without any `auto`, and the resulting learning rate."""
    chosen = {
        "n_epochs": plan["n_epochs"],
        "batch_size": plan["batch_size"] * plan["gradient_accumulation_steps"],
        "learning_rate_multiplier": round(plan["learning_rate"] / draft.checked.base_learning_rate, 6),
        "learning_rate": plan["learning_rate"],
        "max_length": draft.checked.config.max_length,
        "gradient_checkpointing": plan["gradient_checkpointing"],
    }
    if "beta" in draft.checked.hyperparameters:
        chosen["beta"] = draft.checked.config.beta
    return chosen
