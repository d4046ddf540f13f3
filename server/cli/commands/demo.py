"""`tuneloop demo`: the whole chain on the embedded base, told in steps, with the time that each took."""

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
    """The chain ran and its result is not what it should be."""


def demo(settings: Settings, mount_ui: MountUI, *, once: bool) -> None:
    """Run the chain and serve until Ctrl-C; with `once`, end after the comparison.

    Raises:
        StartError: a base model was named; the demo is about the embedded one.
        DemoFailed: the tuned model does not answer as taught.
    """
    if settings.model is not None:
        raise StartError(
            f"The demo tunes its embedded base, and model is {settings.model!r}. Leave it out, "
            "or use `tuneloop up --model` and `tuneloop train` for a model of your own."
        )
    if settings.more_models or settings.replicas > 1:
        raise StartError("The demo runs one engine. Leave more_models and replicas out, or use `tuneloop up`.")
    started_s = time.perf_counter()

    async def story(services: Services, url: str) -> bool:
        await _chain(services, url)
        out.print(f"\nThe whole chain took {time.perf_counter() - started_s:.0f} s.")
        if not once:
            out.print(addresses(services, url))
        return not once

    up(settings, mount_ui, story)


def copy_base(built: Path, directory: Path) -> None:
    """Copy the embedded base to a folder that does not exist yet or is empty.

    Raises:
        StartError: the folder holds something, or cannot be made.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise StartError(
            f"{directory} exists and is not an empty folder; nothing there is overwritten. Name another one."
        )
    try:
        shutil.copytree(built, directory, dirs_exist_ok=True)
    except OSError as error:
        raise StartError(f"{directory} cannot be made: {error.strerror}. Name a folder where you can write.") from error


async def _chain(services: Services, url: str) -> None:
    with start_progress("Starting the engine, and fine-tuning beside it") as on_progress:
        (engine_s, _), (training_s, adapter) = await asyncio.gather(
            _measure_time(services.engine.start(on_progress)), _measure_time(_get_tuned_model(services))
        )
    err.print(f"Engine up after {engine_s:.0f} s. Fine-tuned after {training_s:.0f} s: {adapter.name}")
    base, questions = services.engine.base.name, read_questions(demo_examples.HOLDOUT)
    async with ChatEndpoint(f"{url}/v1") as endpoint:
        loading_s, _ = await _measure_time(endpoint.answer(adapter.name, questions[0].messages))
        err.print(
            f"Hot-loaded, first whole answer after {loading_s:.2f} s. Asking {len(questions)} held-out questions …"
        )
        report = await compare_models(endpoint, [base, adapter.name], questions)
    _show(report)
    _check(report, base, adapter.name)


async def _get_tuned_model(services: Services) -> Adapter:
    """Return the demo's adapter: the one that an earlier demo left, else a new one, trained in a process of its own."""
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
            raise DemoFailed(f"Fine-tuning failed; {run_dir / 'events.jsonl'} tells why.")
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
    """Return (seconds that it took, its result)"""
    started_s = time.perf_counter()
    result = await work
    return time.perf_counter() - started_s, result


def _show(report: Report) -> None:
    for line in answers(report, SHOWN_QUESTIONS):
        out.print(line, markup=False)
    out.print("\nHeld-out questions answered exactly as taught:")
    out.print(scores(report))


def _check(report: Report, base: str, tuned: str) -> None:
    scored = report.scores
    if scored[tuned] < TAUGHT_SHARE or scored[tuned] <= scored[base]:
        raise DemoFailed(
            f"The tuned model answers {100 * scored[tuned]:.0f} % of the held-out questions as taught, the base "
            f"{100 * scored[base]:.0f} %; {100 * TAUGHT_SHARE:.0f} % were expected of the tuned one. Please report it."
        )
