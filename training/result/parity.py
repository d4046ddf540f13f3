"""Parity references: PEFT's token ids and log-probabilities with an adapter on the unquantised base.

An engine must match them. `python -m training.result.parity BASE_DIR ADAPTER_DIR...` prints one JSON line per adapter.
Reads local safetensors only, and runs no code that comes with a model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adapter_format.hashing import weight_files
from adapter_format.manifest import PARITY_REFERENCE_FORMAT
from training.process.environment import prepare_environment

MAX_PROMPT_TOKENS = 64
"""Prompts are cut to this: enough to distinguish adapters, and within an engine's small context."""
DIGITS = 5
"""Of a log-probability, in nats: float32 has no more, and a manifest stays short."""
_PACKAGES = ("torch", "transformers", "tokenizers", "peft")
_ROOM = 1.2
"""Memory for a model with its activations, relative to its weights."""
_SPARE_BYTES = 2**29


class NoReferenceError(Exception):
    """The base or the adapter can't be evaluated here; the text says why."""


def make_references(
    base_dir: Path, adapter_dirs: Sequence[Path], base_sha256: str | None = None
) -> Iterator[dict[str, Any] | NoReferenceError]:
    """Yield each adapter's reference, ready for JSON, or the reason why there is none. The base is loaded once.

    Args:
        base_sha256: the base's hash, if known already.

    Raises:
        NoReferenceError: the base can't be evaluated.
    """
    import torch

    from adapter_format.hashing import base_model_sha256
    from training.model.existing_adapter import apply_adapter, read_adapter_config

    tokenizer, model = _load_tokenizer(base_dir), _load_model(base_dir)
    prompts = _make_prompts(tokenizer, int(model.get_input_embeddings().num_embeddings))
    try:
        base = [_compute_log_probabilities(model, ids) for ids in prompts]
    except ValueError as error:
        raise NoReferenceError(f"The base model in {base_dir} can't be run: {error}.") from error
    about = {
        "format": PARITY_REFERENCE_FORMAT,
        "base_model_sha256": base_sha256 or base_model_sha256(base_dir),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "made_on": time.strftime("%Y-%m-%d"),
        "template_tells_the_date": "strftime_now" in str(getattr(tokenizer, "chat_template", None)),
        "versions": {package: version(package) for package in _PACKAGES},
        "conversations": _render_conversations(tokenizer),
    }
    for directory in adapter_dirs:
        try:
            adapted = apply_adapter(model, directory, read_adapter_config(directory), is_trainable=False).eval()
            tuned = [_compute_log_probabilities(adapted, ids) for ids in prompts]
            model = adapted.unload()
        except ValueError as error:
            yield NoReferenceError(f"The adapter {directory.name} can't be run: {error}.")
            model = _load_model(base_dir)  # the adapter may be partly applied
            continue
        yield about | {
            "prompts": [
                {"token_ids": ids, "tuned": with_adapter, "base": without}
                for ids, with_adapter, without in zip(prompts, tuned, base, strict=True)
            ]
        }
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def make_run_reference(
    base: Any, adapter_dir: Path, trainer: Any, tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return the reference of the adapter that a run has just written; None, with a report, if there is none.

    The trained model is freed for the unquantised base: it can't be used afterwards.
    """
    try:
        _free_model(base.model, trainer)
        (found,) = make_references(base.folder, [adapter_dir], base.sha256)
        if isinstance(found, NoReferenceError):
            raise found
    except Exception as error:  # noqa: BLE001 — hours of training mustn't be lost for a few figures
        tell(
            "no parity reference was created, so the server will create one before it serves the adapter: "
            f"{_first_line(error)}"
        )
        return None
    return found


def _free_model(model: Any, trainer: Any) -> None:
    """Free the weights and the optimizer's state, whoever still references the objects."""
    import torch

    from training.process.memory import release_memory

    optimizer = getattr(trainer, "optimizer", None)
    if optimizer is not None:
        optimizer.state.clear()
    for parameter in model.parameters():
        parameter.grad = None
        parameter.data = torch.empty(0, dtype=parameter.dtype, device=parameter.device)
    release_memory()


def _load_tokenizer(base_dir: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base_dir, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise NoReferenceError(f"The tokenizer in {base_dir} can't be used: {_first_line(error)}.") from error


def _load_model(base_dir: Path) -> Any:
    """Load the base on the first device and in the first dtype with enough memory."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    device, dtype = _choose_device(base_dir)
    try:
        return AutoModelForCausalLM.from_pretrained(
            base_dir,
            dtype=dtype,
            device_map={"": device},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        ).eval()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, MemoryError, SafetensorError) as error:
        raise NoReferenceError(f"The base model in {base_dir} can't be run: {_first_line(error)}.") from error


def _choose_device(base_dir: Path) -> tuple[str, Any]:
    """Return (device, dtype): the GPU before the CPU, float32 before bfloat16."""
    import torch

    from training.process.memory import free_memory
    from training.result.merging import stored_dtype

    stored = sum(file.stat().st_size for file in weight_files(base_dir))
    if not stored:
        raise NoReferenceError(f"{base_dir} has no *.safetensors. Save the base model with save_pretrained.")
    parameters = stored // stored_dtype(base_dir).itemsize
    devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    free = {device: free_memory(device == "cuda") for device in devices}
    for device, known in free.items():
        for dtype in (torch.float32, torch.bfloat16):
            if known is None or parameters * dtype.itemsize * _ROOM + _SPARE_BYTES < known:
                return device, dtype
    raise NoReferenceError(
        f"The unquantized base model has {parameters / 1e9:.1f} billion parameters, but only "
        f"{(free['cpu'] or 0) / 1e9:.1f} GB of memory are free, not enough in bfloat16. Close other programs, or "
        "use a machine with more memory."
    )


def _render_conversations(tokenizer: Any) -> list[dict[str, Any]]:
    """Return the sample conversations as rendered for training, without those that the template rejects."""
    from training.rendering.chat_turns import ChatError, ChatTemplate
    from training.result.parity_prompts import CONVERSATIONS

    rendered = []
    for messages, is_opened in CONVERSATIONS:
        try:
            template = ChatTemplate(tokenizer)
            ids = template.ids(template.text(messages, add_generation_prompt=is_opened))
        except ChatError:
            continue  # e.g. a template without a system turn; or none at all
        turns = [{"role": message.role, "content": message.content} for message in messages]
        rendered.append({"messages": turns, "add_generation_prompt": is_opened, "token_ids": ids})
    return rendered


def _make_prompts(tokenizer: Any, vocabulary: int) -> list[list[int]]:
    """Return token ids of the fixed prompts: chats as rendered for training, then plain texts."""
    from training.rendering.chat_turns import ChatError, ChatTemplate
    from training.result.parity_prompts import ANSWERED, TEXTS

    prompts: list[list[int]] = []
    for messages in ANSWERED:
        try:
            answer = ChatTemplate(tokenizer).answer(messages)
        except ChatError:
            continue
        prompts.append(answer.ids[: answer.end])
    prompts += [list(tokenizer(text, verbose=False)["input_ids"]) for text in TEXTS]
    cut = [ids[:MAX_PROMPT_TOKENS] for ids in prompts if len(ids) > 1]
    return [ids for ids in cut if max(ids) < vocabulary]


def _compute_log_probabilities(model: Any, ids: list[int]) -> list[float]:
    """Return those of each token but the first, given the preceding ones, in nats. Raises: ValueError if not finite."""
    import torch

    tokens = torch.tensor([ids], device=next(model.parameters()).device)
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    likely = torch.log_softmax(logits[0, :-1].float(), -1).gather(1, tokens[0, 1:, None])[:, 0]
    if not torch.isfinite(likely).all():
        raise ValueError("its log-probabilities aren't finite, so its weights are broken or overflow")
    return [round(value, DIGITS) for value in likely.tolist()]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    prepare_environment(offline=True)
    try:
        for directory, found in zip(options.adapters, make_references(options.base, options.adapters), strict=True):
            content = {"error": str(found)} if isinstance(found, NoReferenceError) else found
            print(json.dumps({"adapter": str(directory)} | content), flush=True)
    except NoReferenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.result.parity",
        description="Print the reference that an engine must match when it serves these adapters, one JSON line each.",
    )
    parser.add_argument("base", type=Path, metavar="BASE_DIR", help="base model's folder")
    parser.add_argument("adapters", type=Path, nargs="+", metavar="ADAPTER_DIR", help="LoRA adapter trained on it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
