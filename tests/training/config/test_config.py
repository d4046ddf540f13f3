"""TrainingConfig: what it takes, what it refuses, and that all its faults come together."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.config.config import ConfigError, TrainingConfig, read_yaml

REQUIRED = {"base_model": "org/some-model", "training_file": "examples.jsonl", "output_dir": "adapters/adapter-1"}
DOCS = Path(__file__).parents[3] / "docs" / "training.md"


def test_a_configuration_survives_json() -> None:
    config = TrainingConfig.from_dict(
        {
            **REQUIRED, "target_modules": ["q_proj", "v_proj"], "learning_rate": 1, "r": 8, "n_epochs": "auto",
            "layers_to_transform": [0, 3], "rank_pattern": {"q_proj": 32}, "modules_to_save": ["lm_head"],
        }
    )  # fmt: skip
    assert TrainingConfig.from_dict(json.loads(config.to_json())) == config
    assert config.target_modules == ("q_proj", "v_proj")
    assert (config.layers_to_transform, config.rank_pattern) == ((0, 3), {"q_proj": 32})


@pytest.mark.parametrize(("written", "value"), [("2e-4", 2e-4), ("1E-3", 1e-3), ("2.5e-5", 2.5e-5), ("1", 1)])
def test_numbers_in_yaml_may_be_written_as_people_write_them(tmp_path: Path, written: str, value: float) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"base_model: org/1e5\ntraining_file: 3e\noutput_dir: y\nlearning_rate: {written}\n")
    config = TrainingConfig.from_dict(read_yaml(path))
    assert (config.learning_rate, config.base_model, config.training_file) == (value, "org/1e5", "3e")


def test_all_faults_come_together() -> None:
    wrong = {"training_file": "x", "output_dir": "y", "learning_rat": 1, "n_epochs": 0, "r": "16"}
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_dict({**wrong, "quantization": "int3"})
    text = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 5
    for part in ("`learning_rate`?", "`base_model` is required", "`n_epochs`", "`r` is '16'", "'nf4' or 'none'"):
        assert part in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_epochs", True),
        ("n_epochs", 1.5),
        ("double_quant", 1),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", 0),
        ("lora_dropout", 1.0),
        ("validation_fraction", -0.1),
        ("max_length", 7),
        ("target_modules", []),
        ("target_modules", "model[.](.*"),
        ("target_modules", [1]),
        ("eval_steps", "often"),
        ("eval_steps", 0),
        ("max_steps", 0),
        ("base_model", " "),
        ("base_model", "./nowhere"),
        ("base_model", "/nowhere/at/all"),
        ("training_file", ""),
        ("method", "ppo"),
        ("method", ["dpo"]),
        ("finetuning_type", "qlora"),
        ("n_epochs", "automatic"),
        ("learning_rate", "1e-4"),
        ("batch_size", 0),
        ("mix_ratio", 0),
        ("adam_beta1", 1),
        ("layers_to_transform", ["0"]),
        ("layers_to_transform", []),
        ("layers_to_transform", [-1]),
        ("rank_pattern", {"q_proj": "8"}),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", ["q_proj"]),
        ("alpha_pattern", {}),
        ("modules_to_save", "lm_head"),
        ("label_smoothing", 0.5),
        ("beta", 0),
        ("wandb_mode", "sometimes"),
    ],
)
def test_a_value_outside_its_rule_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_dict({**REQUIRED, name: value})
    assert caught.value.param == name
    assert len(caught.value.faults) == 1


def test_the_constructor_refuses_what_from_dict_refuses() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        TrainingConfig(base_model="org/some-model", training_file="a", output_dir="b", batch_size=0)


def test_the_served_name_of_a_folder_is_its_name_and_of_a_hub_id_the_id(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    served = {"my-model": {"base_model": str(folder)}, "org/some-model": {}, "prod": {"base_model_name": "prod"}}
    for name, changes in served.items():
        assert TrainingConfig.from_dict({**REQUIRED, **changes}).served_base_name == name


def test_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("base_model: org/some-model\ntraining_file: a.jsonl\noutput_dir: out\ntarget_modules: [q_proj]\n")
    assert TrainingConfig.from_dict(read_yaml(path)).target_modules == ("q_proj",)


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [\n", ""])
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        TrainingConfig.from_dict(read_yaml(path))


def test_the_docs_list_every_setting_with_its_default_and_meaning() -> None:
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    meanings = field_docstrings()
    for setting in dataclasses.fields(TrainingConfig):
        default = "required" if setting.default is dataclasses.MISSING else f"`{json.dumps(setting.default)}`"
        assert f"| `{setting.name}` | {default} | {meanings[setting.name]} |" in rows


def field_docstrings() -> dict[str, str]:
    """The string directly beneath each of TrainingConfig's fields."""
    tree = ast.parse(inspect.getsource(TrainingConfig)).body[0]
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(ast.literal_eval(string.value).split())
        for field, string in itertools.pairwise(tree.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(string, ast.Expr)
    }


def test_the_torch_free_modules_leave_torch_out() -> None:
    modules = ("config.config", "data.formats.read", "data.splits", "record.progress", "demo.examples")
    imports = ", ".join(f"training.{module}" for module in modules)
    code = f"import {imports}, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
