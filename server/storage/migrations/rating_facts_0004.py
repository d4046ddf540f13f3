"""What migration 0004 fills old ratings with: the rules of 2026-11-26, frozen. Nothing else imports this module.

The living rules are in `server/arena/ratings/` and `evaluation/arena/style.py`. An upgrade must come to the same rows
whenever it is run, so it calls none of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

FENCED = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^ {0,3}#{1,6}\s", re.MULTILINE)
LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d{1,9}[.)])\s+\S", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
Fault = Literal["error", "unfinished", "identity_leak"]
Side = Mapping[str, Any]
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class ComparisonFacts:
    """The columns of a vote that its comparison decides."""

    left_model: str
    right_model: str
    prompt_sha: str
    """Equal for equal conversations."""
    pair_sha: str
    """Equal for the same two answers of the same two models to the same conversation, whichever stood left."""
    fault: Fault | None
    """Why no vote on it counts; None where one does."""
    style: list[list[int]]
    """Of left, then of right: tokens, headings, list items, bold runs, as `evaluation.arena.STYLE` has them."""

    def columns(self) -> dict[str, Any]:
        """By the names in the table."""
        return asdict(self)


def compute_facts(
    messages: Sequence[Any], left: Side, right: Side, histories: Sequence[Any] | None = None
) -> ComparisonFacts:
    """messages: what both answered; histories: instead, the conversation of each, where they went apart."""
    prompt = histories or messages
    keys = [[side["model"], side["content"]] for side in (left, right)]
    if histories:
        keys = [[*key, history] for key, history in zip(keys, histories, strict=False)]
    texts = [json.dumps(key, sort_keys=True) for key in keys]
    prompt_sha = _hash(json.dumps(prompt, sort_keys=True))
    return ComparisonFacts(
        left["model"],
        right["model"],
        prompt_sha,
        _hash(prompt_sha, *sorted(texts)),
        _find_fault(prompt, left, right),
        [[_count_tokens(side), *style_counts(side["content"])] for side in (left, right)],
    )


def _find_fault(prompt: Sequence[Any], left: Side, right: Side) -> Fault | None:
    sides = (left, right)
    if any(side.get("error") or side["finish_reason"] is None for side in sides):
        return "error"
    if any(side["finish_reason"] != "stop" for side in sides):
        return "unfinished"
    asked = " ".join(_collect_texts(prompt))
    models = [side["model"] for side in sides]
    return "identity_leak" if any(has_identity_leak(side["content"], asked, models) for side in sides) else None


def _count_tokens(side: Side) -> int:
    """Of the answer; for one whose engine told no count about what it comes to."""
    told: int | None = side.get("completion_tokens")
    return -(-len(side["content"]) // CHARACTERS_PER_TOKEN) if told is None else told


def _collect_texts(value: Any) -> list[str]:
    """Return every text in a conversation, however its content is made up."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
    return [text for part in parts for text in _collect_texts(part)]


def _hash(*texts: str) -> str:
    """Return 96 bits in hexadecimal digits: two of a billion different texts meet with a chance of 1 in 10^11."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


def style_counts(answer: str) -> tuple[int, int, int]:
    """Headings, list items and bold runs of an answer in Markdown; what stands in code fences isn't counted."""
    text = FENCED.sub("", answer)
    return tuple(len(pattern.findall(text)) for pattern in (HEADING, LIST_ITEM, BOLD))  # type: ignore[return-value]


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


def has_identity_leak(answer: str, prompt: str, models: Iterable[str]) -> bool:
    """Return whether the answer names a model, an assistant or a maker that the prompt didn't name.

    models: the names of the two that are compared.
    """
    told = _normalize(prompt)
    own_names, own_words = _build_name_patterns(models)
    anywhere = (_normalize(found.group()) for found in _compile_pattern((*ASSISTANTS, *own_names)).finditer(answer))
    if any(name not in told for name in anywhere):
        return True
    words = "|".join((*map(re.escape, WORDS), *own_words))
    return any(_normalize(word) not in told for word in _find_self_references(answer, words))


def _find_self_references(answer: str, words: str) -> Iterator[str]:
    """Those of the words by which the answer introduces itself or its makers."""
    name = rf"({words})(?![A-Za-z])"
    introduction = re.compile(INTRODUCTION + FILLING + name, re.IGNORECASE)
    made_by = re.compile(MADE_BY + FILLING + name, re.IGNORECASE)
    for sentence in _SENTENCE.findall(answer):
        yield from (found.group(1) for found in introduction.finditer(sentence))
        if ITSELF.search(sentence):
            yield from (found.group(1) for found in made_by.finditer(sentence))


def _build_name_patterns(models: Iterable[str]) -> tuple[list[str], list[str]]:
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


def _compile_pattern(names: Iterable[str]) -> re.Pattern[str]:
    # \b doesn't part Chinese characters from Latin letters as they are both letters: ASCII neighbours are what counts.
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(names)})(?![A-Za-z])", re.IGNORECASE)


def _normalize(text: str) -> str:
    """Without case, spaces and hyphens, so that GPT-4 and `gpt 4` are one name."""
    return re.sub(r"[\s_-]+", "", text.casefold())
