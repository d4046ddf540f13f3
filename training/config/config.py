"""The settings of a fine-tuning run, each with unit, default and trade-off. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from training.config.rules import find_fault, looks_like_path, unknown_setting

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
    """The configuration is invalid; reports all errors at once."""

    def __init__(self, faults: Sequence[str], *, param: str | None = None) -> None:
        self.faults = tuple(faults)
        """One sentence for each fault."""
        self.param = param
        """The first setting at fault, if it is a setting."""
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of one fine-tuning run. Raises `ConfigError` with every error if a value is invalid."""

    # Model, data and method.
    base_model: str
    """The model to train the adapter on: a local folder, or a Hugging Face hub id such as `Qwen/Qwen3-0.6B`."""
    training_file: str
    """The training examples, as JSONL, JSON, CSV, Parquet or plain text; `docs/data.md` describes every format."""
    output_dir: str
    """The directory for the result: an adapter, or a complete model with `serve_as: model`. It must not exist yet."""
    method: Method = "supervised"
    """`supervised` trains on answers, `text` on plain text, `dpo` on preference pairs, `kto` on good and bad ones."""
    from_adapter: str | None = None
    """An adapter directory to continue from. For `dpo` and `kto`, use one that was tuned on similar chats."""
    file_format: FileFormat = "auto"
    """The format of `training_file`. `auto`: detected for each record; set it if detection gets it wrong."""
    base_model_name: str | None = None
    """The base model's name on the server. Default: the hub id, or the folder's name."""
    fine_tuned_model: str | None = None
    """The name that clients put in `model`: `ft:{base}:{org}:{suffix}:{8 characters}`. Default: a generated name."""

    # Validation, and examples to mix in.
    validation_file: str | None = None
    """Examples for validation, not trained on. Default: `validation_fraction` of the training file."""
    validation_fraction: float = 0.1
    """Share of the training file, 0 to 0.5, used for validation if there is no `validation_file`. 0: no validation."""
    holdout_fraction: float = 0.0
    """Share, 0 to 0.5, that the run doesn't use; it goes to RUN_DIR/holdout.jsonl for `tuneloop evaluate`."""
    mix_file: str | None = None
    """General examples to mix in, so that the model forgets less of what it knew. They add training time."""
    mix_ratio: float = 0.1
    """Examples from `mix_file` per training example, above 0 to 10. Higher: forgets less, learns more slowly."""

    # Length and optimizer.
    n_epochs: int | Auto = "auto"
    """Passes over the training file. More passes fit the examples more closely, and eventually overfit."""
    max_steps: int | None = None
    """Maximum number of optimizer steps, whatever `n_epochs` says. Default: no limit."""
    batch_size: int | Auto = "auto"
    """Examples per forward pass. Larger is faster on a GPU and needs more memory."""
    gradient_accumulation_steps: int = 1
    """Forward passes per optimizer step: a larger batch in the same memory, but slower steps."""
    learning_rate: float | Auto = "auto"
    """Peak learning rate. Too high: training diverges; too low: nothing is learned. Small models need a higher one."""
    lr_scheduler_type: Scheduler = "cosine"
    """How the learning rate decreases after warm-up."""
    warmup_ratio: float = 0.05
    """Share of the steps, 0 to 1, over which the learning rate rises from zero. Keeps the first steps stable."""
    optim: Optimizer = "adamw_torch"
    """The optimizer. The 8-bit ones and `adafactor` save memory, but little with adapters, whose state is small."""
    adam_beta1: float = 0.9
    """AdamW's decay rate for the mean of gradients, 0 up to 1. Rarely worth changing."""
    adam_beta2: float = 0.999
    """AdamW's decay rate for the mean of squared gradients, 0 up to 1. 0.95 adapts faster to sudden changes."""
    adam_epsilon: float = 1e-8
    """Keeps AdamW from dividing by zero, above 0. Larger values shrink the steps of weights with tiny gradients."""
    weight_decay: float = 0.0
    """Weight decay of the trained weights, 0 or more. A little helps against overfitting."""
    max_grad_norm: float = 1.0
    """Maximum gradient norm, above 0; larger gradients are clipped. Protects against single bad batches."""
    neftune_noise_alpha: float | None = None
    """Noise added to embeddings in training (NEFTune), such as 5; can make answers more natural. Default: none."""
    early_stopping_patience: int | None = None
    """Stop after this many validations without progress. Saves time; too low may stop too early. Default: never."""
    early_stopping_threshold: float = 0.0
    """How much the validation loss must decrease to count as progress, 0 or more."""
    load_best_model_at_end: bool = True
    """Keep the weights with the best validation loss, not those of the last step. Protects against overfitting."""

    # Trained weights.
    finetuning_type: FinetuningType = "lora"
    """`lora` can be hot-loaded by vLLM. `full` trains all weights, `prefix_tuning` and `p_tuning` a few vectors."""
    serve_as: ServeAs = "adapter"
    """The result: an `adapter` to hot-load, a complete `model` with the adapter merged in, or `none`: not served."""
    r: int = 16
    """Rank of the adapter, 1 to 512. Higher learns more, but needs memory and slows serving; the engine limits it."""
    lora_alpha: int = 32
    """The adapter's output is scaled by `lora_alpha / r`. Usually twice `r`."""
    lora_dropout: float = 0.0
    """Share of the adapter's inputs dropped in training, 0 up to 1. Helps with little data; slows learning."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Layers that get an adapter: `all-linear`, or a list such as `[q_proj, v_proj]`. Fewer layers learn less."""
    exclude_modules: tuple[str, ...] | None = None
    """Layers that get no adapter, whatever `target_modules` says."""
    layers_to_transform: tuple[int, ...] | None = None
    """Indices of the blocks that get an adapter, counted from 0. Fewer blocks learn less. Default: all."""
    rank_pattern: Mapping[str, int] | None = None
    """Ranks for specific layers, such as `{q_proj: 32}`; the others use `r`."""
    alpha_pattern: Mapping[str, int] | None = None
    """Like `rank_pattern`, for `lora_alpha`."""
    modules_to_save: tuple[str, ...] | None = None
    """Layers to train fully in addition, such as `[lm_head]`. vLLM can't hot-load them: use `serve_as: model`."""
    use_rslora: bool = False
    """Scale by `lora_alpha / sqrt(r)` (rsLoRA): more stable at ranks of 64 and above. Use a smaller `lora_alpha`."""
    use_dora: bool = False
    """Train magnitude and direction separately (DoRA): slightly better, a third slower. Needs `serve_as: model`."""
    init_lora_weights: Literal["default", "gaussian", "orthogonal"] = "default"
    """Initial weights of the adapter. With each choice, the model is unchanged at first."""
    num_virtual_tokens: int = 20
    """Vectors that `prefix_tuning` and `p_tuning` put before each prompt, 1 to 1000. They make prompts longer."""
    encoder_hidden_size: int | None = None
    """Width of the small network that computes these vectors. Default: the base's for `p_tuning`, otherwise none."""

    # Precision and memory.
    quantization: Quantization = "nf4"
    """Quantization of the frozen base: `nf4`, 4 bit (QLoRA: a quarter of the memory), or `none` (LoRA: faster)."""
    double_quant: bool = True
    """Also quantize the scales of `nf4`: saves 0.4 bit per weight, at no measured cost."""
    compute_dtype: ComputeDtype = "auto"
    """Data type for computation. `auto`: bfloat16 if the hardware has instructions for it, otherwise float32 on a CPU,
    float16 on a GPU."""
    attn_implementation: Attention = "auto"
    """Attention implementation. `auto`: PyTorch's own (sdpa). `flash_attention_2` needs its package and a GPU."""
    gradient_checkpointing: bool | Auto = "auto"
    """Recompute activations instead of storing them: a third slower, far less memory. `auto`: if needed."""
    max_memory_gb: float | None = None
    """Memory limit in 10^9 bytes; a run that is expected to need more is refused at once. Default: free memory."""

    # Tokens to train on.
    max_length: int = 2048
    """Maximum length of an example in tokens, at least 8; for longer ones, see `on_too_long`."""
    on_too_long: Literal["cut", "drop", "refuse"] = "cut"
    """What to do with examples over `max_length`: `cut` off the end, `drop` them, or `refuse` the file."""
    on_leakage: OnLeakage = "refuse"
    """If `validation_file` shares examples with the training file: `refuse`, or `drop` them from the validation."""
    train_on: Literal["assistant", "last_assistant", "all"] = "assistant"
    """What to train on in a chat: every answer, only the last one (`last_assistant`), or `all`, prompts included."""
    packing: bool = False
    """Pack short examples into one row; they don't attend to each other. Less padding, so training is faster."""

    # Preferences.
    beta: float = 0.1
    """How close `dpo` and `kto` stay to the initial model, above 0. Lower values allow larger changes."""
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust"] = "sigmoid"
    """Loss for `dpo`. `ipo` overfits less on few pairs; `robust` tolerates wrong labels, with `label_smoothing`."""
    label_smoothing: float = 0.0
    """Assumed share of wrongly ordered pairs, 0 up to 0.5; only for `loss_type: robust`."""
    desirable_weight: float = 1.0
    """Weight of good examples in `kto`, above 0. Raise it if there are few of them."""
    undesirable_weight: float = 1.0
    """Weight of bad examples in `kto`, above 0."""

    # Reports and checkpoints.
    seed: int = 42
    """Seed for shuffling, splitting and initial weights. The same seed on the same machine gives the same adapter."""
    logging_steps: int = 1
    """Optimizer steps between reports of the loss."""
    eval_steps: int | Auto = "auto"
    """Optimizer steps between validations. `auto`: about four per run. The run always starts and ends with one."""
    save_steps: int | Auto = "auto"
    """Optimizer steps between checkpoints, from which a stopped run can resume. `auto`: one per epoch."""
    save_total_limit: int = 2
    """Checkpoints to keep; older ones are deleted, except the best one."""
    wandb_project: str | None = None
    """Weights & Biases project to report to; the key comes from `wandb login`. Default: nothing is sent."""
    wandb_mode: Literal["online", "offline"] = "online"
    """`offline` writes the report to the run directory, for a later `wandb sync`."""

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
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_YamlLoader)  # noqa: S506 — a safe one
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{path} can't be read as YAML: {error}. Use a YAML file in UTF-8."]) from error
    if not isinstance(values, dict):
        raise ConfigError([f"{path} must have one `name: value` per line, such as `training_file: examples.jsonl`."])
    return values


class _YamlLoader(yaml.SafeLoader):
    """PyYAML's safe loader, fixed for `2e-4`, which by YAML 1.1 is a string: a number needs a point there."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


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
