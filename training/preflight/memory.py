"""Estimates the memory of a run from the base's shape before it is loaded. Imports no torch.

The parts are counted from what the libraries keep: 4-bit blocks of 64 weights (bitsandbytes), float32 LoRA matrices
with two AdamW moments (PEFT, torch), the tensors that autograd saves in a block, and the logits with their loss. What
can't be counted, allocator and interpreter, was measured on a CPU; `docs/preflight.md` has the figures. On a GPU the
estimate hasn't been compared with a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from training.config.config import TrainingConfig
from training.preflight.model_shape import Linear, ModelShape

FRAMEWORK_BYTES_CPU = 640_000_000
"""Python with torch, transformers, PEFT and the Trainer loaded: 0.61 GB measured before a base is loaded."""
FRAMEWORK_BYTES_GPU = 1_000_000_000
"""CUDA context and cuBLAS workspaces: 0.5 to 1 GB by NVIDIA's documentation; not measured."""
BLOCKS_IN_BACKWARD = 2.5
"""Blocks' worth of gradients and working copies beside the saved activations: fits the measurements best."""
CHECKPOINTING_SLACK_CPU = 0.5
"""Share of a block that stays allocated in the process for every block when activations are recomputed: on a CPU not
all freed memory is returned. Measured 0.4 to 0.5; a GPU's allocator reuses it."""
LOGITS_COPIES = 4
"""Logits, their log-softmax, its gradient, and the logits' gradient; all float32 in the loss."""
LOGITS_COPIES_DPO = 8
"""Plus those of the reference model: the result of one measured run of TRL's DPO."""
LOGITS_PIECE_BYTES = 64 * 2**20
"""Logits in memory at a time if the output layer is frozen: `token_loss.PIECE_BYTES`, in a module that needs torch."""
_OPTIMIZER_BYTES = {"adamw_torch": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2, "adafactor": 1}
"""Bytes of state per trained weight: two float32 moments, two 8-bit ones, or one row and column of sums."""
_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Peak memory of a run in bytes, part by part."""

    base_weights: int
    """The base as stored: in 4 bit with float32 embeddings, or whole."""
    trained_weights: int
    """Trained weights, their gradients and the optimizer's state."""
    activations: int
    """What the forward pass saves for the backward pass."""
    backward: int
    """Maximum added by the backward pass: logits and loss, or a few blocks' gradients, whichever is larger."""
    framework: int
    """Interpreter, libraries and working memory."""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(getattr(self, part.name) for part in fields(self))

    def table(self) -> str:
        """Return the parts in 10^9 bytes, one per line, with their sum."""
        rows = [(part.name.replace("_", " "), getattr(self, part.name)) for part in fields(self)]
        return "\n".join(f"{name:<16}{size / _GB:>9.3f} GB" for name, size in [*rows, ("total", self.total)])


def estimate_memory(
    shape: ModelShape, config: TrainingConfig, plan_batch: int, longest_tokens: int, on_gpu: bool
) -> MemoryEstimate:
    """Estimate the peak memory of a run whose largest batch is `plan_batch` rows of `longest_tokens` tokens.

    It errs on the high side: all rows are assumed to be as long as the longest. With `gradient_checkpointing: auto` it
    is the memory without checkpointing.
    """
    length = min(longest_tokens, config.max_length)
    tokens = _rows_at_once(config, plan_batch) * length
    width = _compute_bytes(config, on_gpu)
    block = tokens * _block_bytes(shape, config, length, width)
    kept = block * shape.n_layers
    if config.gradient_checkpointing is True:
        slack = 0.0 if on_gpu else CHECKPOINTING_SLACK_CPU * block
        kept = min(kept, block + (slack + width * tokens * shape.hidden_size) * shape.n_layers)
    return MemoryEstimate(
        base_weights=_base_bytes(shape, config, width),
        trained_weights=_trained_bytes(shape, config),
        activations=round(kept),
        backward=round(max(BLOCKS_IN_BACKWARD * block, _logits_bytes(shape, config, tokens))),
        framework=(FRAMEWORK_BYTES_GPU if on_gpu else FRAMEWORK_BYTES_CPU) + _working_bytes(shape, config, width),
    )


