"""The settings of a fine-tuning run, each with unit, default and trade-off. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from training.config.rules import find_fault, looks_like_path, unknown_setting
from training.config.yaml_text import load_yaml

Auto = Literal["auto"]
Method = Literal["supervised", "text", "dpo", "kto"]
FinetuningType = Literal["lora", "full", "prefix_tuning", "p_tuning"]
ServeAs = Literal["adapter", "model", "none"]
FileFormat = Literal["auto", "chat", "alpaca", "prompt_completion", "sharegpt", "preference", "kto", "text"]
OnLeakage = Literal["refuse", "drop"]
Quantization = Literal["nf4", "none"]
ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]
Optimizer = Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]


class ConfigError(ValueError):
    """A configuration that breaks one rule or several, all reported at once."""

    def __init__(self, faults: Sequence[str], *, param: str | None = None) -> None:
        self.faults = tuple(faults)
        """One sentence for each fault."""
        self.param = param
        """The first setting at fault, if it is a setting."""
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One fine-tune. Built with wrong values it raises `ConfigError`, which names every fault at once."""

    # What is trained on what.
    base_model: str
    """The model that the adapter is for: a local folder, or a Hugging Face hub id such as `Qwen/Qwen3-0.6B`."""
    training_file: str
    """The examples, as JSONL, JSON, CSV, Parquet or plain text; `docs/data.md` shows every format."""
    output_dir: str
    """The directory to make: an adapter, or with `serve_as: model` a whole model. It must not exist yet."""
    method: Method = "supervised"
    """`supervised` learns answers, `text` plain text, `dpo` better over worse answers, `kto` good and bad ones."""
    from_adapter: str | None = None
    """An adapter directory to go on from. `dpo` and `kto` want one that was tuned on such chats first."""
    file_format: FileFormat = "auto"
    """How `training_file` is written. `auto`: found out record by record; name it where a file is refused."""
    base_model_name: str | None = None
    """The name that the base model is served under. Default: the hub id, or the folder's name."""
    fine_tuned_model: str | None = None
    """The name that clients will put in `model`: `ft:{base}:{org}:{suffix}:{8 characters}`. Default: one is made up."""

    # What is measured, and what is mixed in.
    validation_file: str | None = None
    """Examples that are measured, not trained on. Default: `validation_fraction` of the training file."""
    validation_fraction: float = 0.1
    """Share of the training file, 0 to 0.5, held back when there's no `validation_file`. 0: nothing is measured."""
    holdout_fraction: float = 0.0
    """Share, 0 to 0.5, that the run never looks at, put into RUN_DIR/holdout.jsonl for `tuneloop evaluate`."""
    mix_file: str | None = None
    """General examples mixed in, so that the model forgets less of what it knew; costs the time they take."""
    mix_ratio: float = 0.1
    """Examples drawn from `mix_file` for each training example, above 0 to 10. More forgets less and learns slower."""

    # How long, and how fast.
    n_epochs: int | Auto = "auto"
    """Passes over the training file. More learns the examples closer, and in the end by heart."""
    max_steps: int | None = None
    """Stop after so many optimizer steps, whatever `n_epochs` says. Default: no such limit."""
    batch_size: int | Auto = "auto"
    """Examples in one forward pass. Larger is faster on a GPU and needs more memory."""
    gradient_accumulation_steps: int = 1
    """Forward passes per optimizer step: a larger batch for the same memory, at the price of time."""
    learning_rate: float | Auto = "auto"
    """Peak step size of the optimizer. Too high diverges, too low learns nothing; small models want more."""
    lr_scheduler_type: Scheduler = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_ratio: float = 0.05
    """Share of the steps, 0 to 1, over which the learning rate rises from zero. Guards the first steps."""
    optim: Optimizer = "adamw_torch"
    """The optimizer. The 8-bit ones and `adafactor` save memory; with adapters, whose state is small, not much."""
    adam_beta1: float = 0.9
    """Memory, 0 up to 1, of AdamW for the gradient's direction. Rarely worth a change."""
    adam_beta2: float = 0.999
    """Memory, 0 up to 1, of AdamW for the gradient's size. 0.95 follows sudden changes faster."""
    adam_epsilon: float = 1e-8
    """What keeps AdamW from dividing by zero, above 0. Larger damps the steps of weights with tiny gradients."""
    weight_decay: float = 0.0
    """Pull of the trained weights towards zero, 0 or more. A little helps against learning by heart."""
    max_grad_norm: float = 1.0
    """Longest gradient that is let through, above 0; a longer one is shortened. Guards against single bad batches."""
    neftune_noise_alpha: float | None = None
    """Noise on the embeddings in training, such as 5; can make answers livelier (NEFTune). Default: none."""
    early_stopping_patience: int | None = None
    """Validations without progress after which the run ends. Saves time; too small stops at a bump. Default: never."""
    early_stopping_threshold: float = 0.0
    """How much the validation loss must fall to count as progress, 0 or more."""
    load_best_model_at_end: bool = True
    """Keep the weights of the best validation, not those of the last step. Guards against learning by heart."""

    # What is trained of the model.
    finetuning_type: FinetuningType = "lora"
    """`lora` is what vLLM hot-loads. `full` trains every weight, `prefix_tuning` and `p_tuning` a few vectors."""
    serve_as: ServeAs = "adapter"
    """What must come out: an `adapter` to hot-load, a whole `model` with it merged in, or `none`: it's never served."""
    r: int = 16
    """Rank of the adapter, 1 to 512. More learns more, for memory and serving speed; the engine must allow it."""
    lora_alpha: int = 32
    """Strength of the adapter: its output is scaled by `lora_alpha / r`. Twice `r` is usual."""
    lora_dropout: float = 0.0
    """Share, 0 up to 1, of the adapter's inputs that is dropped in training. Helps with little data; slows learning."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Layers that get an adapter: `all-linear`, or a list such as `[q_proj, v_proj]`. Fewer learns less."""
    exclude_modules: tuple[str, ...] | None = None
    """Layers that get none, whatever `target_modules` says."""
    layers_to_transform: tuple[int, ...] | None = None
    """Numbers of the only blocks that get an adapter, counted from 0. Fewer learns less. Default: all."""
    rank_pattern: Mapping[str, int] | None = None
    """Ranks of single layers, such as `{q_proj: 32}`; the others have `r`."""
    alpha_pattern: Mapping[str, int] | None = None
    """As `rank_pattern`, for `lora_alpha`."""
    modules_to_save: tuple[str, ...] | None = None
    """Layers to train whole beside the adapter, such as `[lm_head]`. vLLM can't hot-load that: `serve_as: model`."""
    use_rslora: bool = False
    """Scale by `lora_alpha / sqrt(r)` (rsLoRA): steadier at ranks of 64 and more. Wants a smaller `lora_alpha`."""
    use_dora: bool = False
    """Train length and direction of the weights apart (DoRA): a little better, a third slower. `serve_as: model`."""
    init_lora_weights: Literal["default", "gaussian", "orthogonal"] = "default"
    """First values of the adapter; with each of them it begins as no change."""
    num_virtual_tokens: int = 20
    """Vectors that `prefix_tuning` and `p_tuning` put before a prompt, 1 to 1000. Each makes all prompts longer."""
    encoder_hidden_size: int | None = None
    """Width of the small network that makes those vectors. Default: the base's for `p_tuning`, else no network."""

    # How the base is held and computed.
    quantization: Quantization = "nf4"
    """How the frozen base is held: `nf4` in 4 bit (QLoRA: a quarter of the memory) or `none` (LoRA: faster)."""
    double_quant: bool = True
    """Quantise the scales of `nf4` too: 0.4 bit per weight less, at no cost that was ever measured."""
    compute_dtype: ComputeDtype = "auto"
    """What the arithmetic is done in. `auto`: bfloat16 where the CPU or GPU has instructions for it, else float32."""
    attn_implementation: Attention = "auto"
    """How attention is computed. `auto`: what PyTorch has (sdpa). `flash_attention_2` wants its package and a GPU."""
    gradient_checkpointing: bool | Auto = "auto"
    """Compute activations twice instead of keeping them: a third slower, far less memory. `auto`: where needed."""
    max_memory_gb: float | None = None
    """Memory in 10^9 bytes; a run that is expected to take more is refused at once. Default: what is free."""

    # What is learned of an example.
    max_length: int = 2048
    """Longest example in tokens, at least 8; `on_too_long` says what becomes of a longer one."""
    on_too_long: Literal["cut", "drop", "refuse"] = "cut"
    """What to do with an example over `max_length`: `cut` its end off, `drop` it, or `refuse` the file."""
    on_leakage: OnLeakage = "refuse"
    """What to do where `validation_file` shares examples with the training file: `refuse`, or `drop` those in it."""
    train_on: Literal["assistant", "last_assistant", "all"] = "assistant"
    """What of a chat is learned: every answer, only the `last_assistant` one, or `all` of it, questions too."""
    packing: bool = False
    """Put short examples into one row without letting them see each other: less padding, so faster."""

    # Learning from preferences.
    beta: float = 0.1
    """How closely `dpo` and `kto` hold on to the model they start from, above 0. Less lets it go further."""
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust"] = "sigmoid"
    """The loss of `dpo`. `ipo` overfits less on few pairs; `robust` bears wrong labels, with `label_smoothing`."""
    label_smoothing: float = 0.0
    """Share, 0 up to 0.5, of the pairs whose order is taken to be wrong; only for `loss_type: robust`."""
    desirable_weight: float = 1.0
    """Weight of the good examples of `kto`, above 0. Raise it where they are few beside the bad ones."""
    undesirable_weight: float = 1.0
    """Weight of the bad examples of `kto`, above 0."""

    # What is written down, and when.
    seed: int = 42
    """Seed for shuffling, splitting and the adapter's first weights. Same seed, same machine: same adapter."""
    logging_steps: int = 1
    """Optimizer steps between two reports of the loss."""
    eval_steps: int | Auto = "auto"
    """Optimizer steps between two validations. `auto`: about four in a run. First and last are always made."""
    save_steps: int | Auto = "auto"
    """Optimizer steps between two checkpoints, from which a stopped run goes on. `auto`: one per epoch."""
    save_total_limit: int = 2
    """Checkpoints that are kept; older ones are deleted, never the best one."""
    wandb_project: str | None = None
    """Weights & Biases project to report to; the key is taken from `wandb login`. Default: no report leaves here."""
    wandb_mode: Literal["online", "offline"] = "online"
    """`offline` writes the report into the run directory, for `wandb sync` later."""

    def __post_init__(self) -> None:
        for name in _list_settings():
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _raise_faults(
            {name: find_fault(name, getattr(self, name), expected) for name, expected in _type_hints().items()}
        )

    @property
    def served_base_name(self) -> str:
        """The name under which the base model is served."""
        return self.base_model_name or self.default_base_model_name(self.base_model)

    @property
    def base_is_folder(self) -> bool:
        """Whether `base_model` is a local folder rather than a hub id."""
        return Path(self.base_model).is_dir()

    @staticmethod
    def default_base_model_name(base_model: str) -> str:
        """Return a base's name unless one is set: the folder's name, or the hub id."""
        folder = Path(base_model)
        return folder.resolve().name if folder.is_dir() or looks_like_path(base_model) else base_model

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """Make the configuration from `values`.

        Raises:
            ConfigError: with every unknown, missing, mistyped and out-of-range value.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        faults: dict[str, str | None] = {
            str(name): unknown_setting(str(name), known) for name in values if name not in known
        }
        for name, field in known.items():
            if name in values:
                faults[name] = find_fault(name, values[name], _type_hints()[name])
            elif field.default is dataclasses.MISSING:
                faults[name] = "is required"
        _raise_faults(faults)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` turns them back into an equal configuration."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def to_json(self) -> str:
        """Return `to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the settings in the YAML file at `path`, unchecked.

    Raises:
        ConfigError: it can't be read, or isn't a YAML mapping.
    """
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{path} can't be read as YAML: {error}. Give a YAML file in UTF-8."]) from error
    if not isinstance(values, dict):
        raise ConfigError([f"{path} must hold one `name: value` a line, such as `training_file: examples.jsonl`."])
    return values


@cache
def _type_hints() -> dict[str, Any]:
    return typing.get_type_hints(TrainingConfig)


@cache
def _list_settings() -> tuple[str, ...]:
    """Return the settings that may be lists; they are stored as tuples."""
    return tuple(name for name, expected in _type_hints().items() if "tuple[" in str(expected))


def _raise_faults(faults: Mapping[str, str | None]) -> None:
    """Raise `ConfigError` when any setting in `faults` has a fault."""
    wrong = {name: text for name, text in faults.items() if text}
    if wrong:
        raise ConfigError(
            [f"`{name}` {text}" + ("" if text.endswith("?") else ".") for name, text in wrong.items()],
            param=next(iter(wrong)),
        )
