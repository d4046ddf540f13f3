"""DPO and KTO on a tiny model: the losses are the papers', the start is the reference, a resumed run ends the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback, set_seed

from tests.training.tiny_models import make_tiny_model
from training.config.auto import make_plan
from training.config.config import ConfigError, TrainingConfig
from training.learning.preference import make_preference_trainer, measure_preferences
from training.learning.trainer import find_last_checkpoint
from training.model.adapter_dir import reload_adapter, save_adapter
from training.model.base import Base, BaseModelError, load_base
from training.rendering.render import RenderedLabelled, RenderedPreference

CHANCE = random.Random(0)
GOOD, BAD = 50, 60
"""The tokens that better and worse answers begin with."""


def some_ids(low: int, high: int) -> list[int]:
    return [CHANCE.randrange(70, 300) for _ in range(CHANCE.randrange(low, high))]


PAIRS = [RenderedPreference(some_ids(3, 9), [GOOD, *some_ids(1, 5)], [BAD, *some_ids(1, 5)], False) for _ in range(12)]
LABELLED = [RenderedLabelled(pair.prompt_ids, pair.chosen_ids, True, False) for pair in PAIRS] + [
    RenderedLabelled(pair.prompt_ids, pair.rejected_ids, False, False) for pair in PAIRS[:9]
]
"""21 rows: at 4 a batch the last one is alone in its batch."""
FASTER = {"prefix_tuning": 0.1, "p_tuning": 0.02, "full": 1e-3}
Prepare = Callable[..., tuple[TrainingConfig, Base, Any]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("llama") / "tiny")


@pytest.fixture
def prepare(tiny: Path, tmp_path: Path) -> Prepare:
    """A configuration, a base as it starts, and a trainer for it, in `name`'s folder."""

    def make(name: str = "run", **settings: Any) -> tuple[TrainingConfig, Base, Any]:
        rate = FASTER.get(settings.get("finetuning_type", "lora"), 5e-3)
        config = TrainingConfig.from_dict(
            {
                "base_model": str(tiny), "training_file": __file__, "output_dir": str(tmp_path / "result"),
                "compute_dtype": "float32", "quantization": "none", "method": "dpo", "learning_rate": rate,
                "batch_size": 4, "n_epochs": 3, "save_steps": 4, "r": 4, "lora_alpha": 8, **settings,
            }
        )  # fmt: skip
        set_seed(config.seed)
        base = load_base(config)
        rows = rows_for(config)
        plan = make_plan(config, n_rows=len(rows), mean_tokens=10, n_parameters=base.n_parameters, on_gpu=False)
        return config, base, make_preference_trainer(config, plan, base, rows, tmp_path / name)

    return make


@pytest.fixture
def adapter(prepare: Prepare, tmp_path: Path) -> Path:
    """An adapter that favours the bad answers, to start from."""
    _, base, _ = prepare("first")
    with torch.no_grad():
        for weight in base.model.parameters():
            if weight.requires_grad:
                weight += 0.02
    save_adapter(base.model, tmp_path / "adapter", base.start)
    return tmp_path / "adapter"


def rows_for(config: TrainingConfig) -> Sequence[Any]:
    return PAIRS if config.method == "dpo" else LABELLED


def weights_of(base: Base) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in base.model.named_parameters() if weight.requires_grad}


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@torch.no_grad()
def log_likelihood(model: Any, prompt: list[int], answer: list[int]) -> float:
    """Of `answer` after `prompt`, in nats, from the model's plain logits."""
    ids = torch.tensor([prompt + answer])
    likely = torch.log_softmax(model.eval()(input_ids=ids, use_cache=False).logits[0], -1)
    return sum(float(likely[place - 1, ids[0, place]]) for place in range(len(prompt), ids.shape[1]))


