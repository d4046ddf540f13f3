"""The parity gate: checks that the engine serves what was trained before an adapter is published; and the canary, which
checks after a restart that it still does. Runs without torch: PEFT's answers come from a `Reference`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from pathlib import Path

from adapter_format.disk import write_aside
from adapter_format.files import MANIFEST_FILE
from adapter_format.manifest import to_readable_json
from serving.adapters.adapter import Adapter, read_json
from serving.base_model import BaseModel
from serving.engines.engine import AdapterHost, Engine
from serving.errors import AdapterError, EngineError, EngineUnavailableError, ParityError
from serving.parity.questions import EngineAnswerError, engine_log_probabilities, engine_token_ids
from serving.parity.reference import Prompt, Reference, prompts_from_json
from serving.parity.result import Difference, LogProbComparison, ParityResult, bound_for

MakeReference = Callable[[Adapter, BaseModel], Awaitable[Reference]]
"""Raises: AdapterError when no reference can be made."""
SERVED_PROMPTS = 2
"""Prompts per adapter that the canary uses: those on which the adapter changes most."""


class ParityGate:
    """Publishes an adapter once the engine serves what was trained. Implements `serving.registry.loader.Gate`."""

    def __init__(
        self,
        make_reference: MakeReference | None = None,
        *,
        dtype_of: Callable[[AdapterHost], str | None] = lambda _: None,
    ) -> None:
        """make_reference: for adapters without one in their manifest, such as imported ones.

        dtype_of: returns what an engine computes in, such as float32; None counts as the coarsest.
        """
        self._make_reference, self._dtype_of = make_reference, dtype_of

    async def check(self, adapter: Adapter, engine: Engine) -> None:
        """Check an adapter that the engine has loaded, and record in its manifest that it passed.

        Raises:
            ParityError: it didn't pass, which is recorded, too.
            AdapterError: there is nothing to compare with; nothing is recorded.
            EngineUnavailableError: nothing is recorded.
        """
        generation = engine.generation
        reference = await self._reference(adapter, engine.base)
        result = await compare(engine, adapter.name, reference, self._dtype_of(engine))
        if engine.generation != generation:  # the new engine doesn't know the adapter: that is no result
            raise EngineUnavailableError(f"The engine was restarted while {adapter.name} was checked. Try again.", 5.0)
        await asyncio.to_thread(record, adapter.path, result)
        if not result.passed:
            raise ParityError(f"{adapter.name} failed the parity gate and isn't published: {' '.join(result.reasons)}")

    async def run_canary(self, engine: AdapterHost, adapters: Sequence[Adapter]) -> dict[str, str]:
        """Return adapter's name → how its answers differ from those when it was published; empty if all is well.

        At most two requests per adapter. Adapters that were never checked are skipped.
        Raises: EngineError when the base itself answers differently, or the engine is away.
        """
        return await run_canary(engine, adapters, self._dtype_of(engine))

    async def _reference(self, adapter: Adapter, base: BaseModel) -> Reference:
        recorded = adapter.manifest.get("parity_reference")
        if recorded is not None:
            return Reference.from_json(recorded)
        if self._make_reference is None:
            raise AdapterError(
                f"{adapter.name} can't be checked: its manifest has no parity_reference, and none can be created "
                "here. Train it again, or set parity_check to false."
            )
        return await self._make_reference(adapter, base)


async def compare(
    engine: AdapterHost, name: str, reference: Reference, engine_dtype: str | None = None
) -> ParityResult:
    """Compare the engine, where the adapter is loaded as `name`, with the reference. Raises: EngineUnavailableError."""
    bound = bound_for(engine_dtype, reference.dtype)
    reasons: list[str] = []
    if reference.base_model_sha256 != engine.base.sha256:
        made_on, here = reference.base_model_sha256[:12], engine.base.sha256[:12]
        reasons.append(
            f"Its reference was computed with different weights than those of {engine.base.name!r} ({made_on}…, not "
            f"{here}…). Serve it on its own base model, or train it again."
        )
    equal, token_fault = await _compare_token_ids(engine, name, reference)
    reasons += [token_fault] if token_fault else []
    comparison: LogProbComparison | None = None
    served: tuple[Prompt, ...] = ()
    try:
        comparison, served = await _measure(engine, name, reference)
    except EngineAnswerError as error:
        reasons.append(f"{error} Check the adapter, or train it again.")
    if comparison:
        fault = comparison.base_fault(bound)
        reasons += [fault] if fault else []
        reasons += comparison.faults(bound)
    return ParityResult(
        passed=not reasons,
        reasons=tuple(reasons),
        token_ids_equal=equal,
        tuned=Difference.between(comparison.tuned, comparison.tuned_reference) if comparison else None,
        base=Difference.between(comparison.base, comparison.base_reference) if comparison else None,
        effect=comparison.effect if comparison else None,
        share=comparison.share[0] if comparison and comparison.share else None,
        bound=bound,
        engine_dtype=engine_dtype,
        reference_dtype=reference.dtype,
        checked_at=int(time.time()),
        served=served,
    )


async def run_canary(
    engine: AdapterHost, adapters: Sequence[Adapter], engine_dtype: str | None = None
) -> dict[str, str]:
    """See `ParityGate.run_canary`."""
    faults: dict[str, str] = {}
    bases: dict[tuple[int, ...], tuple[float, ...]] = {}
    for adapter in adapters:
        parity = adapter.manifest.get("parity")
        if not isinstance(parity, dict) or not parity.get("served"):
            continue
        try:
            served = prompts_from_json(parity["served"])
            await _check_base(engine, served, bases, bound_for(engine_dtype, str(parity.get("engine_dtype"))))
            tuned = await engine_log_probabilities(engine, adapter.name, [prompt.token_ids for prompt in served])
        except AdapterError as error:
            faults[adapter.name] = str(error)
            continue
        comparison = _make_comparison(served, tuned, [bases[prompt.token_ids] for prompt in served])
        if found := comparison.faults(bound_for(engine_dtype, str(parity.get("engine_dtype")))):
            faults[adapter.name] = " ".join(found)
    return faults


async def _check_base(
    engine: AdapterHost, served: Sequence[Prompt], known: dict[tuple[int, ...], tuple[float, ...]], bound: float
) -> None:
    """Add the base's answers to these prompts to `known`. Raises: EngineError when they differ from those before."""
    fresh = [prompt for prompt in served if prompt.token_ids not in known]
    if not fresh:
        return
    try:
        answers = await engine_log_probabilities(engine, engine.base.name, [prompt.token_ids for prompt in fresh])
    except EngineAnswerError as error:
        raise EngineError(f"The base model doesn't answer since the engine started: {error}") from error
    known.update({prompt.token_ids: row for prompt, row in zip(fresh, answers, strict=True)})
    fault = _make_comparison(fresh, answers, answers).base_fault(bound)
    if fault:
        raise EngineError(f"The base model answers differently than before the engine started. {fault}")


