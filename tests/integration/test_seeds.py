"""Seeds on the real engine: long prompts and many at once are served, and drawn again with the same seed.

vLLM reads at most 2048 tokens in a step, so prompts that hold more together are read in parts. What is compared is one
answer with another: with as many tokens in a batch as another time, or as few, not every sum ends in the same bits, and
a draw on the edge falls to the other side. Of many answers a few may.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import openai
import pytest

from tests.conftest import Tuneloop

pytestmark = pytest.mark.engine

STEP = 2048
"""Tokens that vLLM reads in a step on a processor."""
SENTENCE = "The river flows by the old stone mill. "
ANYTHING = {"allowed_token_ids": list(range(300, 900)), "ignore_eos": True}
"""Leaves out what the base learned to say: what is left is about as likely, whatever the machine that built it."""


@pytest.fixture(autouse=True)
def _same_engine(tuneloop: Tuneloop) -> Iterator[None]:
    """The engine is afterwards the process that it was before."""
    record = tuneloop.data_dir / "engine" / "engine.json"
    before = json.loads(record.read_text())
    yield
    assert json.loads(record.read_text()) == before


class Asking:
    """A model through chat or completions; its answers are drawn hot."""

    def __init__(self, client: openai.OpenAI, model: str, route: str) -> None:
        self._client, self._model, self._route = client, model, route
        self.prompt_tokens = 0
        """Of the last answer."""

    def ask(self, prompt: str, seed: int, *, n: int = 1, tokens: int = 1) -> tuple[str, ...]:
        """The texts of `n` answers."""
        common = {"model": self._model, "seed": seed, "n": n, "temperature": 2.0, "max_tokens": tokens}
        if self._route == "chat":
            messages = [{"role": "user", "content": prompt}]
            chat = self._client.chat.completions.create(messages=messages, extra_body=ANYTHING, **common)  # type: ignore[call-overload]
            self.prompt_tokens = chat.usage.prompt_tokens
            return tuple(choice.message.content or "" for choice in chat.choices)
        plain = self._client.completions.create(prompt=prompt, extra_body=ANYTHING, **common)  # type: ignore[call-overload]
        self.prompt_tokens = plain.usage.prompt_tokens
        return tuple(choice.text for choice in plain.choices)

    def ask_at_once(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        """One answer to each, drawn with the prompt's number for a seed."""
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(self.ask, prompts, range(len(prompts))))


@pytest.fixture(params=product(("base", "tuned"), ("chat", "completions")), ids="-".join)
def asking(request: pytest.FixtureRequest, client: openai.OpenAI, tuneloop: Tuneloop) -> Asking:
    which, route = request.param
    return Asking(client, tuneloop.base_model if which == "base" else tuneloop.tuned_model, route)


def test_long_prompts_at_once_are_answered_as_alone(asking: Asking) -> None:
    prompts = [f"{number} {SENTENCE * _sentences(asking, STEP * 5 // 8)}" for number in range(10)]
    together = asking.ask_at_once(prompts)
    assert asking.prompt_tokens > STEP / 2
    alone = [asking.ask(prompt, seed) for seed, prompt in enumerate(prompts)]
    assert _equal(together, alone) >= 8


@pytest.mark.parametrize("asking", [("base", "chat"), ("tuned", "completions")], indirect=True, ids="-".join)
def test_many_short_prompts_at_once_are_answered_as_another_time(asking: Asking) -> None:
    prompts = [f"{number} {SENTENCE * _sentences(asking, STEP // 16)}" for number in range(40)]
    once, again = (asking.ask_at_once(prompts) for _ in range(2))
    assert asking.prompt_tokens * len(prompts) > STEP
    assert _equal(once, again) >= 32


def test_other_seeds_draw_other_answers(asking: Asking) -> None:
    sharing_their_lowest_bits = [7 + (number << 32) for number in range(4)] + [7 - 2**63]
    for seeds in (range(5), sharing_their_lowest_bits):
        assert len({asking.ask(SENTENCE, seed, tokens=8) for seed in seeds}) >= 3


def test_the_answers_of_a_seed_differ_and_come_again(asking: Asking) -> None:
    once, again = (asking.ask(SENTENCE, 2**63 - 1, n=8, tokens=8) for _ in range(2))
    assert len(set(once)) >= 4
    assert _equal(once, again) >= 4


def _sentences(asking: Asking, tokens: int) -> int:
    """How often the sentence may be said in a prompt of about so many tokens."""
    counts = []
    for times in (1, 2):
        asking.ask(SENTENCE * times, 0)
        counts.append(asking.prompt_tokens)
    return tokens // (counts[1] - counts[0])


def _equal(one: Sequence[object], other: Sequence[object]) -> int:
    return sum(mine == its for mine, its in zip(one, other, strict=True))