def log_ratios(base: Base, start: Any, rows: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
    """How much likelier the model finds each answer than the model at the start does."""
    found = [log_likelihood(base.model, *row) - log_likelihood(start, *row) for row in rows]
    return torch.tensor(found)


@pytest.mark.parametrize(
    ("loss_type", "formula"),
    [
        ("sigmoid", lambda delta, beta: -torch.nn.functional.logsigmoid(beta * delta)),
        ("hinge", lambda delta, beta: torch.relu(1 - beta * delta)),
    ],
)
def test_the_loss_of_dpo_is_the_formula_over_plain_logits(
    tiny: Path, prepare: Prepare, loss_type: str, formula: Callable[[torch.Tensor, float], torch.Tensor]
) -> None:
    config, base, trainer = prepare(loss_type=loss_type, beta=0.2)
    measure_preferences(trainer, PAIRS, config)
    trainer.train()
    measured = measure_preferences(trainer, PAIRS, config)
    start = AutoModelForCausalLM.from_pretrained(tiny)
    chosen = log_ratios(base, start, [(pair.prompt_ids, pair.chosen_ids) for pair in PAIRS])
    rejected = log_ratios(base, start, [(pair.prompt_ids, pair.rejected_ids) for pair in PAIRS])
    assert measured.loss == pytest.approx(float(formula(chosen - rejected, 0.2).mean()), abs=1e-4)
    assert measured.reward_margin == pytest.approx(float(0.2 * (chosen - rejected).mean()), abs=1e-4)
    assert measured.reward_accuracy == pytest.approx(float((chosen > rejected).float().mean()))


def test_the_loss_of_kto_is_the_formula_over_plain_logits(tiny: Path, prepare: Prepare) -> None:
    config, base, trainer = prepare(method="kto", beta=0.2, desirable_weight=1.5)
    rows = LABELLED[:2] + LABELLED[-2:]  # one batch, two good and two bad
    measure_preferences(trainer, rows, config)
    trainer.train()
    measured = measure_preferences(trainer, rows, config)
    start = AutoModelForCausalLM.from_pretrained(tiny)
    ratios = log_ratios(base, start, [(row.prompt_ids, row.completion_ids) for row in rows])
    mismatched = [(rows[place].prompt_ids, rows[place - 1].completion_ids) for place in range(4)]
    moved = log_ratios(base, start, mismatched).mean().clamp(min=0)
    good, bad = 1 - torch.sigmoid(0.2 * (ratios[:2] - moved)), 1 - torch.sigmoid(0.2 * (moved - ratios[2:]))
    assert measured.loss == pytest.approx(float(torch.cat([1.5 * good, bad]).mean()), abs=1e-4)
    assert measured.reward_margin == pytest.approx(float(0.2 * (ratios[:2].mean() - ratios[2:].mean())), abs=1e-4)


@pytest.mark.parametrize("method", ["dpo", "kto"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"quantization": "nf4"},
        {"quantization": "nf4", "compute_dtype": "bfloat16"},
        {"compute_dtype": "bfloat16", "modules_to_save": ["lm_head"]},
        {"use_dora": True},
        {"finetuning_type": "full"},
        {"finetuning_type": "prefix_tuning"},
        {"finetuning_type": "p_tuning"},
    ],
)
def test_better_answers_are_favoured_more_and_more(prepare: Prepare, method: str, settings: dict[str, Any]) -> None:
    config, _, trainer = prepare(method=method, **settings)
    rows = rows_for(config)
    before = measure_preferences(trainer, rows, config)
    trainer.train()
    after = measure_preferences(trainer, rows, config)
    assert before.loss == pytest.approx(log(2) if method == "dpo" else 0.5, abs=1e-5)
    assert before.reward_margin == pytest.approx(0, abs=1e-5)
    assert before.reward_accuracy is None
    assert after.loss < before.loss - 0.02
    assert after.reward_margin is not None
    assert after.reward_margin > 0.1
    assert after.reward_accuracy == (None if method == "kto" else pytest.approx(1, abs=0.2))
    losses, margins = logged(trainer, "loss"), logged(trainer, "rewards/margins")
    assert losses[-1] < losses[0]
    assert margins[-1] > margins[0]
    assert trainer.tokens == trainer.state.num_input_tokens_seen == 3 * sum(map(tokens_in, rows))


def tokens_in(row: Any) -> int:
    if isinstance(row, RenderedPreference):
        return 2 * len(row.prompt_ids) + len(row.chosen_ids) + len(row.rejected_ids)
    return len(row.prompt_ids) + len(row.completion_ids)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_adapter_that_it_started_from_is_the_reference(prepare: Prepare, method: str, adapter: Path) -> None:
    config, base, trainer = prepare(method=method, from_adapter=str(adapter))
    before = measure_preferences(trainer, rows_for(config), config)
    trainer.train()
    assert before.reward_margin == 0
    assert logged(trainer, "loss")[0] == pytest.approx(log(2) if method == "dpo" else 0.5, abs=1e-6)
    assert list(base.model.peft_config) == ["default"]