def largest_batch(
    shape: ModelShape, config: TrainingConfig, longest_tokens: int, on_gpu: bool, limit_bytes: float
) -> int:
    """Return the maximum of rows of `longest_tokens` tokens, a power of two up to 64, expected to fit `limit_bytes`.

    0 if not even one fits.
    """
    fitting = [
        rows
        for rows in (64, 32, 16, 8, 4, 2, 1)
        if estimate_memory(shape, config, rows, longest_tokens, on_gpu).total <= limit_bytes
    ]
    return max(fitting, default=0)


def least_batch(config: TrainingConfig) -> int:
    """Return the minimum of rows in a forward pass."""
    if config.batch_size != "auto":
        return config.batch_size
    return 2 if config.method == "kto" else 1


def memory_limit(config: TrainingConfig, free_bytes: float | None) -> float | None:
    """Return the bytes that the run may use: free memory, or `max_memory_gb` if that is less; None if unknown."""
    limits = [free_bytes, config.max_memory_gb * _GB if config.max_memory_gb else None]
    return min((limit for limit in limits if limit is not None), default=None)


def trained_parameters(shape: ModelShape, config: TrainingConfig) -> int:
    """Return the number of weights that the run trains."""
    if config.finetuning_type == "full":
        return shape.n_parameters
    if config.finetuning_type == "lora":
        return sum(_lora_parameters(linear, config, shape.n_layers) for linear in _targets(shape, config)) + (
            _whole_layer_parameters(shape, config)
        )
    return _virtual_token_parameters(shape, config)


def _rows_at_once(config: TrainingConfig, batch: int) -> int:
    """Return the rows in memory: a preference pair is two; KTO also runs each prompt with a mismatched answer."""
    return 2 * batch if config.method in ("dpo", "kto") else batch


def _compute_bytes(config: TrainingConfig, on_gpu: bool) -> int:
    """Return the bytes of one number of the arithmetic. `auto` on a CPU counts as float32, the larger, as `full` is."""
    if config.finetuning_type == "full" and not on_gpu:
        return 4
    if config.compute_dtype == "auto":
        return 2 if on_gpu else 4
    return 4 if config.compute_dtype == "float32" else 2


def _base_bytes(shape: ModelShape, config: TrainingConfig, width: int) -> int:
    if config.finetuning_type == "full":
        return 0  # counted among what is trained
    if config.quantization == "none":
        return width * shape.n_parameters
    # 64 weights share a scale: float32, or with double quantisation 8 bit plus a float32 for 256 of them (QLoRA, §3).
    per_weight = 0.5 + (1 / 64 + 4 / (64 * 256) if config.double_quant else 4 / 64)
    # PEFT's prepare_model_for_kbit_training makes float32 of what stays unquantised; it isn't used on fused experts.
    rest = width if shape.n_experts else 4
    return round(per_weight * shape.quantized_parameters) + rest * (shape.n_parameters - shape.quantized_parameters)


def _trained_bytes(shape: ModelShape, config: TrainingConfig) -> int:
    """Return the bytes of weights and gradients, in float32 each, and of the optimizer's state."""
    per_weight = 4 + 4 + _OPTIMIZER_BYTES[config.optim]
    if config.method in ("dpo", "kto") and config.from_adapter:
        per_weight += 4  # the adapter that the run starts from stays beside it, as the reference
    return per_weight * trained_parameters(shape, config)


def _logits_bytes(shape: ModelShape, config: TrainingConfig, tokens: int) -> int:
    """Return the bytes of logits and loss: of one piece if the output layer isn't trained, else of all tokens."""
    whole = 4 * tokens * shape.vocab_size
    if config.method == "dpo":
        return LOGITS_COPIES_DPO * whole
    in_pieces = config.finetuning_type == "lora" and config.method in ("supervised", "text")
    return LOGITS_COPIES * (min(whole, LOGITS_PIECE_BYTES) if in_pieces and not config.modules_to_save else whole)


