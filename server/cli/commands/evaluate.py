"""`tuneloop evaluate`: compares models on the same questions, on any OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from evaluation import ChatEndpoint, Question, Report, compare_models, read_questions
from server.cli.console import err, make_table, out


def evaluate(
    questions: Annotated[Path, typer.Argument(help="JSONL of chat examples; the last answer is the expected one.")],
    model: Annotated[list[str], typer.Option(help="Model to evaluate; repeat to compare several.")],
    server: Annotated[
        str, typer.Option(help="Base URL of any OpenAI-compatible endpoint.")
    ] = "http://127.0.0.1:8000/v1",
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens per answer.")] = 256,
    show: Annotated[int, typer.Option(min=0, help="Number of questions to print with each model's answer.")] = 5,
) -> None:
    """Ask every model every question and count exact matches. Reads the API key from OPENAI_API_KEY.

    Example: tuneloop evaluate holdout.jsonl --model tuneloop-demo --model ft:tuneloop-demo:personal:keeper:1a2b3c4d
    """
    asked = read_questions(questions)
    report = asyncio.run(_ask(server, model, asked, max_tokens))
    for line in answers(report, show):
        out.print(line, markup=False)
    out.print(scores(report))


def scores(report: Report) -> Table:
    """Return a table with each model's number of exact answers."""
    table = make_table("model", "exact", "share")
    for model in report.models:
        table.add_row(model.model, f"{sum(model.exact)} of {len(model.exact)}", f"{100 * model.exact_match:.1f}%")
    return table


def answers(report: Report, count: int) -> list[str]:
    """Return the first `count` questions, each followed by every model's answer."""
    lines = []
    for index, question in enumerate(report.questions[:count]):
        lines.append(f"\n> {question.messages[-1]['content']}")
        for model in report.models:
            lines.append(f"  {'✓' if model.exact[index] else '·'} {model.model}: {model.answers[index]}")
    return lines


async def _ask(server: str, models: list[str], questions: list[Question], max_tokens: int) -> Report:
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("Asking", total=len(models) * len(questions))
        async with ChatEndpoint(server, api_key=os.environ.get("OPENAI_API_KEY")) as endpoint:
            return await compare_models(
                endpoint, models, questions, max_tokens=max_tokens, on_answer=lambda: progress.advance(task)
            )
