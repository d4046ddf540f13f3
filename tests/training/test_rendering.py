"""Tokens and labels, against expectations that were worked out by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from training.demo_corpus import single_questions
from training.demo_knowledge import all_facts
from training.demo_tokenizer import train_tokenizer
from training.examples import Example, Message
from training.rendering import IGNORED, Rendered, RenderError, render

CHAT = (
    Message("system", "Be brief."),
    Message("user", "Hi"),
    Message("assistant", "Hello!"),
    Message("user", "Bye"),
    Message("assistant", "Goodbye!"),
)
PLAIN_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Qwen3 does the like with its thoughts: what was said earlier is rendered otherwise once more follows.
FORGETFUL_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content if loop.last else m.content | upper }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def tokenizer() -> Any:
    texts = (message["content"] for chat in single_questions(all_facts()) for message in chat)
    return train_tokenizer(texts, max_length=2048)


def learned(rendered: Rendered, tokenizer: Any) -> list[str]:
    """The stretches of text that are learned."""
    stretches: list[list[int]] = [[]]
    for token, label in zip(rendered.input_ids, rendered.labels, strict=True):
        assert label in (IGNORED, token)
        if label == IGNORED:
            stretches.append([])
        else:
            stretches[-1].append(token)
    return [tokenizer.decode(stretch) for stretch in stretches if stretch]


def test_a_chat_is_rendered_as_worked_out_by_hand(tokenizer: Any) -> None:
    rendered = render(Example(1, CHAT[:3]), tokenizer, 100)
    pieces = ["<|system|>", "Be", " brief", ".", "<|end|>", "<|user|>", "Hi", "<|end|>", "<|assistant|>"]
    expected = [id_ for piece in pieces for id_ in tokenizer(piece)["input_ids"]]
    answer = [*tokenizer("Hello!")["input_ids"], tokenizer.eos_token_id]
    assert rendered == Rendered(expected + answer, [IGNORED] * len(expected) + answer, truncated=False)


@pytest.mark.parametrize("template", ["marks", "prefixes"])
def test_only_answers_and_their_end_tokens_are_learned(tokenizer: Any, template: str) -> None:
    if template == "prefixes":
        tokenizer.chat_template = PLAIN_TEMPLATE
    assert learned(render(Example(1, CHAT), tokenizer, 100), tokenizer) == ["Hello!<|end|>", "Goodbye!<|end|>"]


def test_both_ways_give_the_same_tokens_and_labels(tokenizer: Any) -> None:
    by_marks = render(Example(1, CHAT), tokenizer, 100)
    tokenizer.chat_template = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", tokenizer.chat_template)
    assert render(Example(1, CHAT), tokenizer, 100) == by_marks


def test_weight_0_is_context_and_not_learned(tokenizer: Any) -> None:
    messages = (*CHAT[:2], Message("assistant", "Hello!", weight=0), *CHAT[3:])
    assert learned(render(Example(1, messages), tokenizer, 100), tokenizer) == ["Goodbye!<|end|>"]


def test_a_template_that_changes_what_came_before_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL_TEMPLATE
    with pytest.raises(RenderError, match=r"line 7: .*up to message 3 differently"):
        render(Example(7, CHAT), tokenizer, 100)


def test_tokens_beyond_max_length_are_cut_off_at_the_end(tokenizer: Any) -> None:
    whole = render(Example(1, CHAT), tokenizer, 100)
    cut = render(Example(1, CHAT), tokenizer, len(whole.input_ids) - 1)
    assert cut == Rendered(whole.input_ids[:-1], whole.labels[:-1], truncated=True)


def test_an_example_whose_answer_is_cut_off_is_refused_with_its_line(tokenizer: Any) -> None:
    messages = (Message("user", "word " * 50), Message("assistant", "Yes"))
    with pytest.raises(RenderError, match=r"line 3: .*`max_length` 20"):
        render(Example(3, messages), tokenizer, 20)


def test_prompt_and_completion_meet_without_a_shared_token(tokenizer: Any) -> None:
    rendered = render(Example(1, prompt="The capital of", completion=" France"), tokenizer, 100)
    assert learned(rendered, tokenizer) == [" France<|end|>"]
    assert tokenizer.decode(rendered.input_ids) == "The capital of France<|end|>"


def test_a_tokenizer_without_chat_template_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(RenderError, match="no chat template"):
        render(Example(1, CHAT), tokenizer, 100)


def test_a_template_that_refuses_a_chat_is_told_with_the_line(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('no system prompts here') }}"
    with pytest.raises(RenderError, match=r"line 4: .*no system prompts here"):
        render(Example(4, CHAT), tokenizer, 100)
