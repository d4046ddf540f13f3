"""The embedded base model: a three-million-parameter chat model, trained from scratch in about a minute.

The recipe, the check that the model knows its facts, and the cache. `python -m training.demo DIR` is its command line.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from adapter_format.disk import hold_lock
from training.demo.corpus import Message, make_conversations, make_single_questions
from training.demo.examples import NAME
from training.demo.knowledge import all_facts
from training.demo.tokenizer import CHAT_TEMPLATE, VOCABULARY_SIZE, train_tokenizer
from training.demo.training import IGNORED, Schedule, Tokens, check_answers, train

OnProgress = Callable[[int, int, float], None]
"""Called with the step, the number of steps and the loss."""


class DemoModelError(Exception):
    """The embedded base model couldn't be built."""


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights, beside the facts."""

    hidden_size: int = 256
    """Like every width here a multiple of 64, nf4's block size."""
    intermediate_size: int = 512
    layers: int = 4
    heads: int = 4
    max_position_embeddings: int = 2048
    passes: int = 10
    """Repetitions of each phrasing of each fact."""
    seed: int = 1
    schedule: Schedule = field(default_factory=Schedule)
    least_known: float = 0.95
    """Share of all questions that the finished model must answer word for word."""


def demo_recipe_hash(recipe: Recipe | None = None) -> str:
    """Return twelve hex digits that change with the recipe, the training chats or the chat template."""
    recipe = recipe or Recipe()
    chats = make_conversations(all_facts(), passes=1, seed=recipe.seed)
    ingredients = json.dumps([asdict(recipe), chats, CHAT_TEMPLATE, VOCABULARY_SIZE], sort_keys=True)
    return hashlib.sha256(ingredients.encode()).hexdigest()[:12]


def cached_demo_model(cache_dir: Path, *, recipe: Recipe | None = None, on_progress: OnProgress | None = None) -> Path:
    """Return the folder of the embedded base model under `cache_dir`, building it if absent.

    Safe for concurrent processes: one builds, the others wait.

    Raises:
        DemoModelError: see `build_demo_model`, or `cache_dir` can't be written.
    """
    home = cache_dir / demo_recipe_hash(recipe)
    with ExitStack() as held:
        try:
            home.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold_lock(home / ".lock"))
        except OSError as error:
            raise DemoModelError(
                f"Can't use the cache folder {cache_dir}: {error.strerror}. Choose one that you can write to."
            ) from error
        if not (home / NAME).is_dir():
            build_demo_model(home / NAME, recipe=recipe, on_progress=on_progress)
    return home / NAME


def build_demo_model(directory: Path, *, recipe: Recipe | None = None, on_progress: OnProgress | None = None) -> Path:
    """Train the embedded base model into `directory`, which is created; return it when complete.

    Raises:
        DemoModelError: `directory` holds files or can't be written, or the model didn't learn its facts.
    """
    recipe = recipe or Recipe()
    with _temporary_dir(directory) as partial:
        model, tokenizer = _train_model(recipe, on_progress or (lambda step, total_steps, loss: None))
        _save(model, tokenizer, partial)
    return directory


def share_known(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """Return the share of all questions, in every phrasing, that `model` answers word for word and then stops."""
    answers = check_answers(model, [_tokenize(chat, tokenizer) for chat in make_single_questions(all_facts())])
    return sum(answers) / len(answers)


def _train_model(recipe: Recipe, on_progress: OnProgress) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    # 1. Facts become chats, and chats a tokenizer.
    facts = all_facts()
    chats = make_conversations(facts, passes=recipe.passes, seed=recipe.seed)
    texts = (message["content"] for chat in make_single_questions(facts) for message in chat)
    tokenizer = train_tokenizer(texts, max_length=recipe.max_position_embeddings)
    # 2. Random weights are trained on them. float32 throughout: fast on every CPU, and saved as trained.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(_llama_config(recipe, tokenizer))
    train(model, [_tokenize(chat, tokenizer) for chat in chats], recipe.schedule, on_progress)
    # 3. It must know its facts, or nothing that is built on it can be evaluated.
    share = share_known(model, tokenizer)
    if share < recipe.least_known:
        raise DemoModelError(
            f"The embedded base model answers {share:.1%} of its questions, but at least {recipe.least_known:.0%} "
            "is required. Raise `passes` in the recipe, or report this with your CPU's name."
        )
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model, tokenizer


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    bar_was_on = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        model.save_pretrained(directory)
    finally:
        if bar_was_on:
            hf_logging.enable_progress_bar()
    tokenizer.save_pretrained(directory)
    for file in directory.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read


def _llama_config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Any:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.max_position_embeddings,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def _tokenize(chat: list[Message], tokenizer: PreTrainedTokenizerFast) -> Tokens:
    rendered = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    labels = [
        token if learned else IGNORED
        for token, learned in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True)
    ]
    return Tokens(rendered["input_ids"], labels)


@contextmanager
def _temporary_dir(directory: Path) -> Iterator[Path]:
    """Create a temporary folder that replaces `directory` if the block succeeds, and is removed if it fails."""
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise DemoModelError(
                f"{directory} exists and isn't an empty folder. Choose a folder that is empty or doesn't exist yet."
            )
        directory.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".partial-{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise DemoModelError(
            f"Can't create {directory}: {error.strerror}. Choose a folder that you can write to."
        ) from error
    try:
        yield partial
        partial.chmod(0o755)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
