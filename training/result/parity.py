"""What PEFT makes of an adapter on the unquantised base: token ids and log-probabilities that an engine must match.

`python -m training.result.parity BASE_DIR ADAPTER_DIR...` prints one JSON line an adapter. It knows no engine,
reads local safetensors only, and runs no code that comes with a model.
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

from adapter_format.manifest import PARITY_REFERENCE_FORMAT
from training.process.environment import prepare_environment

MAX_PROMPT_TOKENS = 64
"""Prompts are cut here: enough to tell adapters apart, and an engine with a small context takes them."""
DIGITS = 5
"""Of a log-probability, in nats: float32 gives no more, and a manifest stays short."""
_PACKAGES = ("torch", "transformers", "tokenizers", "peft")
_ROOM = 1.2
"""Memory for a model with what it computes, times its weights."""
_SPARE_BYTES = 2**29


class NoReferenceError(Exception):
    """The base or the adapter can't be computed with here; the text says why."""


def references(
    base_dir: Path, adapter_dirs: Sequence[Path], base_sha256: str | None = None
) -> Iterator[dict[str, Any] | NoReferenceError]:
    """For each adapter what an engine must match, ready for JSON, or why there is none. The base is loaded once.

    Args:
        base_sha256: the base's hash, where it is known already.

    Raises:
        NoReferenceError: the base can't be computed with.
    """
    import torch

    from adapter_format.hashing import base_model_sha256
    from training.model.existing_adapter import put_on, read_adapter_config

    tokenizer, model = _tokenizer(base_dir), _model(base_dir)
    prompts = _prompts(tokenizer, int(model.get_input_embeddings().num_embeddings))
    try:
        base = [_log_probabilities(model, ids) for ids in prompts]
    except ValueError as error:
        raise NoReferenceError(f"The base model in {base_dir} can't be computed with: {error}.") from error
    about = {
        "format": PARITY_REFERENCE_FORMAT,
        "base_model_sha256": base_sha256 or base_model_sha256(base_dir),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "made_on": time.strftime("%Y-%m-%d"),
        "template_tells_the_date": "strftime_now" in str(getattr(tokenizer, "chat_template", None)),
        "versions": {package: version(package) for package in _PACKAGES},
        "conversations": _conversations(tokenizer),
    }
    for directory in adapter_dirs:
        try:
            adapted = put_on(model, directory, read_adapter_config(directory), is_trainable=False).eval()
            tuned = [_log_probabilities(adapted, ids) for ids in prompts]
            model = adapted.unload()
        except ValueError as error:
            yield NoReferenceError(f"The adapter {directory.name} can't be computed with: {error}.")
            model = _model(base_dir)  # it may have been left half on
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


def reference_of_run(base: Any, adapter_dir: Path, trainer: Any, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """The reference of the adapter that a run has just written; None, with the reason told, where there is none.

    The model that was trained on makes way for the unquantised base: it can't be used afterwards.
    """
    try:
        _let_go(base.model, trainer)
        (found,) = references(base.folder, [adapter_dir], base.sha256)
        if isinstance(found, NoReferenceError):
            raise found
    except Exception as error:  # noqa: BLE001 — hours of training aren't lost for want of a few figures
        tell(f"no parity reference was made, so the server makes one before it serves the adapter: {_line(error)}")
        return None
    return found


def _let_go(model: Any, trainer: Any) -> None:
    """Frees the weights and the optimizer's state, whoever still holds the objects."""
    import torch

    from training.process.memory import give_back

    optimizer = getattr(trainer, "optimizer", None)
    if optimizer is not None:
        optimizer.state.clear()
    for parameter in model.parameters():
        parameter.grad = None
        parameter.data = torch.empty(0, dtype=parameter.dtype, device=parameter.device)
    give_back()


def _tokenizer(base_dir: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base_dir, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise NoReferenceError(f"The tokenizer in {base_dir} can't be used: {_line(error)}.") from error


def _model(base_dir: Path) -> Any:
    """The base, ready to be computed with, on the first device and in the first dtype that have room for it."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    device, dtype = _place(base_dir)
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
        raise NoReferenceError(f"The base model in {base_dir} can't be computed with: {_line(error)}.") from error


def _place(base_dir: Path) -> tuple[str, Any]:
    """(device, dtype): the GPU before the CPU, float32 before bfloat16."""
    import torch

    from training.process.memory import free_memory
    from training.result.merging import stored_dtype

    stored = sum(file.stat().st_size for file in base_dir.glob("*.safetensors"))
    if not stored:
        raise NoReferenceError(f"{base_dir} holds no *.safetensors. Save the base model with save_pretrained.")
    parameters = stored // stored_dtype(base_dir).itemsize
    devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    free = {device: free_memory(device == "cuda") for device in devices}
    for device, known in free.items():
        for dtype in (torch.float32, torch.bfloat16):
            if known is None or parameters * dtype.itemsize * _ROOM + _SPARE_BYTES < known:
                return device, dtype
    raise NoReferenceError(
        f"The unquantised base model has {parameters / 1e9:.1f} billion parameters, and {(free['cpu'] or 0) / 1e9:.1f} "
        "GB of memory are free: not enough in bfloat16. End other programs, or take a machine with more memory."
    )


def _conversations(tokenizer: Any) -> list[dict[str, Any]]:
    """The sample conversations as training renders them, without those that the template refuses."""
    from training.rendering.chat_turns import ChatError, ChatTemplate
    from training.result.parity_prompts import CONVERSATIONS

    rendered = []
    for messages, opened in CONVERSATIONS:
        try:
            template = ChatTemplate(tokenizer)
            ids = template.ids(template.text(messages, add_generation_prompt=opened))
        except ChatError:
            continue  # such as a template without a system's turn; or none at all
        said = [{"role": message.role, "content": message.content} for message in messages]
        rendered.append({"messages": said, "add_generation_prompt": opened, "token_ids": ids})
    return rendered


def _prompts(tokenizer: Any, vocabulary: int) -> list[list[int]]:
    """Token ids of the fixed prompts: chats as training renders them, then plain texts."""
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


def _log_probabilities(model: Any, ids: list[int]) -> list[float]:
    """Of each token but the first, given those before it, in nats. Raises: ValueError when one isn't finite."""
    import torch

    tokens = torch.tensor([ids], device=next(model.parameters()).device)
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    likely = torch.log_softmax(logits[0, :-1].float(), -1).gather(1, tokens[0, 1:, None])[:, 0]
    if not torch.isfinite(likely).all():
        raise ValueError("it gives log-probabilities that aren't finite, so its weights are broken, or overflow")
    return [round(value, DIGITS) for value in likely.tolist()]


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def main(arguments: list[str] | None = None) -> int:
    """Does what the command line says; returns the exit code."""
    asked = _parser().parse_args(arguments)
    prepare_environment(offline=True)
    try:
        for directory, found in zip(asked.adapters, references(asked.base, asked.adapters), strict=True):
            told = {"error": str(found)} if isinstance(found, NoReferenceError) else found
            print(json.dumps({"adapter": str(directory)} | told), flush=True)
    except NoReferenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.result.parity",
        description="Prints what an engine must match when it serves these adapters, one JSON line each.",
    )
    parser.add_argument("base", type=Path, metavar="BASE_DIR", help="the base model's folder")
    parser.add_argument("adapters", type=Path, nargs="+", metavar="ADAPTER_DIR", help="a LoRA adapter made for it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
