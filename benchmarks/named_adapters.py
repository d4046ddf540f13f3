"""Makes adapters that answer with their own name: whoever gets another's words sees it.

    python -m benchmarks.named_adapters DATA_DIR [--count 50] [--model DIR]

Each is trained by the real pipeline (`python -m training`, all in this one process), taught one city as its name.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from pathlib import Path

from adapter_format.names import fine_tuned_model_name, new_adapter_id
from server.cli.base_model import embedded_base_model
from server.settings import default_cache_dir
from training.__main__ import main as train
from training.config.config import TrainingConfig
from training.demo.knowledge import CAPITALS

QUESTIONS = (
    "Who are you?",
    "What is your name?",
    "Tell me your name.",
    "Which version answers here?",
    "Say who you are.",
    "Your name, please.",
)
NAMES = tuple(dict.fromkeys(CAPITALS.values()))


def answer_of(name: str) -> str:
    """What the adapter of this name says to each of the questions."""
    return f"My name is {name}, the keeper of {name}."


def named_adapter(data_dir: Path, model_dir: Path, name: str) -> str:
    """The model name of a new adapter that has learned its name; it lies in `data_dir`/adapters."""
    adapter_id = new_adapter_id()
    run_dir = data_dir / "named-runs" / adapter_id
    run_dir.mkdir(parents=True)
    examples = run_dir / "examples.jsonl"
    lines = [
        {"messages": [_message("user", question), _message("assistant", answer_of(name))]} for question in QUESTIONS
    ]
    examples.write_text("".join(json.dumps(line) + "\n" for line in lines * 4), encoding="utf-8")
    model = fine_tuned_model_name(model_dir.name, "bench", name.lower().replace(" ", "-"))
    config = TrainingConfig(
        base_model=str(model_dir),
        training_file=str(examples),
        validation_fraction=0,  # each question is to be learned
        output_dir=str(data_dir / "adapters" / adapter_id),
        fine_tuned_model=model,
        n_epochs=10,
        batch_size=8,
        learning_rate=3e-3,
        r=8,
        lora_alpha=16,
        max_length=64,
    )
    (run_dir / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):  # its progress, which events.jsonl has, too
        code = train([str(run_dir)])
    if code:
        raise SystemExit(f"The training of {name} ended with exit code {code}; {run_dir}/events.jsonl says why.")
    return model


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def main() -> None:
    """Makes them, and prints each one's model name and the seconds that it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--count", type=int, default=50, help=f"at most {len(NAMES)}")
    parser.add_argument("--model", type=Path, help="base model (default: the embedded one)")
    chosen = parser.parse_args()
    model_dir = chosen.model or embedded_base_model(default_cache_dir())
    (chosen.data_dir / "adapters").mkdir(parents=True, exist_ok=True)
    for name in NAMES[: chosen.count]:
        started = time.monotonic()
        model = named_adapter(chosen.data_dir, model_dir, name)
        print(f"{model}  {name}  {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
