"""What is put on a base to be trained: where it goes, what it starts as, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, set_seed

from adapter_format.files import WEIGHTS_FILE
from tests.training.tiny_models import make_tiny_model
from training.config.config import TrainingConfig
from training.model.adapter_dir import file_sha256, save_adapter
from training.model.base import Base, BaseModelError, load_base

IDS = torch.arange(40, 72).reshape(2, 16)
Configure = Callable[..., TrainingConfig]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("llama") / "tiny")


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("mixtral") / "tiny", "mixtral")


@pytest.fixture
def configure(tiny: Path, tmp_path: Path) -> Configure:
    def make(**settings: Any) -> TrainingConfig:
        fixed = {"base_model": str(tiny), "training_file": __file__, "output_dir": str(tmp_path / "result")}
        return TrainingConfig.from_dict({**fixed, "compute_dtype": "float32", **settings})

    return make


def load(config: TrainingConfig) -> Base:
    set_seed(config.seed)
    return load_base(config)


def gradients(base: Base) -> dict[str, torch.Tensor]:
    """The gradient of each trained weight for one fixed batch; dropout is off in the configuration."""
    base.model.train()
    base.model.zero_grad()
    base.model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: weight.grad.clone() for name, weight in base.model.named_parameters() if weight.grad is not None}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """float32 [2, 16, vocabulary], virtual tokens left out."""
    found = model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    return torch.as_tensor(found[:, -IDS.shape[1] :])


@torch.no_grad()
def disturb(base: Base) -> None:
    """Stands for training: every trained weight is moved a little."""
    for weight in base.model.parameters():
        if weight.requires_grad:
            weight += 0.02


@pytest.mark.parametrize("use_dora", [False, True])
def test_gradients_are_the_same_before_and_after_an_evaluation(
    demo_model: Path, configure: Configure, use_dora: bool
) -> None:
    base = load(configure(base_model=str(demo_model), compute_dtype="auto", use_dora=use_dora))
    before = gradients(base)
    logits(base.model)
    after = gradients(base)
    assert before.keys() == after.keys()
    assert any(gradient.abs().sum() > 0 for gradient in before.values())
    for name, gradient in before.items():
        assert torch.equal(gradient, after[name]), name


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize(
    "settings",
    [
        {"init_lora_weights": "default"},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"use_dora": True},
        {"use_rslora": True, "rank_pattern": {"q_proj": 4}},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_a_fresh_adapter_begins_as_no_change(configure: Configure, quantization: str, settings: dict[str, Any]) -> None:
    base = load(configure(quantization=quantization, **settings))
    with_adapter = logits(base.model)
    with base.model.disable_adapter():
        bare = logits(base.model)
    assert (with_adapter - bare).abs().max() < 1e-4


@pytest.mark.parametrize("settings", [{}, {"quantization": "none"}, {"modules_to_save": ["lm_head", "embed_tokens"]},
                                      {"quantization": "none", "modules_to_save": ["lm_head", "embed_tokens"]},
                                      {"finetuning_type": "p_tuning", "quantization": "none"}])  # fmt: skip
def test_trained_weights_are_float32_beside_a_16_bit_base(configure: Configure, settings: dict[str, Any]) -> None:
    base = load(configure(compute_dtype="bfloat16", **settings))
    assert {weight.dtype for weight in base.model.parameters() if weight.requires_grad} == {torch.float32}
    assert all(gradient.isfinite().all() for gradient in gradients(base).values())


def test_full_trains_every_weight_in_float32(configure: Configure) -> None:
    base = load(configure(finetuning_type="full", quantization="none", compute_dtype="bfloat16"))
    assert base.n_trainable == base.n_parameters
    assert {weight.dtype for weight in base.model.parameters()} == {torch.float32}


def test_parameters_are_counted_alike_in_4_bit_and_not(configure: Configure) -> None:
    in_4_bit, whole = load(configure()), load(configure(quantization="none"))
    assert in_4_bit.n_parameters == whole.n_parameters == AutoModelForCausalLM.from_pretrained(
        configure().base_model
    ).num_parameters()  # fmt: skip
    assert in_4_bit.n_trainable == whole.n_trainable


def test_only_the_chosen_blocks_and_layers_get_an_adapter(configure: Configure) -> None:
    base = load(configure(layers_to_transform=[1], exclude_modules=["down_proj"], rank_pattern={"q_proj": 4}))
    ranks = {name.split("model.model.model.")[1].split(".lora_A")[0]: weight.shape[0]
             for name, weight in base.model.named_parameters() if "lora_A" in name}  # fmt: skip
    layers = [f"self_attn.{name}_proj" for name in "kov"] + ["mlp.gate_proj", "mlp.up_proj"]
    assert ranks == {**{f"layers.1.{layer}": 16 for layer in layers}, "layers.1.self_attn.q_proj": 4}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_of_a_mixture_of_experts_only_attention_gets_an_adapter(
    mixtral: Path, configure: Configure, quantization: str, dtype: str
) -> None:
    base = load(configure(base_model=str(mixtral), quantization=quantization, compute_dtype=dtype))
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in gradients(base)}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert base.notes == (f"this model's experts are fused weights: they stay in {dtype}, without adapters",)
    experts = [weight for name, weight in base.model.named_parameters() if "experts" in name]
    assert {str(weight.dtype) for weight in experts} == {f"torch.{dtype}"}


@pytest.mark.parametrize(
    ("param", "settings"),
    [
        ("target_modules", {"target_modules": ["q_proj", "v_prj"]}),
        ("target_modules", {"target_modules": "model[.]nothing.*"}),
        ("target_modules", {"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}),
        ("exclude_modules", {"exclude_modules": ["nothing"]}),
        ("rank_pattern", {"rank_pattern": {"q_prj": 4}}),
        ("rank_pattern", {"rank_pattern": {"q_proj(": 4}}),
        ("alpha_pattern", {"alpha_pattern": {"lm_head": 4}}),
        ("modules_to_save", {"modules_to_save": ["head"]}),
        ("modules_to_save", {"modules_to_save": ["q_proj"]}),
        ("layers_to_transform", {"layers_to_transform": [1, 2]}),
        ("init_lora_weights", {"init_lora_weights": "orthogonal", "r": 3}),
        ("quantization", {"finetuning_type": "full"}),
        ("from_adapter", {"finetuning_type": "full", "quantization": "none", "from_adapter": "somewhere"}),
        ("from_adapter", {"from_adapter": "nowhere"}),
        ("gradient_checkpointing", {"finetuning_type": "prefix_tuning", "gradient_checkpointing": True}),
        ("attn_implementation", {"attn_implementation": "flash_attention_2"}),
    ],
)
def test_what_the_base_cannot_do_is_refused_with_the_setting(
    configure: Configure, param: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(BaseModelError) as refused:
        load(configure(**settings))
    assert refused.value.param == param
    assert f"`{param}`" in str(refused.value) or str(settings.get(param)) in str(refused.value)


def test_an_adapter_on_a_router_is_refused(mixtral: Path, configure: Configure) -> None:
    with pytest.raises(BaseModelError, match=r"gate, which routes tokens to experts") as refused:
        load(configure(base_model=str(mixtral), target_modules=["q_proj", "gate"]))
    assert refused.value.param == "target_modules"


@pytest.fixture
def adapter(configure: Configure, tmp_path: Path) -> Path:
    """An adapter of rank 4 that changes what the base says."""
    base = load(configure(r=4, lora_alpha=8, use_rslora=True))
    disturb(base)
    save_adapter(base.model, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_going_on_from_an_adapter_starts_where_it_ended(configure: Configure, adapter: Path, tmp_path: Path) -> None:
    first = load(configure(r=4, lora_alpha=8, use_rslora=True))
    disturb(first)
    again = load(configure(from_adapter=str(adapter), r=64, use_rslora=True, lora_dropout=0.5))
    assert torch.equal(logits(first.model), logits(again.model))
    assert again.n_trainable == first.n_trainable
    disturb(again)
    save_adapter(again.model, tmp_path / "second", again.start)
    assert not torch.equal(logits(first.model), logits(again.model))
    told, *ignored = again.notes
    assert "r 4, lora_alpha 8, on down_proj, gate_proj" in told
    assert ignored == ["`r` 64 is ignored: the adapter has 4"]
    assert json.loads((tmp_path / "second" / "adapter_config.json").read_text())["lora_dropout"] == 0.5


@pytest.mark.parametrize("finetuning_type", ["prefix_tuning", "p_tuning"])
def test_going_on_from_another_kind_of_adapter_is_refused(
    configure: Configure, adapter: Path, finetuning_type: str
) -> None:
    with pytest.raises(BaseModelError, match=r"its type is LORA") as refused:
        load(configure(from_adapter=str(adapter), finetuning_type=finetuning_type))
    assert refused.value.param == "from_adapter"


def test_going_on_from_p_tuning_is_refused(configure: Configure, tmp_path: Path) -> None:
    base = load(configure(finetuning_type="p_tuning"))
    save_adapter(base.model, tmp_path / "vectors")
    with pytest.raises(BaseModelError, match=r"only its vectors were saved"):
        load(configure(finetuning_type="p_tuning", from_adapter=str(tmp_path / "vectors")))


def test_an_adapter_made_for_other_weights_is_refused(
    configure: Configure, adapter: Path, tmp_path: Path, tiny: Path
) -> None:
    own = hashlib.sha256(f"model.safetensors {file_sha256(tiny / 'model.safetensors')}\n".encode()).hexdigest()
    manifest = adapter / "manifest.json"
    manifest.write_text(json.dumps({"base_model_sha256": own}))
    load(configure(from_adapter=str(adapter)))
    manifest.write_text(json.dumps({"base_model_sha256": "0" * 64}))
    with pytest.raises(BaseModelError, match=r"by their hash") as refused:
        load(configure(from_adapter=str(adapter)))
    assert refused.value.param == "from_adapter"


def test_an_adapter_whose_layers_the_base_lacks_is_refused(configure: Configure, adapter: Path, mixtral: Path) -> None:
    with pytest.raises(BaseModelError, match=r"Can't continue from the adapter") as refused:
        load(configure(from_adapter=str(adapter), base_model=str(mixtral)))
    assert refused.value.param == "from_adapter"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / WEIGHTS_FILE).rename(folder / "adapter_model.bin"), "other formats, such as .bin"),
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\x08"), "doesn't fit the base model"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "can't be read"),
        (lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "NOTHING"}'), "can't be read"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json can't be read"),
    ],
)
def test_a_broken_adapter_is_refused(
    configure: Configure, adapter: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(adapter)
    with pytest.raises(BaseModelError, match=said) as refused:
        load(configure(from_adapter=str(adapter)))
    assert refused.value.param == "from_adapter"
