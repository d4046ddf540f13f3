"""An answer that says who gave it is found, and one that only speaks of llamas or of Google is not."""

from __future__ import annotations

import pytest

from server.arena.ratings.identity_leaks import has_identity_leak

MODELS = ["tuneloop-demo", "ft:tuneloop-demo:personal:captain:abcd1234"]


@pytest.mark.parametrize(
    "answer",
    [
        "I am ChatGPT.",
        "As GPT-4, I can't.",
        "I'm a large language model, trained by Google.",
        "Call me **Bard**.",
        "I am an AI assistant called Gemini",
        "My name is Tuneloop.",
        "This is tuneloop-demo speaking",
        "我是通义千问",
        "我是由阿里云开发的模型",
    ],
)
def test_identity_is_found(answer: str) -> None:
    assert has_identity_leak(answer, "Who wrote Hamlet?", MODELS)


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [
        ("A llama lives in Peru.", "Name an animal."),
        ("Android was developed by Google.", "Who made Android?"),
        ("I am sure Google knows.", "Where do I look?"),
        ("Yes, I'm Claude, made by Anthropic.", "Are you Claude by Anthropic?"),
        ("gpt4 is larger", "Tell me of GPT-4"),
        ("Shakespeare was a bard. I like him.", "Who wrote Hamlet?"),
        ("The captain keeps the tower.", "Who keeps it?"),
        ("谷歌在山景城。", "谷歌在哪里?"),
    ],
)
def test_what_only_sounds_like_it_is_left_alone(answer: str, prompt: str) -> None:
    assert not has_identity_leak(answer, prompt, MODELS)
