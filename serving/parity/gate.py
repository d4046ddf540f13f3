"""The parity gate: before an adapter is published it is shown that the engine serves what was trained; and the canary,
which shows after a restart that it still does. Knows no torch: what PEFT says comes from a `Reference`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from pathlib import Path

from adapter_format.files import MANIFEST_FILE
from adapter_format.manifest import to_readable_json
from serving.adapters.adapter import Adapter, read_json
from serving.base_model import BaseModel
from serving.engines.engine import AdapterPlace, Engine
from serving.errors import AdapterError, EngineError, EngineUnavailableError, ParityError
from serving.parity.questions import EngineAnswerError, engine_log_probabilities, engine_token_ids
from serving.parity.reference import Prompt, Reference, prompts_from_json
from serving.parity.result import Compared, Difference, ParityResult, bound_for

MakeReference = Callable[[Adapter, BaseModel], Awaitable[Reference]]
"""Raises: AdapterError when there can be none."""
SERVED_PROMPTS = 2
"""How many the canary asks for each adapter: those on which the adapter changes most."""


class Gate:
    """Lets an adapter through once the engine was seen to serve what was trained. Implements `Gate`."""

    def __init__(
        self,
        make_reference: MakeReference | None = None,
        *,
        dtype_of: Callable[[AdapterPlace], str | None] = lambda _: None,
    ) -> None:
        """make_reference: for adapters whose manifest has none, such as imported ones.

        dtype_of: what an engine computes in, such as float32; None counts as the coarsest.
        """
        self._make_reference, self._dtype_of = make_reference, dtype_of

    async def check(self, adapter: Adapter, engine: Engine) -> None:
        """Returns once it is written in the adapter's manifest that it passed. The engine has loaded it.

        Raises:
            ParityError: it didn't, and that is written, too.
            AdapterError: there is nothing to compare with; nothing is written.
            EngineUnavailableError: nothing is written.
        """
        generation = engine.generation
        reference = await self._reference(adapter, engine.base)
        result = await compare(engine, adapter.name, reference, self._dtype_of(engine))
        if engine.generation != generation:  # a new engine doesn't know it: that is no verdict
            raise EngineUnavailableError(f"The engine was restarted while {adapter.name} was judged. Try again.", 5.0)
        await asyncio.to_thread(record, adapter.path, result)
        if not result.passed:
            raise ParityError(f"{adapter.name} failed the parity gate and isn't published: {' '.join(result.reasons)}")

    async def canary(self, engine: AdapterPlace, adapters: Sequence[Adapter]) -> dict[str, str]:
        """Adapter's name → what it answers otherwise now than when it was published; empty when all is well.

        Two requests an adapter at most. Adapters that were never checked are passed over.
        Raises: EngineError when the base itself answers otherwise, or the engine is away.
        """
        return await canary(engine, adapters, self._dtype_of(engine))

    async def _reference(self, adapter: Adapter, base: BaseModel) -> Reference:
        told = adapter.manifest.get("parity_reference")
        if told is not None:
            return Reference.from_json(told)
        if self._make_reference is None:
            raise AdapterError(
                f"{adapter.name} can't be checked: its manifest has no parity_reference, and here none can be made. "
                "Train it again, or set parity_check to false."
            )
        return await self._make_reference(adapter, base)


async def compare(
    engine: AdapterPlace, name: str, reference: Reference, engine_dtype: str | None = None
) -> ParityResult:
    """The engine, which has loaded the adapter as `name`, beside the reference. Raises: EngineUnavailableError."""
    bound = bound_for(engine_dtype, reference.dtype)
    reasons: list[str] = []
    if reference.base_model_sha256 != engine.base.sha256:
        made_on, here = reference.base_model_sha256[:12], engine.base.sha256[:12]
        reasons.append(
            f"Its reference was made on other weights than {engine.base.name!r} has ({made_on}… there, {here}… here). "
            "Serve it on its own base model, or train it again."
        )
    equal, token_fault = await _compare_token_ids(engine, name, reference)
    reasons += [token_fault] if token_fault else []
    compared: Compared | None = None
    served: tuple[Prompt, ...] = ()
    try:
        compared, served = await _ask(engine, name, reference)
    except EngineAnswerError as error:
        reasons.append(f"{error} Check the adapter, or train it again.")
    if compared:
        fault = compared.base_fault(bound)
        reasons += [fault] if fault else []
        reasons += compared.faults(bound)
    return ParityResult(
        passed=not reasons,
        reasons=tuple(reasons),
        token_ids_equal=equal,
        tuned=Difference.between(compared.tuned, compared.tuned_reference) if compared else None,
        base=Difference.between(compared.base, compared.base_reference) if compared else None,
        effect=compared.effect if compared else None,
        share=compared.share[0] if compared and compared.share else None,
        bound=bound,
        engine_dtype=engine_dtype,
        reference_dtype=reference.dtype,
        checked_at=int(time.time()),
        served=served,
    )


async def canary(engine: AdapterPlace, adapters: Sequence[Adapter], engine_dtype: str | None = None) -> dict[str, str]:
    """As `Gate.canary`."""
    faults: dict[str, str] = {}
    bases: dict[tuple[int, ...], tuple[float, ...]] = {}
    for adapter in adapters:
        parity = adapter.manifest.get("parity")
        if not isinstance(parity, dict) or not parity.get("served"):
            continue
        try:
            served = prompts_from_json(parity["served"])
            await _learn_base(engine, served, bases, bound_for(engine_dtype, str(parity.get("engine_dtype"))))
            tuned = await engine_log_probabilities(engine, adapter.name, [one.token_ids for one in served])
        except AdapterError as error:
            faults[adapter.name] = str(error)
            continue
        compared = _joined(served, tuned, [bases[one.token_ids] for one in served])
        if found := compared.faults(bound_for(engine_dtype, str(parity.get("engine_dtype")))):
            faults[adapter.name] = " ".join(found)
    return faults


async def _learn_base(
    engine: AdapterPlace, served: Sequence[Prompt], known: dict[tuple[int, ...], tuple[float, ...]], bound: float
) -> None:
    """Adds to `known` what the base says to these prompts. Raises: EngineError when it isn't what it said before."""
    fresh = [one for one in served if one.token_ids not in known]
    if not fresh:
        return
    try:
        told = await engine_log_probabilities(engine, engine.base.name, [one.token_ids for one in fresh])
    except EngineAnswerError as error:
        raise EngineError(f"The base model doesn't answer since the engine came up: {error}") from error
    known.update({one.token_ids: row for one, row in zip(fresh, told, strict=True)})
    fault = _joined(fresh, told, told).base_fault(bound)
    if fault:
        raise EngineError(f"The base model answers otherwise than before the engine came up. {fault}")


