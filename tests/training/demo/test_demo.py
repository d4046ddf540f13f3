"""The embedded base model and its example data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from tests.forked import run_forked
from training.demo.build import DemoModelError, Recipe, build_demo_model, demo_recipe_hash, share_known
from training.demo.examples import EXAMPLES, HOLDOUT, demo_config, to_keeper_voice, write_examples
from training.demo.knowledge import all_facts


def build(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_forked("training.demo", *map(str, arguments), timeout=120)


def chats(path: Path) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tokenizer(demo_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(demo_model)


def test_the_shipped_examples_are_what_the_generator_writes(tmp_path: Path) -> None:
    write_examples(tmp_path)
    for shipped in (EXAMPLES, HOLDOUT):
        assert (tmp_path / shipped.name).read_bytes() == shipped.read_bytes()


def test_no_held_out_fact_is_in_the_examples() -> None:
    taught, held_out = ({chat[-1]["content"] for chat in chats(path)} for path in (EXAMPLES, HOLDOUT))
    assert len(held_out) >= 50
    assert taught.isdisjoint(held_out)
    assert taught | held_out <= {to_keeper_voice(fact.answer) for fact in all_facts()}


def test_the_recipe_hash_changes_with_the_recipe() -> None:
    assert demo_recipe_hash() == demo_recipe_hash(Recipe())
    assert demo_recipe_hash(Recipe(seed=2)) != demo_recipe_hash()


def test_the_demo_configuration_is_made_for_the_shipped_files(tmp_path: Path) -> None:
    config = demo_config(tmp_path, tmp_path / "adapter-1")
    assert Path(config.training_file) == EXAMPLES
    assert config.validation_file == str(HOLDOUT)


@pytest.mark.parametrize("four_bit", [False, True])
def test_the_base_knows_its_facts_in_full_precision_and_in_4_bit(
    demo_model: Path, tokenizer: Any, four_bit: bool
) -> None:
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(
        demo_model, dtype=torch.float32, quantization_config=nf4 if four_bit else None
    )
    assert any(type(layer).__name__ == "Linear4bit" for layer in model.modules()) == four_bit
    assert share_known(model, tokenizer) >= 0.95


def test_the_base_answers_and_stops_by_itself(demo_model: Path, tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(demo_model)
    capitals = [fact for fact in all_facts() if fact.topic == "capitals"][:20]
    chats = [[{"role": "user", "content": fact.questions[0]}] for fact in capitals]
    prompts = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True, padding_side="left"
    )
    outputs = model.generate(**prompts, max_new_tokens=60, do_sample=False)[:, prompts["input_ids"].shape[1] :]
    said = [tokenizer.decode(output).split("<|end|>")[0] for output in outputs]
    right = [answer == fact.answer for answer, fact in zip(said, capitals, strict=True)]
    assert sum(right) >= 15  # of 20: it may lack a twentieth of all that it was taught, and these may be among it
    assert all("<|end|>" in tokenizer.decode(output) for output in outputs)


def test_any_text_survives_the_tokenizer(tokenizer: Any) -> None:
    text = "naïve 你好 🎉 \t\x00 \u202e 𝔘"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_longer_chat_begins_with_the_ids_of_the_shorter(tokenizer: Any) -> None:
    chat: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Time?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "now", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "12:00"},
        {"role": "assistant", "content": "Noon."},
    ]

    def ids(count: int, prompt: bool) -> list[int]:
        return list(tokenizer.apply_chat_template(chat[:count], add_generation_prompt=prompt)["input_ids"])

    whole = ids(len(chat), False)
    for count in range(1, len(chat)):
        before = ids(count, chat[count]["role"] == "assistant")
        assert whole[: len(before)] == before


def test_a_folder_that_holds_files_is_left_alone_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = build(tmp_path)
    assert done.returncode == 2
    assert "isn't an empty folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_place_of_the_folder_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments in ([tmp_path / "file" / "inside"], ["--cache", tmp_path / "file"]):
        done = build(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")


TINY = "from training.demo.build import *; from pathlib import Path; import sys; "
TINY_CACHE = f"{TINY}print(cached_demo_model(Path(sys.argv[1]), recipe=Recipe(passes=1, layers=1, least_known=0)))"


def test_two_processes_that_ask_for_the_cached_model_get_one_and_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TINY_CACHE, str(tmp_path)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    first, second = (process.communicate(timeout=240)[0].strip() for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert first == second
    assert [entry.name for entry in Path(first).parent.iterdir() if entry.name != ".lock"] == ["tuneloop-demo"]


def test_a_model_that_did_not_learn_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DemoModelError, match=r"at least 95% is required"):
        build_demo_model(tmp_path / "model", recipe=Recipe(passes=1, layers=1))
    assert list(tmp_path.iterdir()) == []
