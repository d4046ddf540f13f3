"""`python -m training.inspection.show.show FILE`: examples as the model will see them, and which tokens are trained.

Loads a tokenizer, never the weights. 0: everything requested was shown. 2: the file, an example or the base model
can't be used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.text import Text

from training.config.config import ConfigError
from training.data.examples import Example
from training.data.formats.read import Fault, iter_examples
from training.inspection.show.show_rows import mark_rows
from training.inspection.show.show_text import MarkedRow, format_part, format_row, make_legend, split_example
from training.inspection.tokenizer import load_tokenizer
from training.process.environment import prepare_environment
from training.rendering.pieces import PART_WORDS
from training.rendering.render import RenderError, TrainOn

_DESCRIPTION = """\
Show examples as the base model will see them: trained tokens on green, context dim, truncated text struck through;
without colors as ⟦trained⟧ and ✂cut off✂. Without --base-model, messages are shown as in the file."""
_EPILOG = """\
examples:
  python -m training.inspection.show.show examples.jsonl --base-model models/tuneloop-demo
  python -m training.inspection.show.show examples.jsonl --base-model models/tuneloop-demo --tokens --line 12"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the examples; return the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    if options.tokens and options.base_model is None:
        return _print_error("--tokens needs a tokenizer, so a base model must be given, too.")
    tokenizer = None
    if options.base_model is not None:
        prepare_environment(offline=Path(options.base_model).is_dir())
        try:
            tokenizer = load_tokenizer(options.base_model)
        except ConfigError as error:
            return _print_error(str(error))
    return _show(_choose_examples(options), tokenizer, options, console)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.inspection.show.show",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="training file in any supported format")
    parser.add_argument("--base-model", metavar="DIR", help="base model; only its tokenizer is loaded")
    parser.add_argument("--tokens", action="store_true", help="mark token boundaries")
    parser.add_argument("--line", metavar="N", type=_parse_positive, help="show only the example on this line")
    parser.add_argument(
        "--limit", metavar="N", type=_parse_positive, default=3, help="number of examples to show (default: 3)"
    )
    parser.add_argument(
        "--max-length",
        metavar="N",
        type=_parse_positive,
        default=2048,
        help="truncate at this many tokens, as in training (default: 2048)",
    )
    parser.add_argument(
        "--train-on", choices=get_args(TrainOn), default="assistant", help="messages to train on, as in training"
    )
    return parser


def _parse_positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return int(text)


def _choose_examples(options: argparse.Namespace) -> Iterator[Example | Fault]:
    found = iter_examples(options.file)
    if options.line is not None:
        # Faults of the file as a whole have no line.
        found = (item for item in found if item.line in (options.line, None))
    return islice(found, 1 if options.line is not None else options.limit)


def _show(chosen: Iterator[Example | Fault], tokenizer: Any, options: argparse.Namespace, console: Console) -> int:
    colored = console.is_terminal and not console.no_color
    failed, n_shown = False, 0
    for item in chosen:
        n_shown += 1
        problem = str(item) if isinstance(item, Fault) else _show_example(item, tokenizer, options, console, colored)
        if problem:
            failed = True
            _print_error(problem)
    if not n_shown:
        return _print_error(f"{options.file} has no example on line {options.line}; lines are counted from 1.")
    if tokenizer is not None and not failed:
        console.print(make_legend(colored=colored))
    return 2 if failed else 0


def _show_example(
    example: Example, tokenizer: Any, options: argparse.Namespace, console: Console, colored: bool
) -> str | None:
    """Print one example; return why it can't be trained on, or None."""
    if tokenizer is None:
        console.print(_format_untokenized(example, colored=colored))
        return None
    try:
        rows = mark_rows(example, tokenizer, cut_at=options.max_length, train_on=options.train_on)
        for number, row in enumerate(rows, start=1):
            of_several = f", row {number} of {len(rows)}" if len(rows) > 1 else ""
            console.print(Text(f"── line {example.line}, {example.kind}{of_several}: {_describe_row(row)}"))
            console.print(format_row(row, tokenizer, tokens=options.tokens, colored=colored))
        limit = options.max_length
        mark_rows(example, tokenizer, cut_at=limit, max_length=limit, train_on=options.train_on)
    except RenderError as error:
        return str(error)
    return None


def _describe_row(row: MarkedRow) -> str:
    trained = row.count("trained") + row.count("rejected")
    figures = f"{len(row.ids)} tokens, {trained} trained"
    cut = f", {row.count('cut')} cut off" if row.count("cut") else ""
    lost = ", ".join(words for part, words in PART_WORDS.items() if part in row.omitted)
    return f"{figures}{cut}{f'; not rendered: {lost}' if lost else ''}"


def _format_untokenized(example: Example, *, colored: bool) -> Text:
    """Return the example as in the file, its answers marked as far as possible without a tokenizer."""
    text = Text(f"── line {example.line}, {example.kind}\n")
    for role, content, part in split_example(example):
        text.append(f"{role}: ").append_text(format_part(content, part, colored=colored)).append("\n")
    return text


def _print_error(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
