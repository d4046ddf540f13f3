"""What is refused before a run, by which setting and with what remedy; and that the registry would say the same."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig

from serving.adapters.config import check_config
from serving.engines.engine import EngineLimits
from serving.engines.vllm.arguments import ALLOWED_LORA_RANKS as SERVED_RANKS
from serving.errors import AdapterError
from training.config.config import ConfigError, TrainingConfig
from training.preflight.memory import estimate_memory
from training.preflight.model_shape import ModelShape
from training.preflight.preflight import Preflight, preflight
from training.preflight.servable import ALLOWED_LORA_RANKS, find_unservable

LIMITS = EngineLimits(max_lora_rank=64, max_loras=4, max_cpu_loras=16, max_model_len=4096)
SHAPE = ModelShape(
    model_type="llama",
    vocab_size=32_000,
    hidden_size=2048,
    intermediate_size=5632,
    n_layers=22,
    n_heads=32,
    n_kv_heads=4,
    head_dim=64,
    max_positions=4096,
)
FULL = {"finetuning_type": "full", "quantization": "none", "serve_as": "model"}
PREFIX = {"finetuning_type": "prefix_tuning", "serve_as": "none"}
P_TUNING = {"finetuning_type": "p_tuning", "serve_as": "none"}


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"base_model": "org/base", "training_file": "a.jsonl", "output_dir": "out"} | changes)


def passed(shape: ModelShape = SHAPE, free_bytes: int | None = None, **changes: Any) -> Preflight:
    return preflight(config(**changes), shape, free_bytes=free_bytes, engine_limits=LIMITS)


def refused(shape: ModelShape = SHAPE, free_bytes: int | None = None, **changes: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        passed(shape, free_bytes, **changes)
    return caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {},
        FULL,
        PREFIX,
        P_TUNING,
        {"method": "dpo", "loss_type": "robust", "label_smoothing": 0.1, "from_adapter": "adapter", "beta": 0.5},
        {"method": "kto", "desirable_weight": 2.0, "batch_size": 2},
        {"method": "text", "packing": True, "mix_file": "b.jsonl"},
        {"train_on": "all", "early_stopping_patience": 2},
        {"use_rslora": True, "rank_pattern": {"q_proj": 64}, "layers_to_transform": [0, 21]},
        {"use_dora": True, "modules_to_save": ["lm_head"], "r": 512, "serve_as": "model"},
        {"use_dora": True, "serve_as": "none"},
        {"early_stopping_patience": 2, "validation_fraction": 0, "validation_file": "b.jsonl"},
    ],
    ids=str,
)
def test_what_can_work_passes(changes: dict[str, Any]) -> None:
    assert passed(**changes).memory.total > 0


@pytest.mark.parametrize(
    ("changes", "param", "remedy"),
    [
        ({"method": "dpo", "packing": True}, "packing", "change `method`"),
        ({"method": "kto", "packing": True}, "packing", "Leave it out"),
        ({"method": "text", "train_on": "all"}, "train_on", "Leave it out"),
        ({"method": "dpo", "train_on": "last_assistant"}, "train_on", "Leave it out"),
        ({"method": "text", "on_too_long": "refuse"}, "on_too_long", "Leave it out"),
        ({"method": "dpo", "mix_file": "b.jsonl"}, "mix_file", "Leave it out"),
        ({"beta": 0.5}, "beta", "dpo and kto"),
        ({"method": "kto", "loss_type": "ipo"}, "loss_type", "it is for dpo"),
        ({"method": "dpo", "desirable_weight": 2.0}, "desirable_weight", "it is for kto"),
        ({"method": "dpo", "label_smoothing": 0.1}, "label_smoothing", "Set `loss_type: robust`"),
        ({"method": "kto", "batch_size": 1}, "batch_size", "Set it to 2 or more"),
        ({**FULL, "use_dora": True}, "use_dora", "finetuning_type: lora"),
        ({**PREFIX, "use_rslora": True}, "use_rslora", "finetuning_type: lora"),
        ({**P_TUNING, "rank_pattern": {"q_proj": 8}}, "rank_pattern", "finetuning_type: lora"),
        ({**FULL, "modules_to_save": ["lm_head"]}, "modules_to_save", "finetuning_type: lora"),
        ({"encoder_hidden_size": 64}, "encoder_hidden_size", "Leave it out"),
        ({**PREFIX, "gradient_checkpointing": True}, "gradient_checkpointing", "Set it to false"),
        ({**P_TUNING, "from_adapter": "adapter"}, "from_adapter", "Leave it out"),
        ({**FULL, "quantization": "nf4"}, "quantization", "Set `quantization: none`"),
        ({**FULL, "from_adapter": "adapter"}, "from_adapter", "Merge it"),
        ({"early_stopping_patience": 3, "validation_fraction": 0}, "early_stopping_patience", "validation_file"),
        ({"validation_file": "./a.jsonl"}, "validation_file", "another file"),
        ({"mix_file": "a.jsonl"}, "mix_file", "another file"),
        ({"mix_file": "b.jsonl", "validation_file": "b.jsonl"}, "mix_file", "another file"),
        ({**FULL, "serve_as": "adapter"}, "serve_as", "Set `serve_as: model`"),
        ({**PREFIX, "serve_as": "model"}, "serve_as", "Set `serve_as: none`"),
        ({**P_TUNING, "serve_as": "adapter"}, "serve_as", "Set `serve_as: none`"),
        ({"use_dora": True}, "use_dora", "`serve_as: model`"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save", "`serve_as: model`"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target_modules", "Leave out lm_head"),
        ({"r": 65}, "r", "`max_lora_rank` 128"),
        ({"rank_pattern": {"q_proj": 300}}, "rank_pattern", "`max_lora_rank` 320"),
        ({"max_length": 4097}, "max_length", "to 4096 or less"),
        ({**P_TUNING, "max_length": 4090}, "max_length", "to 4076 or less"),
        ({"layers_to_transform": [0, 22]}, "layers_to_transform", "has 22"),
        ({"attn_implementation": "flash_attention_2"}, "attn_implementation", "Use `auto`"),
    ],
    ids=str,
)
def test_what_can_not_work_is_refused_by_setting_and_remedy(changes: dict[str, Any], param: str, remedy: str) -> None:
    error = refused(**changes)
    assert error.param == param
    assert len(error.faults) == 1
    assert f"`{param}`" in error.faults[0]
    assert remedy in error.faults[0]


def test_all_reasons_are_told_at_once() -> None:
    error = refused(use_dora=True, max_length=5000, packing=True, method="dpo", max_memory_gb=0.1)
    assert error.param == "packing"
    assert [word for word in ("packing", "use_dora", "max_length", "max_memory_gb") if f"`{word}`" in str(error)] == [
        "packing",
        "use_dora",
        "max_length",
        "max_memory_gb",
    ]
    assert len(error.faults) == 4


def hot_loadable_cases() -> list[dict[str, Any]]:
    """Settings of which some make adapters that an engine with `LIMITS` can serve."""
    return [
        {},
        {"r": 64},
        {"r": 65},
        {"r": 512},
        {"r": 8, "rank_pattern": {"q_proj": 64, "v_proj": 4}},
        {"r": 8, "rank_pattern": {"q_proj": 128}},
        {"alpha_pattern": {"q_proj": 7}},
        {"use_dora": True},
        {"use_rslora": True},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "model.embed_tokens"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": r".*\.(q|v)_proj"},
        {"layers_to_transform": [0, 1], "target_modules": ["q_proj"]},
        {"exclude_modules": ["down_proj"]},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"lora_dropout": 0.1},
    ]


@pytest.mark.parametrize("changes", hot_loadable_cases(), ids=str)
def test_preflight_and_registry_agree_on_what_can_be_hot_loaded(changes: dict[str, Any]) -> None:
    lora = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"} | changes
    lora["init_lora_weights"] = changes.get("init_lora_weights", True)
    written = json.loads(json.dumps(LoraConfig(task_type="CAUSAL_LM", **lora).to_dict(), default=list))
    try:
        check_config("adapter", written, LIMITS)
        registry_takes_it = True
    except AdapterError:
        registry_takes_it = False
    assert (find_unservable(config(**changes), LIMITS) == []) == registry_takes_it


def test_ranks_are_those_that_the_server_lets_an_engine_start_with() -> None:
    assert set(ALLOWED_LORA_RANKS) == set(SERVED_RANKS)


def test_an_adapter_to_go_on_from_is_judged_by_its_own_rank(tmp_path: Path) -> None:
    started_from = LoraConfig(r=128, target_modules=["q_proj"], modules_to_save=["lm_head"])
    started_from.save_pretrained(str(tmp_path))
    error = refused(from_adapter=str(tmp_path), r=8)
    assert error.param == "from_adapter"
    assert any("128" in fault for fault in error.faults)
    assert any("modules_to_save" in fault for fault in error.faults)
    assert passed(from_adapter=str(tmp_path), serve_as="model").memory.total > 0


def test_without_an_engine_only_impossible_ranks_are_refused() -> None:
    found = preflight(config(r=512), SHAPE, free_bytes=None, engine_limits=None)
    assert found.findings == ()


def test_a_run_that_does_not_fit_is_told_what_to_change_cheapest_first() -> None:
    run = config(batch_size=16, max_length=2048, quantization="none", gradient_checkpointing=False)
    need = estimate_memory(SHAPE, run, 16, 2048, False).total
    with pytest.raises(ConfigError) as caught:
        preflight(run, SHAPE, free_bytes=2 * 10**9, engine_limits=None)
    message = caught.value.faults[0]
    assert caught.value.param == "batch_size"
    assert f"{need / 1e9:.2f} GB with 16 rows of 2048 tokens" in message
    places = [
        message.index(part)
        for part in (
            "`batch_size` to 1 and `gradient_accumulation_steps` to 16",
            "`gradient_checkpointing` to true",
            "`max_length` to 1024",
            "`quantization` to nf4",
        )
    ]
    assert places == sorted(places)


def test_the_remedies_end_where_the_run_fits_and_then_it_does() -> None:
    free = estimate_memory(SHAPE, config(batch_size=1), 1, 2048, False).total
    with pytest.raises(ConfigError) as caught:
        preflight(config(batch_size=8), SHAPE, free_bytes=free, engine_limits=None)
    assert "gradient_checkpointing" not in str(caught.value)
    as_told = config(batch_size=1, gradient_accumulation_steps=8)
    assert preflight(as_told, SHAPE, free_bytes=free, engine_limits=None).memory.total <= free


def test_an_own_bound_on_memory_counts_below_what_is_free() -> None:
    error = refused(free_bytes=10**12, max_memory_gb=1.5)
    assert "`max_memory_gb` allows 1.50 GB" in str(error)
    assert "1.50 GB are free" in str(refused(free_bytes=15 * 10**8, max_memory_gb=2000))


def test_a_hopeless_run_is_told_to_take_a_smaller_base() -> None:
    large = dataclasses.replace(SHAPE, n_layers=900)
    assert "use a smaller base model" in str(refused(large, free_bytes=10**9, gradient_checkpointing=True))


def test_auto_is_judged_by_the_smallest_batch_it_can_choose() -> None:
    assert passed().memory == estimate_memory(SHAPE, config(), 1, 2048, False)
    assert passed(method="kto").memory == estimate_memory(SHAPE, config(method="kto"), 2, 2048, False)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"method": "dpo"}, "from_adapter"),
        ({"mix_ratio": 0.5}, "mix_ratio"),
        ({"method": "dpo", "from_adapter": "adapter", "loss_type": "robust"}, "label_smoothing"),
    ],
)
def test_what_is_odd_but_works_is_only_told(changes: dict[str, Any], param: str) -> None:
    assert [finding.param for finding in passed(**changes).findings] == [param]


def test_examples_longer_than_the_engine_serves_are_told() -> None:
    limits = dataclasses.replace(LIMITS, max_model_len=1024)
    found = preflight(config(), SHAPE, free_bytes=None, engine_limits=limits)
    assert "up to 1024 tokens" in found.findings[0].message


def test_a_close_fit_is_told() -> None:
    need = passed().memory.total
    assert "close" in passed(free_bytes=need + 1).findings[0].message


def test_a_mixture_of_experts_is_told_where_adapters_go() -> None:
    mixture = dataclasses.replace(SHAPE, n_experts=8, experts_per_token=2)
    assert [finding.param for finding in passed(mixture).findings] == ["target_modules"]


def test_the_server_can_ask_without_loading_torch() -> None:
    listing = "import sys, training.preflight.preflight, training.config.auto; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "peft", "datasets"} & set(loaded)
