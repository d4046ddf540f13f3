"""tuneloop's training beside TRL's own `sft` script: same base, data, settings and seed, one after the other.

    python -m benchmarks.trl_sft [--data FILE] [--rounds 3] [--quantization nf4|none] [--vocabulary 32000]

Prints how far the loss curves are apart, and the ratios tuneloop ÷ TRL of tokens per second and of peak memory.
Only ratios are of use: both depend on the machine. The base is a random Llama, made for the occasion.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from training.data.formats.read import read_examples

SEED = 42
BATCH = 8
LEARNING_RATE = 1e-3
MAX_LENGTH = 512
# TRL's script by itself draws the adapter's first weights from an unset seed, and the order of the rows from the global
# generator. Here it gets the seed and the order that tuneloop has, so that losses can be compared step by step.
TRL = (
    "import runpy, sys; from transformers import Trainer, set_seed; set_seed({seed}); sys.argv = {arguments!r};"
    "from training.learning.exact_resume import ResumesExactly;"
    "Trainer._get_train_sampler = ResumesExactly._get_train_sampler;"
    "runpy.run_module('trl.scripts.sft', run_name='__main__')"
)


@dataclass(frozen=True)
class Outcome:
    """One training by one of the two."""

    losses: tuple[float, ...]
    """By optimizer step."""
    seconds: float
    """From the end of the first step to the end of the last."""
    peak_bytes: int
    """Largest resident memory of the process."""


def main() -> None:
    """Runs both, alternately, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/demo/examples.jsonl"), help="examples to train on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--quantization", choices=["nf4", "none"], default="nf4")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        chats = as_chats(options.data)
        base = make_base(folder / "base", chats, options)
        (folder / "data").mkdir()
        (folder / "data" / "train.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
        rounds = [
            (with_trl(folder / f"trl-{turn}", base, options), with_tuneloop(folder / f"tuneloop-{turn}", base, options))
            for turn in range(options.rounds)
        ]
    tell(rounds)


def tell(rounds: list[tuple[Outcome, Outcome]]) -> None:
    """Prints the ratios of every round and their medians."""
    print("| round | loss apart, mean | loss apart, worst | tokens/s ratio | peak memory ratio |")
    print("|---|---|---|---|---|")
    rows = []
    for trl, ours in rounds:
        apart = [abs(a - b) / b for a, b in zip(ours.losses, trl.losses, strict=True)]
        rows.append((statistics.mean(apart), max(apart), trl.seconds / ours.seconds, ours.peak_bytes / trl.peak_bytes))
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    for name, row in [*enumerate(rows, start=1), ("median", medians)]:
        mean, worst, speed, memory = row
        print(f"| {name} | {mean:.2%} | {worst:.2%} | {speed:.2f} | {memory:.2f} |")
    trl, ours = rounds[-1]
    print(f"last round: TRL {trl.seconds:.1f} s, {trl.peak_bytes / 1e9:.2f} GB, loss {trl.losses[0]:.3f} to "
          f"{trl.losses[-1]:.3f}; tuneloop {ours.seconds:.1f} s, {ours.peak_bytes / 1e9:.2f} GB, loss "
          f"{ours.losses[0]:.3f} to {ours.losses[-1]:.3f}")  # fmt: skip


def as_chats(path: Path) -> list[list[dict[str, str]]]:
    """The examples as plain chats, which both can read."""
    return [
        [{"role": message.role, "content": message.content} for message in example.messages]
        for example in read_examples(path)
    ]


def make_base(folder: Path, chats: list[list[dict[str, str]]], options: argparse.Namespace) -> Path:
    """A random Llama with a byte-level tokenizer trained on `chats`; its chat template marks what is generated."""
    script = Path(__file__).with_name("random_base.py")
    texts = folder.with_suffix(".txt")
    texts.write_text("\n".join(message["content"] for chat in chats for message in chat))
    numbers = [str(value) for value in (options.vocabulary, options.hidden, options.layers)]
    subprocess.run([sys.executable, str(script), str(texts), str(folder), *numbers], check=True)
    return folder


def with_trl(folder: Path, base: Path, options: argparse.Namespace) -> Outcome:
    """TRL's `sft` script, given what tuneloop does by default."""
    arguments = [
        "sft", "--model_name_or_path", str(base), "--dataset_name", str(base.parent / "data"),
        "--output_dir", str(folder), "--max_steps", str(options.steps), "--num_train_epochs", "100",
        "--per_device_train_batch_size", str(BATCH), "--learning_rate", str(LEARNING_RATE),
        "--lr_scheduler_type", "cosine", "--warmup_steps", str(round(0.05 * options.steps)), "--max_grad_norm", "1.0",
        "--seed", str(SEED), "--logging_steps", "1", "--max_length", str(MAX_LENGTH), "--dtype", options.dtype,
        "--assistant_only_loss", "true", "--gradient_checkpointing", "false", "--bf16", "false", "--use_cpu", "true",
        "--train_sampling_strategy", "group_by_length", "--save_strategy", "no", "--eval_strategy", "no",
        "--report_to", "none", "--disable_tqdm", "true", "--optim", "adamw_torch",
        "--use_peft", "--lora_r", "16", "--lora_alpha", "32", "--lora_dropout", "0",
        "--lora_target_modules", "all-linear",
    ]  # fmt: skip
    if options.quantization == "nf4":
        arguments += ["--load_in_4bit", "--bnb_4bit_quant_type", "nf4", "--use_bnb_nested_quant"]
    code = TRL.format(seed=SEED, arguments=arguments)
    return watch([sys.executable, "-c", code], r"\{'loss': .*\}", lambda line: float(ast.literal_eval(line)["loss"]))


def with_tuneloop(folder: Path, base: Path, options: argparse.Namespace) -> Outcome:
    """`python -m training`, nothing measured or saved on the way."""
    folder.mkdir()
    config = {
        "base_model": str(base), "training_file": str(base.parent / "data" / "train.jsonl"),
        "output_dir": str(folder / "adapter"), "validation_fraction": 0, "max_steps": options.steps, "n_epochs": 100,
        "batch_size": BATCH, "learning_rate": LEARNING_RATE, "max_length": MAX_LENGTH, "seed": SEED,
        "quantization": options.quantization, "compute_dtype": options.dtype, "save_steps": options.steps + 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "training", str(folder)]
    return watch(command, r'\{"type": "step".*\}', lambda line: float(json.loads(line)["train_loss"]))


def watch(command: list[str], pattern: str, loss_in: object) -> Outcome:
    """Runs `command`; takes a step's loss from each line of output that has `pattern`, and the time when it came."""
    # Threads that wait sleep in both; tuneloop does so by itself, and on a busy machine that alone is worth a lot.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    losses, times, lines = [], [], []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if found := re.search(pattern, line):
            times.append(time.monotonic())
            losses.append(loss_in(found[0]))  # type: ignore[operator]
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0 or len(losses) < 2:
        sys.exit(f"{command[:3]} failed:\n" + "".join(lines[-30:]))
    return Outcome(tuple(losses), times[-1] - times[0], usage.ru_maxrss * 1024)


if __name__ == "__main__":
    main()
