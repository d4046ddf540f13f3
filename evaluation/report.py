"""Compares several models on the same questions, such as the holdout."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.endpoint import ChatEndpoint

CONCURRENCY = 16
"""Questions in flight at once: enough to fill a batch, few enough to leave room for other callers."""


class QuestionsError(Exception):
    """The file of questions is unusable; the message holds every fault with its line number."""


def exact_match(answer: str, expected: str) -> bool:
    """Return whether the two are the same text, ignoring white space at the ends."""
    return answer.strip() == expected.strip()


@dataclass(frozen=True)
class Question:
    """A prompt and its expected answer."""

    messages: list[dict[str, Any]]
    """The conversation up to, not including, the expected answer."""
    expected: str
    """The expected answer."""


@dataclass(frozen=True)
class ModelReport:
    """One model's answers, in the questions' order."""

    model: str
    answers: tuple[str, ...]
    exact: tuple[bool, ...]
    """Whether each answer is exactly the expected one."""

    @property
    def exact_match(self) -> float:
        """Share of exact answers, 0 to 1."""
        return sum(self.exact) / len(self.exact)


@dataclass(frozen=True)
class Report:
    """Every model's answers to the same questions."""

    questions: tuple[Question, ...]
    models: tuple[ModelReport, ...]

    @property
    def scores(self) -> dict[str, float]:
        """Model → share of exact answers, 0 to 1."""
        return {report.model: report.exact_match for report in self.models}


def read_questions(path: Path) -> list[Question]:
    """Read the questions in a JSONL file of chat examples; the last assistant message is the expected answer.

    Raises:
        QuestionsError: the file is missing, empty or has lines that are no such examples.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise QuestionsError(f"{path} can't be read: {error}. Use a JSONL file in UTF-8.") from error
    questions, faults = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            questions.append(_question(json.loads(line)))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            faults.append(f"line {number}: {type(error).__name__}: {error}")
    if faults or not questions:
        found = "; ".join(faults[:20]) or "no lines"
        raise QuestionsError(
            f"{path} has no questions or has errors: {found}. Every line must look like "
            '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "the right answer"}]}.'
        )
    return questions


async def compare_models(
    endpoint: ChatEndpoint,
    models: Sequence[str],
    questions: Sequence[Question],
    *,
    max_tokens: int = 256,
    on_answer: Callable[[], None] = lambda: None,
) -> Report:
    """Return every model's greedy answers to every question; `on_answer` is called after each.

    Raises:
        EndpointError: the endpoint is unreachable or returned an error.
    """
    semaphore = asyncio.Semaphore(CONCURRENCY)

    async def ask(model: str, question: Question) -> str:
        async with semaphore:
            answer = await endpoint.answer(model, question.messages, max_tokens=max_tokens)
        on_answer()
        return answer

    async def report(model: str) -> ModelReport:
        answers = await asyncio.gather(*(ask(model, question) for question in questions))
        exact = tuple(
            exact_match(answer, question.expected) for answer, question in zip(answers, questions, strict=True)
        )
        return ModelReport(model, tuple(answers), exact)

    return Report(tuple(questions), tuple([await report(model) for model in models]))


def _question(line: dict[str, Any]) -> Question:
    *messages, last = line["messages"]
    if last["role"] != "assistant" or not messages:
        raise ValueError("the last message must be from the assistant, after at least one other")
    return Question(messages, str(last["content"]))
