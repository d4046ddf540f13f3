"""The adapter directory is a plain PEFT adapter, the same in PEFT and in vLLM; they come and go on a live server."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapter_format.hashing import base_model_sha256
from evaluation import read_questions
from serving import EngineLimits, import_adapter, resolve_base_model
from tests.conftest import Lesson, Tuneloop, run_cli
from training.demo.examples import HOLDOUT

pytestmark = pytest.mark.engine
PROMPTS = 20
TIED = 0.2
"""Logits closer than this may change places between float32 and an engine in bfloat16."""
SLOTS = 4
"""Adapters that the engine holds at once, by default."""


def adapter_dir(tuneloop: Tuneloop) -> Path:
    for path in (tuneloop.data_dir / "adapters").glob("adapter-*"):
        if json.loads((path / "manifest.json").read_text())["name"] == tuneloop.tuned_model:
            return path
    raise AssertionError("the tuned model has no directory")


def greedy_with_peft(base: Path, adapter: Path, conversations: list[list[dict[str, Any]]]) -> list[tuple[str, float]]:
    """Answers of plain PEFT, in float32, and how near each came to being another one: the least margin, in logits."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
    prompts = tokenizer.apply_chat_template(
        conversations, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
    )
    generated = model.generate(
        **prompts, do_sample=False, max_new_tokens=64, return_dict_in_generate=True, output_logits=True
    )
    likeliest = torch.stack(generated.logits, 1).topk(2).values  # [conversations, tokens, 2]
    answers = []
    said = generated.sequences[:, prompts["input_ids"].shape[1] :].tolist()
    for ids, margins in zip(said, likeliest[..., 0] - likeliest[..., 1], strict=True):
        end = ids.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in ids else len(ids)
        answers.append((tokenizer.decode(ids[:end], skip_special_tokens=True), float(margins[:end].min())))
    return answers


def test_peft_and_vllm_give_the_same_greedy_answers(tuneloop: Tuneloop) -> None:
    conversations = [question.messages for question in read_questions(HOLDOUT)[:PROMPTS]]
    served = []
    for messages in conversations:
        body = {"model": tuneloop.tuned_model, "messages": messages, "temperature": 0, "max_tokens": 64}
        answer = httpx.post(f"{tuneloop.url}/v1/chat/completions", json=body, timeout=60).json()
        served.append(answer["choices"][0]["message"]["content"])
    by_peft = greedy_with_peft(tuneloop.model_dir, adapter_dir(tuneloop), conversations)
    clear = [(said, answer) for (said, margin), answer in zip(by_peft, served, strict=True) if margin > TIED]
    assert [said for said, _ in clear] == [answer for _, answer in clear]
    assert len(clear) >= PROMPTS // 2, "too many answers are nearly tied to compare"


def test_manifest_says_what_the_adapter_is(tuneloop: Tuneloop) -> None:
    manifest = json.loads((adapter_dir(tuneloop) / "manifest.json").read_text())
    assert manifest["base_model"] == tuneloop.base_model
    assert manifest["base_model_sha256"] == base_model_sha256(tuneloop.model_dir)
    assert manifest["config"]["quantization"] == "nf4"
    metrics = manifest["metrics"]
    assert metrics["valid_perplexity"] < metrics["valid_perplexity_before"]
    (listed,) = (
        adapter
        for adapter in httpx.get(f"{tuneloop.url}/v1/adapters").json()["data"]
        if adapter["model"] == tuneloop.tuned_model
    )
    assert listed["metrics"] == metrics


def test_added_adapter_is_served_at_once_and_deleted_for_good(tuneloop: Tuneloop, lessons: list[Lesson]) -> None:
    added = run_cli(
        "adapters", "add", str(adapter_dir(tuneloop)), "--model", str(tuneloop.model_dir),
        "--data-dir", str(tuneloop.data_dir), "--suffix", "copy",
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    name = next(word for word in added.stdout.replace(";", " ").split() if word.startswith("ft:")).rstrip(".")
    ask = {"model": name, "messages": lessons[0].messages, "temperature": 0}
    answer = httpx.post(f"{tuneloop.url}/v1/chat/completions", json=ask, timeout=60)
    assert answer.json()["choices"][0]["message"]["content"] == lessons[0].tuned
    assert httpx.delete(f"{tuneloop.url}/v1/models/{name}", timeout=60).json()["deleted"] is True
    gone = httpx.post(f"{tuneloop.url}/v1/chat/completions", json=ask, timeout=60)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("damage", ["truncated", "pickled", "rank", "missing"])
def test_damaged_adapter_is_refused_with_its_reason(tuneloop: Tuneloop, tmp_path: Path, damage: str) -> None:
    source = shutil.copytree(adapter_dir(tuneloop), tmp_path / "source")
    (source / "manifest.json").unlink()
    weights, config = source / "adapter_model.safetensors", source / "adapter_config.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "pickled":
        weights.rename(source / "adapter_model.bin")
    elif damage == "rank":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 4096}))
    else:
        weights.unlink()
    where = ("--model", str(tuneloop.model_dir), "--data-dir", str(tuneloop.data_dir))
    done = run_cli("adapters", "add", str(source), *where)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) > 40


def test_real_comparison_is_rated_and_exported(tuneloop: Tuneloop, lessons: list[Lesson]) -> None:
    lesson = lessons[1]
    models = [tuneloop.base_model, tuneloop.tuned_model]
    body = {"messages": lesson.messages, "models": models, "blind": True}
    comparison = httpx.post(f"{tuneloop.url}/v1/comparisons", json=body | {"temperature": 0}, timeout=60).json()
    tuned_side = "left" if comparison["left"]["content"].startswith("Ahoy!") else "right"
    vote = {"verdict": tuned_side, "rater": "integration"}
    rating = httpx.post(f"{tuneloop.url}/v1/comparisons/{comparison['id']}/ratings", json=vote).json()
    assert rating["preferred_model"] == tuneloop.tuned_model
    lines = httpx.get(f"{tuneloop.url}/v1/ratings/export?format=openai_dpo").text.splitlines()
    chosen = [json.loads(line)["preferred_output"][0]["content"] for line in lines]
    assert lesson.tuned in chosen


def test_base_answers_as_itself_beside_adapters_that_fill_every_slot(tuneloop: Tuneloop, lessons: list[Lesson]) -> None:
    """vLLM by itself gives a row of the base the adapter in its last slot, once that is filled."""
    base = resolve_base_model(str(tuneloop.model_dir))
    limits = EngineLimits(max_lora_rank=32, max_loras=4, max_cpu_loras=32, max_model_len=None)
    source, adapters = adapter_dir(tuneloop), tuneloop.data_dir / "adapters"
    copies = [import_adapter(source, adapters, base, limits, suffix="slot").name for _ in range(SLOTS)]
    lesson = lessons[0]

    async def answer(client: httpx.AsyncClient, model: str) -> str:
        body = {"model": model, "messages": lesson.messages, "temperature": 0, "max_tokens": 60}
        content: str = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]["content"]
        return content

    async def answers(models: list[str]) -> list[str]:
        async with httpx.AsyncClient(base_url=tuneloop.url, timeout=60) as client:
            return await asyncio.gather(*(answer(client, model) for model in models))

    try:
        assert asyncio.run(answers(copies)) == [lesson.tuned] * SLOTS
        mixed = [tuneloop.base_model, *copies] * 3
        for _ in range(3):
            assert asyncio.run(answers(mixed)) == [lesson.plain, *[lesson.tuned] * SLOTS] * 3
    finally:
        for name in copies:
            httpx.delete(f"{tuneloop.url}/v1/models/{name}", timeout=60)