def _block_bytes(shape: ModelShape, config: TrainingConfig, length: int, width: int) -> float:
    """Return the bytes that one token keeps in one block until its backward pass is done.

    The residual stream and its norm twice; queries, keys, values and the attention's output; four vectors of the MLP's
    inner width; the low-rank vectors; of 4-bit layers their outputs as well, with DoRA twice more (as measured).
    """
    lora = config.finetuning_type == "lora"
    hidden, attention, keys = shape.hidden_size, shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    inner = shape.intermediate_size * max(1, shape.experts_per_token)
    inputs = 5 * hidden + attention + inner  # of q, k, v, gate and up; of o; of down
    kept = 4 * hidden + 5 * attention + 4 * inner + (config.r * len(_targets(shape, config)) if lora else 0)
    outputs = 2 * hidden + attention + 2 * keys + 2 * inner
    kept += outputs * ((config.quantization == "nf4") + 2 * config.use_dora)
    if config.attn_implementation == "eager":
        kept += 2 * shape.n_heads * length  # the weights of every pair of tokens, before and after the softmax
    if lora and config.lora_dropout > 0:
        kept += inputs
    # In 16 bit the norms work on float32 copies, and so do the adapters, each on its own.
    copies = 0 if width == 4 else 4 * hidden + (inputs if lora else 0)
    return width * kept + 4 * copies


def _working_bytes(shape: ModelShape, config: TrainingConfig, width: int) -> int:
    """Return the bytes of the largest layer dequantised, twice: it and its product."""
    if config.quantization == "none" and not config.use_dora:
        return 0
    return 2 * width * max(linear.inputs * linear.outputs for linear in shape.linears)


def _targets(shape: ModelShape, config: TrainingConfig) -> list[Linear]:
    """Return the layers of one block that get an adapter; all if the names aren't conclusive, as in a pattern."""
    adaptable = [linear for linear in shape.linears if linear.quantized]  # PEFT can't adapt fused experts
    if config.target_modules == "all-linear":
        return adaptable
    wanted = (config.target_modules,) if isinstance(config.target_modules, str) else config.target_modules
    names = {name.rsplit(".", 1)[-1] for name in wanted}
    return [linear for linear in adaptable if linear.name in names] or adaptable


def _lora_parameters(linear: Linear, config: TrainingConfig, n_layers: int) -> int:
    """A is [r, inputs], B is [outputs, r]; DoRA adds one length per output."""
    rank = (config.rank_pattern or {}).get(linear.name, config.r)
    blocks = len(config.layers_to_transform) if config.layers_to_transform else n_layers
    each = rank * (linear.inputs + linear.outputs) + (linear.outputs if config.use_dora else 0)
    return blocks * linear.count * each


def _whole_layer_parameters(shape: ModelShape, config: TrainingConfig) -> int:
    """Return the number of weights that `modules_to_save` trains; unknown names count as embeddings."""
    total = 0
    for name in config.modules_to_save or ():
        found = [linear for linear in shape.linears if linear.name == name.rsplit(".", 1)[-1]]
        per_model = shape.n_layers * sum(linear.parameters for linear in found)
        total += per_model or shape.vocab_size * shape.hidden_size
    return total


def _virtual_token_parameters(shape: ModelShape, config: TrainingConfig) -> int:
    """Count the parameters: prefix tuning has keys and values per block, P-tuning a vector per token and an MLP."""
    tokens, hidden = config.num_virtual_tokens, shape.hidden_size
    if config.finetuning_type == "prefix_tuning":
        vectors = tokens * 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim
        if config.encoder_hidden_size is None:
            return vectors
        per_token = vectors // tokens
        return tokens * hidden + config.encoder_hidden_size * (hidden + per_token)
    encoder = config.encoder_hidden_size or hidden
    return tokens * hidden + encoder * (hidden + encoder + hidden)
