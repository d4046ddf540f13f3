"""`python -m training RUN_DIR` on the real embedded base: what it makes, refuses and survives."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.runs import NAME, Run, make_run
from training.config.config import TrainingConfig
from training.demo.examples import EXAMPLES, HOLDOUT
from training.record.progress import ProgressEvent


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_manifest_tells_where_the_adapter_comes_from(demo_run: Run, demo_model: Path) -> None:
    manifest = json.loads((demo_run.output_dir / "manifest.json").read_text())
    names = {entry.name for entry in demo_run.output_dir.iterdir()}
    weights_hash = sha256(demo_model / "model.safetensors")
    assert names == {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}
    assert (manifest["manifest_version"], manifest["id"], manifest["name"]) == (1, demo_run.output_dir.name, NAME)
    assert abs(manifest["created_at"] - time.time()) < 3600
    assert manifest["base_model"] == "tuneloop-demo"
    assert manifest["base_model_sha256"] == hashlib.sha256(f"model.safetensors {weights_hash}\n".encode()).hexdigest()
    assert manifest["training_file_sha256"] == sha256(EXAMPLES)
    assert TrainingConfig.from_dict(manifest["config"]).output_dir == str(demo_run.output_dir)
    assert manifest["files"] == {
        name: {"sha256": sha256(demo_run.output_dir / name), "bytes": (demo_run.output_dir / name).stat().st_size}
        for name in names - {"manifest.json"}
    }
    assert manifest["versions"].keys() == {"torch", "transformers", "peft", "bitsandbytes"}


def test_the_metrics_tell_what_was_learned(demo_run: Run) -> None:
    metrics = json.loads((demo_run.output_dir / "manifest.json").read_text())["metrics"]
    assert metrics["valid_loss"] < 0.1 < 1 < metrics["valid_loss_before"]
    assert metrics["valid_perplexity"] == pytest.approx(2.718281828 ** metrics["valid_loss"])
    assert metrics["examples"] == len(EXAMPLES.read_text().splitlines())
    assert metrics["steps"] == 8 * -(-metrics["examples"] // 16)
    assert metrics["trained_tokens"] > 8 * metrics["examples"] * 10


def test_events_tell_the_run_from_start_to_finish(demo_run: Run) -> None:
    events = demo_run.events
    out = demo_run.directory.with_name("out").read_text()
    assert [ProgressEvent.from_json(line) for line in out.splitlines()] == events
    steps = [event for event in events if event.type == "step"]
    validations = [event for event in events if event.type == "validation"]
    assert events[0].type == "started"
    assert [event.step for event in steps] == list(range(1, (steps[0].total_steps or 0) + 1))
    assert validations[0].step == 0
    assert validations[-1].step == steps[-1].step
    assert len(validations) >= 4
    assert steps[-1].remaining_s == 0
    for event in steps:
        assert event.train_loss is not None
        assert 0 <= (event.train_mean_token_accuracy or 0) <= 1
        assert (event.tokens_per_second or 0) > 0
    assert any(event.type == "checkpoint" for event in events)
    assert events[-1].type == "finished"
    assert events[-1].details["output_dir"] == str(demo_run.output_dir)


def test_held_out_questions_are_answered_in_the_new_voice_and_rightly(demo_run: Run, demo_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(demo_model, dtype=torch.float32)
    before = exact_match(model, demo_model)
    after = exact_match(PeftModel.from_pretrained(model, demo_run.output_dir), demo_model)
    assert before < 0.05
    assert after >= 0.7  # 0.87 to 0.98 were seen, each on a base of another seed


def exact_match(model: Any, demo_model: Path) -> float:
    tokenizer = AutoTokenizer.from_pretrained(demo_model)
    chats = [json.loads(line)["messages"] for line in HOLDOUT.read_text().splitlines()]
    prompts = tokenizer.apply_chat_template(
        [chat[:-1] for chat in chats], add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
    )
    outputs = model.generate(**prompts, max_new_tokens=60, do_sample=False)[:, prompts["input_ids"].shape[1] :]
    answers = tokenizer.batch_decode(outputs, skip_special_tokens=True)
    right = [bool(answer == chat[-1]["content"]) for answer, chat in zip(answers, chats, strict=True)]
    return sum(right) / len(right)


def test_plain_peft_finds_the_base_from_the_adapter_config(demo_run: Run, demo_model: Path) -> None:
    config = json.loads((demo_run.output_dir / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(demo_model)


def test_a_finished_run_is_not_run_again(demo_run: Run, tmp_path: Path) -> None:
    before = sha256(demo_run.output_dir / "adapter_model.safetensors")
    again = Run(shutil.copytree(demo_run.directory, tmp_path / "run"), demo_run.output_dir)
    code, _, err = again.finish()
    assert code == 2
    assert "already exists" in err
    assert (again.failure.code, again.failure.param) == ("output_exists", "output_dir")
    assert sha256(demo_run.output_dir / "adapter_model.safetensors") == before


def test_no_config_is_exit_code_2(tmp_path: Path) -> None:
    code, _, err = Run(tmp_path, tmp_path / "out").finish()
    assert code == 2
    assert "config.json" in err
    assert "Traceback" not in err


def test_a_missing_run_directory_is_exit_code_2(tmp_path: Path) -> None:
    code, _, err = Run(tmp_path / "nowhere", tmp_path / "out").finish()
    assert code == 2
    assert "nowhere" in err
    assert "Traceback" not in err


def test_faults_in_the_examples_are_told_with_their_lines(tmp_path: Path, demo_model: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"messages": []}\n{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    run = make_run(tmp_path, demo_model, training_file=str(data))
    code, _, err = run.finish()
    assert code == 2
    assert "line 1" in err
    assert "line 3" in err
    assert run.failure.code == "invalid_data"
    assert [fault["line"] for fault in run.failure.details["faults"]] == [1, 3]


def test_examples_that_do_not_fit_max_length_are_told_with_their_lines(tmp_path: Path, demo_model: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(json.dumps({"prompt": "word " * count, "completion": "x"}) + "\n" for count in (1, 99, 1, 99))
    )
    run = make_run(tmp_path, demo_model, training_file=str(data), max_length=32)
    code, _, _ = run.finish()
    assert code == 2
    assert [fault["line"] for fault in run.failure.details["faults"]] == [2, 4]


def test_tool_calls_that_the_base_does_not_render_are_told_with_their_lines(tmp_path: Path, demo_model: Path) -> None:
    base = tmp_path / "without_tools"
    shutil.copytree(demo_model, base)
    (base / "chat_template.jinja").write_text(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    call = {"id": "c1", "type": "function", "function": {"name": "quote", "arguments": "{}"}}
    asked = {"role": "user", "content": "What is the price of a share?"}
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(
            json.dumps({"messages": [asked, {"role": "assistant", "content": said, **calls}]}) + "\n"
            for said, calls in ((None, {"tool_calls": [call]}), ("Ten.", {}), (None, {"tool_calls": [call]}))
        )
    )
    run = make_run(tmp_path, base, training_file=str(data), validation_fraction=0)
    code, _, err = run.finish()
    assert code == 2
    assert "line 3: the base model's chat template doesn't render the call of \"quote\" in message 2" in err
    assert (run.failure.code, [fault["line"] for fault in run.failure.details["faults"]]) == ("invalid_data", [1, 3])


def test_a_base_without_safetensors_is_refused(tmp_path: Path, demo_model: Path) -> None:
    base = tmp_path / "pickled"
    shutil.copytree(demo_model, base, ignore=shutil.ignore_patterns("*.safetensors"))
    (base / "pytorch_model.bin").write_bytes(os.urandom(64))
    run = make_run(tmp_path, base)
    code, _, err = run.finish()
    assert code == 2
    assert "no *.safetensors" in err
    assert (run.failure.code, run.failure.param) == ("invalid_base_model", "base_model")


def test_layers_that_the_base_lacks_are_refused_with_those_that_it_has(tmp_path: Path, demo_model: Path) -> None:
    run = make_run(tmp_path, demo_model, target_modules=["c_attn"])
    code, _, err = run.finish()
    assert code == 2
    assert "q_proj" in err
    assert run.failure.param == "target_modules"


@pytest.fixture
def broken_base(tmp_path: Path, demo_model: Path) -> Path:
    """A base whose every loss is NaN."""
    base = tmp_path / "broken"
    shutil.copytree(demo_model, base)
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    return base


def test_a_run_whose_loss_is_no_number_ends_at_once_without_an_adapter(tmp_path: Path, broken_base: Path) -> None:
    run = make_run(tmp_path, broken_base, validation_file=None, validation_fraction=0)
    code, _, err = run.finish()
    assert code == 1
    assert "Lower `learning_rate`" in err
    assert run.failure.code == "diverged"
    assert not any(event.type == "step" for event in run.events)
    assert list(run.output_dir.parent.iterdir()) == []


def test_a_base_that_is_broken_before_training_is_refused(tmp_path: Path, broken_base: Path) -> None:
    run = make_run(tmp_path, broken_base)
    code, _, err = run.finish()
    assert code == 2
    assert "before training" in err
    assert run.failure.code == "invalid_base_model"
