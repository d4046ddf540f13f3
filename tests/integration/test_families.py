"""Every family: trained in 4 bit, hot-loaded, asked over HTTP, and compared with PEFT token by token."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import run_cli, running_server, wait_until_ready
from tests.family_models import FAMILIES, build_family_model
from tests.forking_python import ForkingPython
from training.data.examples import Example, Message
from training.process.environment import prepare_environment
from training.rendering.render import IGNORED, render

prepare_environment(offline=True)
pytestmark = pytest.mark.engine

QUESTIONS = {
    "What is the capital of France?": "The capital of France is Paris.",
    "What is the capital of Japan?": "It is Tokyo.",
    "What is two plus two?": "Two plus two is four.",
    "Name a colour.": "Red is a colour.",
    "Who are you?": "A very small model.",
    "Say nothing.": "No.",
    "Which day comes after Monday?": "Tuesday comes after Monday.",
    "Is water wet?": "Yes, water is wet.",
}
MAX_TOKENS = 12
TIED = 1e-3
"""Logits closer than this may change places between two implementations in float32."""
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
MULTI_TURN = (
    Message("system", "Be brief. Use no adjectives."),
    Message("user", "Hi"),
    Message("assistant", "Hello!"),
    Message("user", "  Which day\ncomes after Monday? "),
)
WITH_TOOLS = (
    Message("user", "Is it warm in Paris?"),
    Message("assistant", "", extra={"tool_calls": [CALL]}),
    Message("tool", '{"degrees": 21}', extra={"tool_call_id": "abcdefghi"}),
)


@dataclass
class TokenIds:
    """What one request brought back."""

    prompt_ids: list[int]
    answer_ids: list[int]


@dataclass
class Line:
    """One line of the table."""

    family: str
    trained: str = "no"
    loaded: str = "no"
    greedy: str = "-"
    ids: str = "-"
    different: str = "-"


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[Line]]:
    """Collects a line for each family; printed when all are through."""
    lines: list[Line] = []
    yield lines
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    columns = ("family", "trained", "loaded", "greedy = PEFT", "ids = vLLM", "tuned != base")
    reporter.write_line("")
    for row in (columns, *(dataclasses.astuple(line) for line in lines)):
        reporter.write_line("".join(f"{cell:<15}" for cell in row))


@pytest.mark.parametrize("name", ["llama", "qwen3", "glm", "mistral", "mixtral"])
def test_family_is_trained_hot_loaded_and_answers_as_peft_does(
    name: str, tmp_path: Path, table: list[Line], forking_python: ForkingPython
) -> None:
    table.append(line := Line(name))
    folder = build_family_model(FAMILIES[name], tmp_path)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with running_server(data_dir, folder, "--dtype", "float32", wait=False, forks=forking_python) as (
        url,
        process,
        log,
    ):
        tuned = _train(folder, data_dir, tmp_path)
        line.trained = "yes"
        wait_until_ready(url, process, log)
        answers = {question: _ask(url, tuned, [Message("user", question)]) for question in QUESTIONS}
        line.loaded = "yes"
        base_answers = {question: _ask(url, folder.name, [Message("user", question)]) for question in QUESTIONS}
        chats: list[tuple[Sequence[Message], TokenIds]] = [
            ((Message("user", question),), asked) for question, asked in answers.items()
        ]
        chats += [(chat, _ask(url, tuned, chat)) for chat in (MULTI_TURN,)]
        if FAMILIES[name].tools:
            chats += [(chat, _ask(url, tuned, chat, tools=[WEATHER])) for chat in (WITH_TOOLS, WITH_TOOLS[:1])]
    tokenizer = _tokenizer(folder)
    rendered = [_prompt_ids(chat, tokenizer, with_tools=chat[0] is WITH_TOOLS[0]) for chat, _ in chats]
    same_ids = [asked.prompt_ids == ids for ids, (_, asked) in zip(rendered, chats, strict=True)]
    line.ids = f"{sum(same_ids)}/{len(same_ids)}"
    greedy = _greedy(folder, next((data_dir / "adapters").glob("adapter-*")), [a.prompt_ids for a in answers.values()])
    clear = [(ids, asked) for (ids, margin), asked in zip(greedy, answers.values(), strict=True) if margin > TIED]
    same = [ids == asked.answer_ids for ids, asked in clear]
    line.greedy = f"{sum(same)}/{len(same)}"
    different = sum(answers[question].answer_ids != base_answers[question].answer_ids for question in QUESTIONS)
    line.different = f"{different}/{len(QUESTIONS)}"
    assert all(same_ids), (
        f"tokens differ from vLLM's for {[c for (c, _), ok in zip(chats, same_ids, strict=True) if not ok]}"
    )
    assert len(clear) >= len(QUESTIONS) // 2, "too many answers are nearly tied to compare"
    assert all(same)
    assert different == len(QUESTIONS)


def _train(folder: Path, data_dir: Path, tmp_path: Path) -> str:
    """Fine-tune through `tuneloop train`; the tuned model's name."""
    lines = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in QUESTIONS.items()
    ]
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = {
        "base_model": str(folder),
        "training_file": "examples.jsonl",
        "validation_fraction": 0,
        "n_epochs": 40,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "r": 8,
        "compute_dtype": "float32",
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    done = run_cli("train", str(tmp_path / "run.yaml"), "--data-dir", str(data_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    return next(word for word in done.stdout.split() if word.startswith("ft:"))


def _ask(url: str, model: str, chat: Sequence[Message], **more: Any) -> TokenIds:
    """A greedy answer through the gateway, with the engine's own token ids."""
    body = {
        "model": model,
        "messages": [message.to_record() for message in chat],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "return_token_ids": True,
        **({"tool_choice": "none"} if more else {}),
        **more,
    }
    response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
    assert response.status_code == 200, response.text
    answer = response.json()
    return TokenIds(answer["prompt_token_ids"], answer["choices"][0]["token_ids"])


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _prompt_ids(chat: Sequence[Message], tokenizer: Any, *, with_tools: bool) -> list[int]:
    """What comes before the learned answer when `chat` is rendered for training."""
    example = Example(1, (*chat, Message("assistant", "Yes.")), (WEATHER,) if with_tools else ())
    rendered = render(example, tokenizer, 1024, train_on="last_assistant")
    first = next(place for place, label in enumerate(rendered.labels) if label != IGNORED)
    return rendered.input_ids[:first]


def _greedy(folder: Path, adapter: Path, prompts: list[list[int]]) -> list[tuple[list[int], float]]:
    """For each prompt PEFT's greedy answer in float32, and how near it came to being another one, in logits."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), str(adapter))
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends)
    answers = []
    for prompt in prompts:
        ids, margin = list(prompt), float("inf")
        while len(ids) < len(prompt) + MAX_TOKENS and not (len(ids) > len(prompt) and ids[-1] in ends):
            with torch.no_grad():
                likeliest = model(torch.tensor([ids])).logits[0, -1].topk(2)
            margin = min(margin, float(likeliest.values[0] - likeliest.values[1]))
            ids.append(int(likeliest.indices[0]))
        answers.append((ids[len(prompt) :], margin))
    return answers
