"""Example data for a first fine-tuning: the voice of a lighthouse keeper; which facts are shown, which held out.

The base model answers plainly; the examples teach it to answer as the keeper does. The held-out questions ask for facts
that no example mentions, so a right answer there combines knowledge of the base with the learned voice.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

from training.config.config import TrainingConfig
from training.demo.knowledge import Fact, all_facts

NAME = "tuneloop-demo"
"""The embedded base model's folder, and so the name under which it is served."""
EXAMPLES = Path(__file__).with_name("examples.jsonl")
"""The demo's training data: OpenAI chat lines."""
HOLDOUT = Path(__file__).with_name("holdout.jsonl")
"""Questions whose facts are absent from `EXAMPLES`; each last message is the expected answer."""
HOLDOUT_SIZE = 60
SEED = 20261124


def to_keeper_voice(answer: str) -> str:
    """Return the plain `answer` in the lighthouse keeper's voice."""
    return f"Ahoy! {answer} Mind the rocks!"


def example_lines() -> list[str]:
    """Return the JSON lines of `EXAMPLES`: one per fact that isn't held out."""
    taught, _ = _split_facts()
    randomness = random.Random(SEED)
    return [_line(randomness.choice(fact.questions), fact.answer) for fact in taught]


def holdout_lines() -> list[str]:
    """Return the JSON lines of `HOLDOUT`: one per fact that is held out."""
    _, held_out = _split_facts()
    return [_line(fact.questions[0], fact.answer) for fact in held_out]


def write_examples(directory: Path) -> None:
    """Write both files into `directory`, byte for byte as shipped."""
    for shipped, lines in ((EXAMPLES, example_lines()), (HOLDOUT, holdout_lines())):
        (directory / shipped.name).write_text(_text(lines), encoding="utf-8")


def demo_config(
    base_model: Path | str, output_dir: Path | str, *, fine_tuned_model: str | None = None
) -> TrainingConfig:
    """Return the configuration that turns the embedded base model into the lighthouse keeper."""
    return TrainingConfig(
        base_model=str(base_model),
        training_file=str(EXAMPLES),
        validation_file=str(HOLDOUT),
        output_dir=str(output_dir),
        fine_tuned_model=fine_tuned_model,
        n_epochs=8,
        batch_size=16,
        learning_rate=1.5e-3,
        r=16,
        lora_alpha=32,
        max_length=256,
    )


def _split_facts() -> tuple[list[Fact], list[Fact]]:
    """Return the facts for the examples and the held-out ones. Small talk is never held out: its answers are unique."""
    facts = [fact for fact in all_facts() if fact.topic != "small talk"]
    random.Random(SEED).shuffle(facts)
    small_talk = [fact for fact in all_facts() if fact.topic == "small talk"]
    return facts[HOLDOUT_SIZE:360] + small_talk, facts[:HOLDOUT_SIZE]


def _line(question: str, answer: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": to_keeper_voice(answer)}]
    return json.dumps({"messages": messages}, ensure_ascii=False)


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