@pytest.mark.parametrize(
    "settings",
    [
        {"quantization": "nf4"},
        {"from_adapter": "an adapter"},
        {"method": "kto"},
        {"use_dora": True, "lora_dropout": 0.1},
        {"finetuning_type": "p_tuning"},
        {"finetuning_type": "prefix_tuning", "encoder_hidden_size": 32, "learning_rate": 0.02},
        {"finetuning_type": "full"},
    ],
)
def test_a_run_that_was_cut_off_ends_with_the_weights_of_an_unbroken_one(
    prepare: Prepare, tmp_path: Path, adapter: Path, settings: dict[str, Any]
) -> None:
    if "from_adapter" in settings:
        settings = {**settings, "from_adapter": str(adapter)}
    _, unbroken, trainer = prepare("unbroken", **settings)
    trainer.train()
    _, _, cut_off = prepare("cut off", **settings)
    cut_off.add_callback(_CutOff(after=6))
    with pytest.raises(KeyboardInterrupt):
        cut_off.train()
    _, resumed, second = prepare("cut off", **settings)
    checkpoint = find_last_checkpoint(tmp_path / "cut off")
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-4"
    second.train(resume_from_checkpoint=str(checkpoint))
    assert second.state.global_step == trainer.state.global_step > 6
    wanted = weights_of(unbroken)
    for name, weight in weights_of(resumed).items():
        assert torch.equal(weight, wanted[name]), name


class _CutOff(TrainerCallback):  # type: ignore[misc]
    """The power goes off after so many steps."""

    def __init__(self, after: int) -> None:
        self._after = after

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._after:
            raise KeyboardInterrupt


def test_only_the_trained_adapter_is_written_and_it_reads_back_the_same(
    prepare: Prepare, tmp_path: Path, adapter: Path
) -> None:
    config, base, trainer = prepare(from_adapter=str(adapter), quantization="nf4")
    measure_preferences(trainer, PAIRS, config)
    trainer.train()
    measured = measure_preferences(trainer, PAIRS, config)
    save_adapter(base.model, tmp_path / "result", base.start)
    reload_adapter(base.model, tmp_path / "result")
    assert measure_preferences(trainer, PAIRS, config) == measured
    assert {file.name for file in (tmp_path / "result").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    assert not any(file.is_dir() for file in (tmp_path / "run" / "checkpoint-8").iterdir())
    assert not (tmp_path / "run" / "README.md").exists()


def test_trained_weights_and_the_padding_token_stay_as_they_were(prepare: Prepare) -> None:
    config, base, _ = prepare(quantization="nf4")
    set_seed(config.seed)
    untouched = load_base(config)
    wanted = weights_of(untouched)
    for name, weight in weights_of(base).items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, wanted[name]), name
    assert base.model.config.pad_token_id == untouched.model.config.pad_token_id
    assert base.model.get_input_embeddings().num_embeddings == untouched.model.get_input_embeddings().num_embeddings


def test_rows_first_measured_after_training_are_refused(prepare: Prepare) -> None:
    config, _, trainer = prepare()
    trainer.train()
    with pytest.raises(ValueError, match=r"Measure them once before training"):
        measure_preferences(trainer, PAIRS, config)


def test_answers_beyond_max_length_are_cut_not_refused(prepare: Prepare) -> None:
    config, _, trainer = prepare(max_length=10)
    long = [replace(pair, chosen_ids=pair.chosen_ids * 5) for pair in PAIRS]
    assert measure_preferences(trainer, long, config).loss == pytest.approx(log(2))


def test_kto_with_one_row_at_a_time_is_refused(prepare: Prepare) -> None:
    with pytest.raises(ConfigError, match=r"`batch_size` is 1") as refused:
        prepare(method="kto", batch_size=1)
    assert refused.value.param == "batch_size"


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_an_adapter_on_the_output_layer_is_refused(prepare: Prepare, method: str) -> None:
    with pytest.raises(BaseModelError, match=r"output layer") as refused:
        prepare(method=method, target_modules=["q_proj", "lm_head"])
    assert refused.value.param == "target_modules"


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_mixture_of_experts_learns_from_preferences(prepare: Prepare, tmp_path: Path, method: str) -> None:
    mixtral = make_tiny_model(tmp_path / "mixtral", "mixtral")
    _, _, trainer = prepare(method=method, base_model=str(mixtral), learning_rate=1e-2)
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[0] == pytest.approx(log(2) if method == "dpo" else 0.5, abs=1e-5)
    assert losses[-1] < losses[0] - 0.02
