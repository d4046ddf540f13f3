"""Finds answers that give away who gave them, by which a blind vote is blind no more. Knows no votes and no database.

FastChat leaves out battles whose answers hold any of a list of names (serve/monitor/clean_battle_data.py). Many of
these names are words as well (a llama, a bard, "Android was made by Google"), so here they count only where the answer
speaks of itself; names that are nothing but an assistant's count anywhere. What the prompt named is nobody's leak.
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
"""Names of assistants, models and their makers that mean nothing else."""
WORDS = (
    "claude", "gemini", "gemma", "llama", "mistral", "bard", "grok", "kimi", "moonshot", "falcon", "phi", "command r",
    "alpaca", "vicuna", "koala", "ernie", "baidu", "alibaba", "google", "deepmind", "meta", "microsoft", "copilot",
    "xai", "cohere", "nvidia", "nemotron", "hugging face", "zhipu", "yi", "olmo", "ai2", "apple", "amazon", "ibm",
    "granite", "百度", "阿里", "阿里云", "腾讯", "谷歌", "微软",
)  # fmt: skip
"""Names that are words, too: they count where the answer says who it is or who made it."""
FILLING = r"(?:[\s,:;\"'“”*_(]|an?|the|AI|assistant|chat\s?bot|large|language|model|called|named|just|by|from)*"
"""What may stand between an introduction and the name. Spaces singly: a text is to be parted in one way only."""
INTRODUCTION = r"(?:\bI(?:['’]m| am|\s+was)\b|\bmy name is\b|\bcall(?:ed)? me\b|我(?:是|叫|的名字[是叫]))"
MADE_BY = r"(?:\b(?:trained|developed|created|made|built|designed|fine-tuned) (?:by|at)\b|由)"
ITSELF = re.compile(r"\b(?:I|I['’]m|my|me|language model|AI (?:assistant|model))\b|我", re.IGNORECASE)
"""What a sentence holds that tells of its speaker."""
_SENTENCE = re.compile(r"[^.!?\n。！？]+")


def leaks(answer: str, prompt: str, models: Iterable[str]) -> bool:
    """Whether the answer names a model, an assistant or a maker that the prompt didn't name.

    models: the names of the two that are compared.
    """
    told = _normal(prompt)
    own_names, own_words = _names_of(models)
    anywhere = (_normal(found.group()) for found in _pattern((*ASSISTANTS, *own_names)).finditer(answer))
    if any(name not in told for name in anywhere):
        return True
    words = "|".join((*map(re.escape, WORDS), *own_words))
    return any(_normal(word) not in told for word in _said_of_itself(answer, words))


def _said_of_itself(answer: str, words: str) -> Iterator[str]:
    """Those of the words by which the answer introduces itself or its makers."""
    name = rf"({words})(?![A-Za-z])"
    introduction = re.compile(INTRODUCTION + FILLING + name, re.IGNORECASE)
    made_by = re.compile(MADE_BY + FILLING + name, re.IGNORECASE)
    for sentence in _SENTENCE.findall(answer):
        yield from (found.group(1) for found in introduction.finditer(sentence))
        if ITSELF.search(sentence):
            yield from (found.group(1) for found in made_by.finditer(sentence))


def _names_of(models: Iterable[str]) -> tuple[list[str], list[str]]:
    """Patterns of the models' own names: those that can't be words, and the words among them, such as a family."""
    names: set[str] = set()
    words: set[str] = set()
    for model in models:
        base = model.split(":")[1] if model.startswith("ft:") else model
        last = base.rsplit("/", 1)[-1]
        names |= {name for name in (model, base, last) if not name.isalpha()}
        family = re.match(r"[^\W\d_]{3,}", last)
        words |= {family.group()} if family else set()
    return sorted(map(re.escape, names), key=len, reverse=True), sorted(map(re.escape, words))


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    # \b doesn't part Chinese characters from Latin letters as they are both letters: ASCII neighbours are what counts.
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(names)})(?![A-Za-z])", re.IGNORECASE)


def _normal(text: str) -> str:
    """Without case, spaces and hyphens, so that GPT-4 and `gpt 4` are one name."""
    return re.sub(r"[\s_-]+", "", text.casefold())
