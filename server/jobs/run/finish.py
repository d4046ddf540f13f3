"""The end of a job: the result is loaded and asked for its first token, or the failure is reported."""

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
from server.jobs.run.context import JobContext
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
"""How long a finished job waits for a starting engine; after that, the first request loads the model."""
ENDING_S = 2.0
"""Estimated time for loading the model and generating its first token, for `estimated_finish`."""
RESULT_FILE = "step_metrics.csv"
_ENGINE_POLL_S = 0.25
_CODES = {
    "invalid_data": ("invalid_training_file", "training_file"),
    "invalid_config": ("invalid_hyperparameters", None),
    "invalid_base_model": ("invalid_model", "model"),
    "output_exists": ("server_error", None),
    "internal_error": ("server_error", None),
}
"""A run's code → the job's code and param; others, such as `out_of_memory`, are unchanged."""
_FILES = {
    "validation_file": ("invalid_validation_file", "validation_file"),
    "mix_file": ("invalid_mix_file", "tuneloop.mix_file"),
}
"""The setting of the faulty file → the job's code and param."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadOutcome:
    """The outcome of loading the result."""

    message: str
    level: states.Level = "info"
    first_token_s: float | None = None
    refused: bool = False
    """Whether it can't be served at all."""
    parity: Mapping[str, Any] | None = None
    """The parity gate's result, if it ran: `passed`, `reasons` and figures, as in the manifest."""

    @property
    def failed_parity(self) -> bool:
        """Whether it is refused because the engine's outputs differ from the trained model's."""
        return self.refused and self.parity is not None and self.parity.get("passed") is False


async def finish(context: JobContext, job: JobRow, run: RunDirectory) -> None:
    """End a job that has a result: it succeeds, unless it was cancelled or its adapter is refused."""
    finished_at = await asyncio.to_thread(run.finished_at)
    if run.makes_adapter:
        loaded = await _load_result(context, run, finished_at)
    else:
        loaded = _describe_unloaded(run)
    loaded = replace(loaded, message=run.replace_paths(loaded.message, job))
    if loaded.refused:
        await _fail_unservable(context, job, loaded)
        return
    table = await asyncio.to_thread(_write_result_table, run)

    async def succeed() -> None:
        with await asyncio.to_thread(context.files.prepare, table) as content:
            await context.database.run(lambda session: _succeed(session, context, job, run, loaded, content))

    await context.retry(succeed)
    context.on_end()


async def _fail_unservable(context: JobContext, job: JobRow, loaded: LoadOutcome) -> None:
    """Fail a job whose adapter can't be served; the parity gate's findings go into an event of their own."""
    kept = f"The trained adapter is kept as {job.adapter_id}, but not served."
    code = "parity_failed" if loaded.failed_parity else "adapter_not_servable"

    def refuse(session: Session) -> None:
        if states.fail(session, job.id, code, f"{loaded.message} {kept}") and loaded.failed_parity:
            states.add_event(
                session,
                job.id,
                "Parity check failed; see this event's data for the figures",
                level="error",
                data=_filter_parity(loaded.parity or {}),
            )

    await context.run_transaction(refuse)
    context.on_end()


async def fail(context: JobContext, job: JobRow, code: str, message: str, param: str | None = None) -> None:
    """Fail the job for this reason; does nothing if it has ended."""
    await context.run_transaction(lambda session: states.fail(session, job.id, code, message, param))
    context.on_end()


async def fail_from_event(context: JobContext, job: JobRow, run: RunDirectory, failure: ProgressEvent) -> None:
    """Fail the job as its process's `failed` event says."""
    reported = failure.code or "internal_error"
    code, param = _CODES.get(reported, (reported, None))
    if reported in ("invalid_config", "diverged", "out_of_memory"):
        param = failure.param
    if reported == "invalid_base_model" and failure.param not in (
        None,
        "base_model",
    ):  # a setting that this base can't take
        code, param = "invalid_hyperparameters", f"tuneloop.{failure.param}"
    if reported == "invalid_data":
        code, param = _FILES.get(failure.param or "", (code, param))
    await fail(context, job, code, run.replace_paths(failure.message, job), param)


