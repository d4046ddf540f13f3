"""The end of a job, told once: the result is loaded and asked for its first token, or the failure explained."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from server.files.contents import IncomingFile
from server.jobs import states
from server.jobs.events import Level, add_event
from server.jobs.run.context import Workshop
from server.jobs.run_directory import RunDirectory
from server.storage.tables import JobRow, now_s
from serving import (
    AdapterError,
    AdapterMisfitError,
    AdapterUncheckedError,
    EngineUnavailableError,
    ModelNotFoundError,
    ParityError,
)
from training.record.progress import ProgressEvent
from training.record.record import write_metrics

ENGINE_WAIT_S = 120.0
"""How long a finished job waits for an engine that is starting; after that the first request loads the model."""
ENDING_S = 2.0
"""What loading the model and its first token are taken to need, when the time of the end is estimated."""
RESULT_FILE = "step_metrics.csv"
_ENGINE_POLL_S = 0.25
_CODES = {
    "invalid_data": ("invalid_training_file", "training_file"),
    "invalid_config": ("invalid_hyperparameters", None),
    "invalid_base_model": ("invalid_model", "model"),
    "output_exists": ("server_error", None),
    "internal_error": ("server_error", None),
}
"""A run's code → the job's code and param; others, such as `out_of_memory`, are passed on as they are."""
_FILES = {
    "validation_file": ("invalid_validation_file", "validation_file"),
    "mix_file": ("invalid_mix_file", "tuneloop.mix_file"),
}
"""The setting whose file has faults → the job's code and param."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """What came of loading the result."""

    message: str
    level: Level = "info"
    first_token_s: float | None = None
    refused: bool = False
    """Whether it can't be served at all."""
    parity: Mapping[str, Any] | None = None
    """What the gate found, where it looked: `passed`, `reasons` and figures, as the manifest has them."""

    @property
    def failed_parity(self) -> bool:
        """Whether it is refused because the engine doesn't serve what was trained."""
        return self.refused and self.parity is not None and self.parity.get("passed") is False


async def finish(workshop: Workshop, job: JobRow, run: RunDirectory) -> None:
    """Ends the job whose result is in place: it succeeds, unless it was cancelled or its adapter is refused."""
    finished_at = await asyncio.to_thread(run.finished_at)
    if run.makes_adapter:
        loaded = await _load(workshop, run, finished_at)
    else:
        loaded = _not_loaded(run)
    loaded = replace(loaded, message=run.without_paths(loaded.message, job))
    if loaded.refused:
        await _refuse(workshop, job, loaded)
        return
    table = await asyncio.to_thread(_result_table, run)

    async def succeed() -> None:
        with await asyncio.to_thread(workshop.files.prepare, table) as content:
            await workshop.database.run(lambda session: _succeed(session, workshop, job, run, loaded, content))

    await workshop.patiently(succeed)
    workshop.on_end()


async def _refuse(workshop: Workshop, job: JobRow, loaded: Loaded) -> None:
    """Ends the job whose adapter mustn't be served; what the gate found against it stands in an event of its own."""
    kept = f"The trained adapter isn't lost: it is kept as {job.adapter_id}, and not served."
    code = "parity_failed" if loaded.failed_parity else "adapter_not_servable"

    def refuse(session: Session) -> None:
        if states.fail(session, job.id, code, f"{loaded.message} {kept}") and loaded.failed_parity:
            add_event(
                session,
                job.id,
                "Parity checked: not passed; its figures are in this event's data",
                level="error",
                data=_figures(loaded.parity or {}),
            )

    await workshop.transaction(refuse)
    workshop.on_end()


async def fail(workshop: Workshop, job: JobRow, code: str, message: str, param: str | None = None) -> None:
    """Ends the job: it failed, for this reason. Nothing if it has ended."""
    await workshop.transaction(lambda session: states.fail(session, job.id, code, message, param))
    workshop.on_end()


async def fail_as_told(workshop: Workshop, job: JobRow, run: RunDirectory, failure: ProgressEvent) -> None:
    """Ends the job as the `failed` event of its process says."""
    told = failure.code or "internal_error"
    code, param = _CODES.get(told, (told, None))
    if told in ("invalid_config", "diverged", "out_of_memory"):
        param = failure.param
    if told == "invalid_base_model" and failure.param not in (
        None,
        "base_model",
    ):  # a setting that this base can't take
        code, param = "invalid_hyperparameters", f"tuneloop.{failure.param}"
    if told == "invalid_data":
        code, param = _FILES.get(failure.param or "", (code, param))
    await fail(workshop, job, code, run.without_paths(failure.message, job), param)