async def _compare_token_ids(engine: AdapterHost, name: str, reference: Reference) -> tuple[bool | None, str | None]:
    """Return (whether all are equal, what is wrong); (None, None) where there is nothing to compare."""
    if not reference.conversations or (
        reference.template_tells_the_date and reference.made_on != time.strftime("%Y-%m-%d")
    ):
        return None, None
    for number, conversation in enumerate(reference.conversations, start=1):
        try:
            token_ids = await engine_token_ids(engine, name, conversation)
        except EngineAnswerError as error:
            return False, f"The engine can't tokenize sample conversation {number}. {error}"
        if token_ids != conversation.token_ids:
            position = next(
                (at for at, (a, b) in enumerate(zip(token_ids, conversation.token_ids, strict=False)) if a != b),
                min(len(token_ids), len(conversation.token_ids)),
            )
            return False, (
                f"The engine turns sample conversation {number} into {len(token_ids)} tokens, but training into "
                f"{len(conversation.token_ids)}; they differ from token {position + 1} on. The base model's chat "
                "template or tokenizer isn't the one used in training: restore it, or train again."
            )
    return True, None


async def _measure(
    engine: AdapterHost, name: str, reference: Reference
) -> tuple[LogProbComparison, tuple[Prompt, ...]]:
    """Return the comparison, and the prompts for the canary with the engine's answers. Raises: EngineAnswerError."""
    rows = [prompt.token_ids for prompt in reference.prompts]
    tuned, base = await asyncio.gather(
        engine_log_probabilities(engine, name, rows), engine_log_probabilities(engine, engine.base.name, rows)
    )
    answered = [Prompt(ids, *both) for ids, *both in zip(rows, tuned, base, strict=True)]
    answered.sort(key=lambda prompt: -Difference.between(prompt.tuned, prompt.base).mean)
    return _make_comparison(reference.prompts, tuned, base), tuple(answered[:SERVED_PROMPTS])


def _make_comparison(
    wanted: Sequence[Prompt], tuned: Sequence[tuple[float, ...]], base: Sequence[tuple[float, ...]]
) -> LogProbComparison:
    return LogProbComparison(
        tuple(chain(*tuned)),
        tuple(chain(*base)),
        tuple(chain.from_iterable(prompt.tuned for prompt in wanted)),
        tuple(chain.from_iterable(prompt.base for prompt in wanted)),
    )


def record(adapter_dir: Path, result: ParityResult) -> None:
    """Add the result to the adapter's manifest.json, which is replaced by a rename; its other keys stay as they are.

    Raises: AdapterError when the manifest can't be read.
    """
    manifest = read_json(adapter_dir / MANIFEST_FILE) | {"parity": result.as_dict()}
    # Not within the directory: it must never hold a file that its manifest doesn't list.
    aside = adapter_dir.with_name(f".manifest-{adapter_dir.name}-{os.getpid()}")
    with write_aside(adapter_dir / MANIFEST_FILE, aside=aside, durable=True) as file:
        file.write_text(to_readable_json(manifest), encoding="utf-8")