def _succeed(
    session: Session, context: JobContext, job: JobRow, run: RunDirectory, loaded: LoadOutcome, content: IncomingFile
) -> None:
    """content: the result file."""
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
    file = context.files.publish(
        session, content, filename=RESULT_FILE, purpose="fine-tune-results", created_by=job.created_by
    )
    states.change(session, job.id, {"succeeded"}, result_files=[file.id])
    first_token: dict[str, Any] | None = None
    if loaded.first_token_s is not None:
        first_token = {"first_token_s": loaded.first_token_s}
    if loaded.parity is not None:
        states.add_event(session, job.id, _describe_parity(loaded.parity), data=_filter_parity(loaded.parity))
    states.add_event(session, job.id, loaded.message, level=loaded.level, data=first_token)
    states.add_event(session, job.id, f"New fine-tuned model created: {name}")
    states.add_event(session, job.id, "The job has successfully completed")


def _write_result_table(run: RunDirectory) -> Path:
    """Write the run's metrics from the first step on: programs that read OpenAI's result files expect a `train_loss` in
    each row, which the evaluation before training doesn't have."""
    lines = write_metrics(run.path).read_text(encoding="utf-8").splitlines(keepends=True)
    table = run.path / RESULT_FILE
    table.write_text("".join(line for line in lines if not line.startswith("0,")), encoding="utf-8")
    return table


def _describe_unloaded(run: RunDirectory) -> LoadOutcome:
    serve_as = run.config.get("serve_as")
    if serve_as == "model":
        return LoadOutcome(
            "The result is a full model, not an adapter: serve it as a base model with `tuneloop up --model`"
        )
    return LoadOutcome(f"serve_as is {serve_as!r}, so the result is kept on disk and not served")


async def _load_result(context: JobContext, run: RunDirectory, finished_at: float) -> LoadOutcome:
    """Publish the adapter and generate one token; retry while the engine is away, up to `ENGINE_WAIT_S`."""
    name = str(run.manifest.get("name"))
    deadline = time.monotonic() + ENGINE_WAIT_S
    while True:
        parity: Mapping[str, Any] | None = None
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                parity = (await context.registry.publish(name)).manifest.get("parity")
                refusal = await _request_first_token(context, name)
        except TimeoutError:
            message = (
                f"The engine returned no token within {ENGINE_WAIT_S:.0f} s, so the first request may have to "
                "be retried"
            )
            return LoadOutcome(message, "warn", parity=parity)
        except ParityError as error:
            return LoadOutcome(str(error), "error", refused=True, parity=run.manifest.get("parity"))
        except (AdapterUncheckedError, AdapterMisfitError) as error:  # not the adapter's fault: it is kept
            return LoadOutcome(f"The model isn't published yet: {error}", "warn")
        except (AdapterError, ModelNotFoundError) as error:
            return LoadOutcome(str(error), "error", refused=True)
        except EngineUnavailableError as error:
            if time.monotonic() < deadline:
                await asyncio.sleep(_ENGINE_POLL_S)
                continue
            message = f"The engine wasn't ready, so the first request will load the model: {error}"
            return LoadOutcome(message, "warn", parity=parity)
        if refusal:
            message = f"The model is loaded, but the engine rejected a test request: {refusal}"
            return LoadOutcome(message, "warn", parity=parity)
        first_token_s = round(max(0.0, time.time() - finished_at), 3)
        message = f"The model returned its first token {first_token_s:.2f} s after training"
        return LoadOutcome(message, first_token_s=first_token_s, parity=parity)


def _describe_parity(parity: Mapping[str, Any]) -> str:
    tuned = parity.get("tuned") or {}
    return (
        "Parity check passed: the engine's log-probabilities differ from the trained model's by "
        f"{tuned.get('mean', 0):.2g} nats on average; the limit is {parity.get('bound')}"
    )


def _filter_parity(parity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parity result without the numbers that only the canary needs."""
    return {name: value for name, value in parity.items() if name != "served"}


async def _request_first_token(context: JobContext, name: str) -> str | None:
    """Generate one token; return None on success, else the engine's error."""
    async with context.registry.lease(name) as lease:
        body = {"model": lease.name, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        async with lease.engine.request(
            "POST", "/v1/completions", body=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        ) as answer:
            content = await answer.read()
            return content.decode("utf-8", "replace")[:300] if answer.status >= 400 else None


def estimate_finish(event: ProgressEvent) -> int | None:
    """Estimate when the job will end, in Unix seconds, from its process's own estimate; None without one."""
    if event.remaining_s is None:
        return None
    return max(now_s(), round(event.created_at + event.remaining_s + ENDING_S))