def _succeed(
    session: Session, workshop: Workshop, job: JobRow, run: RunDirectory, loaded: Loaded, content: IncomingFile
) -> None:
    """content: of the file of results."""
    manifest = run.manifest
    name = str(manifest.get("name") or job.wanted_model)
    metrics = manifest.get("metrics") or {}
    ended = states.end(
        session,
        job.id,
        "succeeded",
        fine_tuned_model=name,
        trained_tokens=metrics.get("trained_tokens"),
        first_token_s=loaded.first_token_s,
        attempts=0,
    )
    if not ended:
        return
    file = workshop.files.publish(
        session, content, filename=RESULT_FILE, purpose="fine-tune-results", created_by=job.created_by
    )
    states.change(session, job.id, {"succeeded"}, result_files=[file.id])
    first_token: dict[str, Any] | None = None
    if loaded.first_token_s is not None:
        first_token = {"first_token_s": loaded.first_token_s}
    if loaded.parity is not None:
        add_event(session, job.id, _parity_told(loaded.parity), data=_figures(loaded.parity))
    add_event(session, job.id, loaded.message, level=loaded.level, data=first_token)
    add_event(session, job.id, f"New fine-tuned model created: {name}")
    add_event(session, job.id, "The job has successfully completed")


def _result_table(run: RunDirectory) -> Path:
    """The run's figures from the first step on: programs that read OpenAI's files expect a `train_loss` in each row,
    and the measurement before any training has none."""
    lines = write_metrics(run.path).read_text(encoding="utf-8").splitlines(keepends=True)
    table = run.path / RESULT_FILE
    table.write_text("".join(line for line in lines if not line.startswith("0,")), encoding="utf-8")
    return table


def _not_loaded(run: RunDirectory) -> Loaded:
    serve_as = run.config.get("serve_as")
    if serve_as == "model":
        return Loaded("The result is a whole model, not an adapter: serve it as the base of a server of its own")
    return Loaded(f"The result isn't loaded: serve_as is {serve_as!r}, so it is kept on disk and not served")


async def _load(workshop: Workshop, run: RunDirectory, finished_at: float) -> Loaded:
    """Has the adapter published and say one token; tries again while the engine is away, for a while."""
    name = str(run.manifest.get("name"))
    deadline = time.monotonic() + ENGINE_WAIT_S
    while True:
        parity: Mapping[str, Any] | None = None
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                parity = (await workshop.registry.publish(name)).manifest.get("parity")
                refusal = await _first_token(workshop, name)
        except TimeoutError:
            told = f"The engine gave no first token in {ENGINE_WAIT_S:.0f} s, so the model may have to be asked again"
            return Loaded(told, "warn", parity=parity)
        except ParityError as error:
            return Loaded(str(error), "error", refused=True, parity=run.manifest.get("parity"))
        except (AdapterUncheckedError, AdapterMisfitError) as error:  # no fault of the adapter, which is kept
            return Loaded(f"The model waits to be published: {error}", "warn")
        except (AdapterError, ModelNotFoundError) as error:
            return Loaded(str(error), "error", refused=True)
        except EngineUnavailableError as error:
            if time.monotonic() < deadline:
                await asyncio.sleep(_ENGINE_POLL_S)
                continue
            told = f"The engine wasn't ready, so the first request will load the model: {error}"
            return Loaded(told, "warn", parity=parity)
        if refusal:
            told = f"The model is loaded, but the engine refused a trial request: {refusal}"
            return Loaded(told, "warn", parity=parity)
        first_token_s = round(max(0.0, time.time() - finished_at), 3)
        told = f"The model answered its first token {first_token_s:.2f} s after the training ended"
        return Loaded(told, first_token_s=first_token_s, parity=parity)


def _parity_told(parity: Mapping[str, Any]) -> str:
    tuned = parity.get("tuned") or {}
    return (
        f"Parity checked: the engine's log-probabilities are {tuned.get('mean', 0):.2g} nats from the trained model's "
        f"on average, and {parity.get('bound')} is the bound"
    )


def _figures(parity: Mapping[str, Any]) -> dict[str, Any]:
    """What the gate found, without the numbers that only the canary needs."""
    return {name: value for name, value in parity.items() if name != "served"}


async def _first_token(workshop: Workshop, name: str) -> str | None:
    """None once the model has answered with one token; else the engine's words."""
    async with workshop.registry.lease(name) as lease:
        body = {"model": lease.name, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        async with lease.engine.request(
            "POST", "/v1/completions", body=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        ) as answer:
            said = await answer.read()
            return said.decode("utf-8", "replace")[:300] if answer.status >= 400 else None


def estimated_finish(event: ProgressEvent) -> int | None:
    """When the job will have ended, in Unix seconds, by what its process expects; None when it doesn't say."""
    if event.remaining_s is None:
        return None
    return max(now_s(), round(event.created_at + event.remaining_s + ENDING_S))
