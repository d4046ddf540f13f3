"""What PEFT says of an adapter is written down as the engine will be asked for it, and a run never fails of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapter_format.files import WEIGHTS_FILE
from adapter_format.hashing import base_model_sha256
from tests.forked import run_forked
from tests.training.runs import make_run
from tests.training.tiny_models import make_tiny_model
from training.result.parity import NoReferenceError, make_references, make_run_reference


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("parity") / "tiny-base")


def save_adapter(base: Path, directory: Path, *, seed: int = 1, zeroed: bool = False) -> Path:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=zeroed, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(directory)
    return directory


def the(found: dict[str, Any] | NoReferenceError) -> dict[str, Any]:
    assert not isinstance(found, NoReferenceError), found
    return found


@torch.no_grad()
def log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    return torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]


def test_reference_is_what_peft_says_with_and_without_each_adapter(base: Path, tmp_path: Path) -> None:
    adapters = [save_adapter(base, tmp_path / f"adapter-{seed}", seed=seed) for seed in (1, 2)]
    found = [the(one) for one in make_references(base, adapters)]
    for adapter, reference in zip(adapters, found, strict=True):
        bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        for prompt in reference["prompts"]:
            expected = log_probabilities(bare, prompt["token_ids"])
            assert torch.allclose(torch.tensor(prompt["base"]), expected, atol=2e-5)
        adapted = PeftModel.from_pretrained(bare, adapter)
        for prompt in reference["prompts"]:
            expected = log_probabilities(adapted, prompt["token_ids"])
            assert torch.allclose(torch.tensor(prompt["tuned"]), expected, atol=2e-5)
        assert any(prompt["tuned"] != prompt["base"] for prompt in reference["prompts"])
    assert found[0]["base_model_sha256"] == base_model_sha256(base)
    assert found[0]["dtype"] == "float32"


def test_token_ids_are_those_of_the_chat_template(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    (found,) = make_references(base, [save_adapter(base, tmp_path / "adapter")])
    conversations = the(found)["conversations"]
    for one in conversations:
        text = tokenizer.apply_chat_template(
            one["messages"], tokenize=False, add_generation_prompt=one["add_generation_prompt"]
        )
        assert one["token_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    said = [message["content"] for one in conversations for message in one["messages"]]
    assert {one["add_generation_prompt"] for one in conversations} == {True, False}
    assert any(text != text.strip() for text in said)
    assert any("你好" in text for text in said)
    assert any("🎉" in text for text in said)
    assert any(len(one["messages"]) > 2 for one in conversations)
    assert any(one["messages"][0]["role"] == "system" for one in conversations)


def test_base_without_a_chat_template_is_compared_on_texts_alone(base: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(base, tmp_path / "plain-base"))
    (plain / "chat_template.jinja").unlink()
    (found,) = make_references(plain, [save_adapter(base, tmp_path / "adapter")])
    assert the(found)["conversations"] == []
    assert len(the(found)["prompts"]) >= 3


def test_template_that_refuses_a_system_turn_leaves_the_other_conversations(base: Path, tmp_path: Path) -> None:
    strict = Path(shutil.copytree(base, tmp_path / "strict-base"))
    template = strict / "chat_template.jinja"
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    (found,) = make_references(strict, [save_adapter(base, tmp_path / "adapter")])
    roles = {message["role"] for one in the(found)["conversations"] for message in one["messages"]}
    assert roles == {"user", "assistant"}


def test_adapter_with_zeroed_b_gives_the_bases_own_numbers(base: Path, tmp_path: Path) -> None:
    (found,) = make_references(base, [save_adapter(base, tmp_path / "adapter", zeroed=True)])
    assert [prompt["tuned"] for prompt in the(found)["prompts"]] == [prompt["base"] for prompt in the(found)["prompts"]]


def test_broken_adapter_says_so_and_the_next_one_is_none_the_worse(base: Path, tmp_path: Path) -> None:
    good, broken, infinite = (save_adapter(base, tmp_path / name) for name in ("good", "broken", "infinite"))
    (broken / WEIGHTS_FILE).write_bytes((broken / WEIGHTS_FILE).read_bytes()[:-100])
    save_file(
        {name: values / 0 for name, values in load_file(infinite / WEIGHTS_FILE).items()}, infinite / WEIGHTS_FILE
    )
    first, second, third, fourth = make_references(base, [good, broken, infinite, good])
    assert isinstance(second, NoReferenceError)
    assert isinstance(third, NoReferenceError)
    assert "finite" in str(third)
    assert the(first)["prompts"] == the(fourth)["prompts"]


def test_command_prints_a_line_an_adapter(base: Path, tmp_path: Path) -> None:
    good = save_adapter(base, tmp_path / "good")
    done = run_forked("training.result.parity", str(base), str(good), str(tmp_path / "absent"))
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["adapter"] for line in told] == [str(good), str(tmp_path / "absent")]
    assert "prompts" in told[0]
    assert "adapter_model.safetensors" in told[1]["error"]


def test_command_says_what_is_wrong_with_the_base(tmp_path: Path) -> None:
    done = run_forked("training.result.parity", str(tmp_path), str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_run_in_4_bit_leaves_its_reference_in_the_manifest(base: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, base, max_steps=2, n_epochs=1, target_modules="all-linear")
    code, _, err = run.finish()
    assert code == 0, err
    text = (run.output_dir / "manifest.json").read_text(encoding="utf-8")
    (found,) = make_references(base, [run.output_dir])
    reference = json.loads(text)["parity_reference"]
    assert reference["conversations"] == the(found)["conversations"]
    assert reference["prompts"] == the(found)["prompts"]
    assert len(text.splitlines()) < 500, "a row of numbers stands on one line"


def test_run_that_can_make_none_says_why_and_goes_on(tmp_path: Path) -> None:
    base = SimpleNamespace(model=torch.nn.Linear(2, 2), folder=tmp_path, sha256="0" * 64)
    told: list[str] = []
    assert make_run_reference(base, tmp_path, SimpleNamespace(optimizer=None), told.append) is None
    assert len(told) == 1
    assert "no parity reference" in told[0]