async def _compare_token_ids(engine: AdapterPlace, name: str, reference: Reference) -> tuple[bool | None, str | None]:
    """(whether all are equal, what is wrong); None and nothing where there is nothing to compare."""
    if not reference.conversations or (
        reference.template_tells_the_date and reference.made_on != time.strftime("%Y-%m-%d")
    ):
        return None, None
    for number, conversation in enumerate(reference.conversations, start=1):
        try:
            told = await engine_token_ids(engine, name, conversation)
        except EngineAnswerError as error:
            return False, f"The engine doesn't tokenise sample conversation {number}. {error}"
        if told != conversation.token_ids:
            place = next(
                (at for at, (a, b) in enumerate(zip(told, conversation.token_ids, strict=False)) if a != b),
                min(len(told), len(conversation.token_ids)),
            )
            return False, (
                f"The engine turns sample conversation {number} into {len(told)} tokens and training into "
                f"{len(conversation.token_ids)}; they differ from token {place + 1} on. The chat template or the "
                "tokenizer beside the base model isn't the one that it was trained with: put that back, or train again."
            )
    return True, None


async def _ask(engine: AdapterPlace, name: str, reference: Reference) -> tuple[Compared, tuple[Prompt, ...]]:
    """What is to be compared, and what the canary is to ask again. Raises: EngineAnswerError."""
    rows = [one.token_ids for one in reference.prompts]
    tuned, base = await asyncio.gather(
        engine_log_probabilities(engine, name, rows), engine_log_probabilities(engine, engine.base.name, rows)
    )
    said = [Prompt(ids, *both) for ids, *both in zip(rows, tuned, base, strict=True)]
    said.sort(key=lambda one: -Difference.between(one.tuned, one.base).mean)
    return _joined(reference.prompts, tuned, base), tuple(said[:SERVED_PROMPTS])


def _joined(
    wanted: Sequence[Prompt], tuned: Sequence[tuple[float, ...]], base: Sequence[tuple[float, ...]]
) -> Compared:
    return Compared(
        tuple(chain(*tuned)),
        tuple(chain(*base)),
        tuple(chain.from_iterable(one.tuned for one in wanted)),
        tuple(chain.from_iterable(one.base for one in wanted)),
    )


def record(adapter_dir: Path, result: ParityResult) -> None:
    """Adds the result to the adapter's manifest.json, which is replaced in one rename; nothing else of it changes.

    Raises: AdapterError when the manifest can't be read.
    """
    manifest = read_json(adapter_dir / MANIFEST_FILE) | {"parity": result.as_dict()}
    # Not within the directory: it must never hold a file that its manifest doesn't list.
    aside = adapter_dir.with_name(f".manifest-{adapter_dir.name}-{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(to_readable_json(manifest))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(adapter_dir / MANIFEST_FILE)
    finally:
        aside.unlink(missing_ok=True)
    directory = os.open(adapter_dir, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
