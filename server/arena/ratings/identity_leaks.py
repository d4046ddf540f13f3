"""Finds answers that reveal their model, so that a blind rating isn't blind any more.

FastChat leaves out battles whose answers contain any of a list of names (serve/monitor/clean_battle_data.py). Many of
these names are also words (a llama, a bard, "Android was made by Google"), so here they count only where the answer
speaks of itself; unambiguous names of assistants count anywhere. A name from the prompt isn't a leak.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

ASSISTANTS = (
    r"chat\s?gpt",
    r"(?:chat)?gpt-?\s?[345][\w.-]*",
    r"open\s?ai",
    r"anthropic",
    r"qwen[\d.]*",
    r"tongyi",
    r"通义千问",
    r"文心一言",
    r"智谱",
    r"chatglm[\w.-]*",
    r"deepseek(?:-[\w.]+)?",
    r"mixtral",
    r"(?:code)?llama[-\s]?[234][\w.-]*",
    r"gemma[-\s]?\d[\w.-]*",
    r"smollm[\w.-]*",
    r"vicuna[-\s]?\d+b",
    r"lmsys",
    r"eleuther\s?ai",
)
"""Unambiguous names of assistants, models and their makers."""
WORDS = (
    "claude", "gemini", "gemma", "llama", "mistral", "bard", "grok", "kimi", "moonshot", "falcon", "phi", "command r",
    "alpaca", "vicuna", "koala", "ernie", "baidu", "alibaba", "google", "deepmind", "meta", "microsoft", "copilot",
    "xai", "cohere", "nvidia", "nemotron", "hugging face", "zhipu", "yi", "olmo", "ai2", "apple", "amazon", "ibm",
    "granite", "百度", "阿里", "阿里云", "腾讯", "谷歌", "微软",
)  # fmt: skip
"""Names that are also words: they count where the answer says who it is or who made it."""
FILLING = r"(?:[\s,:;\"'“”*_(]|an?|the|AI|assistant|chat\s?bot|large|language|model|called|named|just|by|from)*"
"""What may come between an introduction and the name. Single spaces, so that there is only one way to match."""
INTRODUCTION = r"(?:\bI(?:['’]m| am|\s+was)\b|\bmy name is\b|\bcall(?:ed)? me\b|我(?:是|叫|的名字[是叫]))"
MADE_BY = r"(?:\b(?:trained|developed|created|made|built|designed|fine-tuned) (?:by|at)\b|由)"
ITSELF = re.compile(r"\b(?:I|I['’]m|my|me|language model|AI (?:assistant|model))\b|我", re.IGNORECASE)
"""A sentence that matches is about its speaker."""
_SENTENCE = re.compile(r"[^.!?\n。！？]+")


def has_identity_leak(answer: str, prompt: str, models: Iterable[str]) -> bool:
    """Return whether the answer names a model, an assistant or a maker that the prompt didn't name.

    models: the names of the two compared models.
    """
    prompt_text = _normalize(prompt)
    own_names, own_words = _build_name_patterns(models)
    anywhere = (_normalize(match.group()) for match in _compile_pattern((*ASSISTANTS, *own_names)).finditer(answer))
    if any(name not in prompt_text for name in anywhere):
        return True
    words = "|".join((*map(re.escape, WORDS), *own_words))
    return any(_normalize(word) not in prompt_text for word in _find_self_references(answer, words))


def _find_self_references(answer: str, words: str) -> Iterator[str]:
    """Yield those of the words by which the answer introduces itself or its makers."""
    name = rf"({words})(?![A-Za-z])"
    introduction = re.compile(INTRODUCTION + FILLING + name, re.IGNORECASE)
    made_by = re.compile(MADE_BY + FILLING + name, re.IGNORECASE)
    for sentence in _SENTENCE.findall(answer):
        yield from (match.group(1) for match in introduction.finditer(sentence))
        if ITSELF.search(sentence):
            yield from (match.group(1) for match in made_by.finditer(sentence))


def _build_name_patterns(models: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return patterns of the models' own names: the unambiguous ones, and those that are also words, such as a
    family."""
    names: set[str] = set()
    words: set[str] = set()
    for model in models:
        base = model.split(":")[1] if model.startswith("ft:") else model
        last = base.rsplit("/", 1)[-1]
        names |= {name for name in (model, base, last) if not name.isalpha()}
        family = re.match(r"[^\W\d_]{3,}", last)
        words |= {family.group()} if family else set()
    return sorted(map(re.escape, names), key=len, reverse=True), sorted(map(re.escape, words))


def _compile_pattern(names: Iterable[str]) -> re.Pattern[str]:
    # \b doesn't separate Chinese characters from Latin letters, as both are letters: only ASCII neighbours count.
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(names)})(?![A-Za-z])", re.IGNORECASE)


def _normalize(text: str) -> str:
    """Remove case, spaces and hyphens, so that GPT-4 and `gpt 4` are the same name."""
    return re.sub(r"[\s_-]+", "", text.casefold())
