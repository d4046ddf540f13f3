"""`tuneloop demo`: runs the whole workflow on the embedded base model and prints each step with its duration."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from adapter_format.names import fine_tuned_model_name, new_adapter_id
from evaluation import ChatEndpoint, Report, compare_models, read_questions
from server.app.data_dir import StartError
from server.app.run import MountUI
from server.app.services import Services
from server.cli.commands.evaluate import answers, scores
from server.cli.commands.train import write_run
from server.cli.commands.up import addresses, up
from server.cli.console import err, out, start_progress
from server.settings import Settings
from serving import Adapter
from training.demo import examples as demo_examples

T = TypeVar("T")

SUFFIX = "keeper"
SHOWN_QUESTIONS = 6
TAUGHT_SHARE = 0.9
"""The tuned model must answer this share of the held-out questions exactly as taught, or the demo has failed."""
EXAMPLE_PROMPTS = ("What is the capital of France?", "What colour is snow?", "Who are you?")


class DemoFailed(Exception):
    """The demo ran, but its result isn't as expected."""


def demo(settings: Settings, mount_ui: MountUI, *, once: bool) -> None:
    """Run the demo and serve until Ctrl-C; with `once`, exit after the comparison.

    Raises:
        StartError: a base model was named; the demo uses the embedded one.
        DemoFailed: the tuned model doesn't answer as trained.
    """
    if settings.model is not None:
        raise StartError(
            f"The demo uses the embedded base model, but model is {settings.model!r}. Leave it out, or use "
            "`tuneloop up --model` and `tuneloop train` for your own model."
        )
    if settings.more_models or settings.replicas > 1:
        raise StartError("The demo runs a single engine. Leave out more_models and replicas, or use `tuneloop up`.")
    started_s = time.perf_counter()

    async def story(services: Services, url: str) -> bool:
        await _chain(services, url)
        out.print(f"\nThe demo took {time.perf_counter() - started_s:.0f} s.")
        if not once:
            out.print(addresses(services, url))
        return not once

    up(settings, mount_ui, story)


def copy_base(built: Path, directory: Path) -> None:
    """Copy the embedded base to a new or empty folder.

    Raises:
        StartError: the folder isn't empty or can't be created.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise StartError(
            f"{directory} exists and isn't an empty folder. Nothing is overwritten; choose another folder."
        )
    try:
        shutil.copytree(built, directory, dirs_exist_ok=True)
    except OSError as error:
        raise StartError(
            f"Can't create {directory}: {error.strerror}. Choose a folder that you can write to."
        ) from error


async def _chain(services: Services, url: str) -> None:
    with start_progress("Starting the engine and fine-tuning") as on_progress:
        (engine_s, _), (training_s, adapter) = await asyncio.gather(
            _measure_time(services.engine.start(on_progress)), _measure_time(_get_tuned_model(services))
        )
    err.print(f"Engine ready after {engine_s:.0f} s. Fine-tuned after {training_s:.0f} s: {adapter.name}")
    base, questions = services.engine.base.name, read_questions(demo_examples.HOLDOUT)
    async with ChatEndpoint(f"{url}/v1") as endpoint:
        loading_s, _ = await _measure_time(endpoint.answer(adapter.name, questions[0].messages))
        err.print(
            f"Hot-loaded; first complete answer after {loading_s:.2f} s. Asking {len(questions)} held-out questions…"
        )
        report = await compare_models(endpoint, [base, adapter.name], questions)
    _show(report)
    _check(report, base, adapter.name)


async def _get_tuned_model(services: Services) -> Adapter:
    """Return the demo's adapter: one from an earlier demo, or a new one, trained in a child process."""
    settings, base = services.settings, services.engine.base
    name = fine_tuned_model_name(base.name, settings.organization, SUFFIX)
    config = demo_examples.demo_config(base.path, settings.adapters_dir / new_adapter_id(), fine_tuned_model=name)
    for adapter in services.registry.adapters():
        if _same_recipe(adapter.manifest.get("config") or {}, config.to_dict()):
            return adapter
    run_dir = write_run(settings, config)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "training", str(run_dir), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        if await process.wait() != 0:
            raise DemoFailed(f"Fine-tuning failed; see {run_dir / 'events.jsonl'}.")
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return services.registry.get(name)


def _same_recipe(made: dict[str, object], wanted: dict[str, object]) -> bool:
    per_run = {"output_dir", "fine_tuned_model"}
    as_stored: dict[str, object] = json.loads(json.dumps({**wanted, **dict.fromkeys(per_run)}))
    return {**made, **dict.fromkeys(per_run)} == as_stored


async def _measure_time(work: Awaitable[T]) -> tuple[float, T]:
    """Return (seconds it took, its result)."""
    started_s = time.perf_counter()
    result = await work
    return time.perf_counter() - started_s, result


def _show(report: Report) -> None:
    for line in answers(report, SHOWN_QUESTIONS):
        out.print(line, markup=False)
    out.print("\nHeld-out questions answered exactly as trained:")
    out.print(scores(report))


def _check(report: Report, base: str, tuned: str) -> None:
    scored = report.scores
    if scored[tuned] < TAUGHT_SHARE or scored[tuned] <= scored[base]:
        raise DemoFailed(
            f"The tuned model answers {100 * scored[tuned]:.0f}% of the held-out questions as trained (base model: "
            f"{100 * scored[base]:.0f}%); at least {100 * TAUGHT_SHARE:.0f}% was expected. Report this as a bug."
        )
