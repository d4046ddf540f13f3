"""`python -m training.inspection.answer`: answers one question about a file of examples; JSON in, JSON out.

For callers that must not load tokenizers and torch, such as the server. The question is one line on standard input:
`{"ask": "report" | "examples" | "run" | "clean", …}`, the answer one object on standard output: `{"answer": …}`, or
`{"refused": [{"param", "message"}]}` if a setting can't be used. When standard input ends, so does this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.config.config import ConfigError
from training.data.cleaning.clean import CleaningConfig, CleaningFiles, clean_file
from training.data.formats.read import FAULTS_SHOWN, DataError
from training.inspection.figures.file_report import file_report
from training.inspection.forecast.run_report import run_report
from training.inspection.show.preview import preview
from training.process.environment import prepare_environment

Question = Mapping[str, Any]
NICE = 2
"""Slightly lower priority than the engine's responses; someone is waiting for this one, too."""


def main() -> int:
    """Answer the question on standard input."""
    os.nice(NICE)
    prepare_environment(offline=True)
    question = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_with_owner, daemon=True).start()
    output = json.dumps(answer(question), ensure_ascii=False).encode("utf-8", "replace")
    with contextlib.suppress(BrokenPipeError):  # the owner has just died
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
    return 0


def answer(question: Question) -> dict[str, Any]:
    """Return the object for standard output."""
    try:
        return {"answer": _ANSWERS[question["ask"]](question)}
    except ConfigError as error:
        return {"refused": [{"param": error.param, "message": sentence} for sentence in error.faults]}
    except DataError as error:
        return {"refused": [{"param": "file", "message": str(fault)} for fault in error.faults[:FAULTS_SHOWN]]}


def _clean(question: Question) -> dict[str, Any]:
    settings = dict(question["settings"])
    files = CleaningFiles((Path(question["kept"]),), Path(question["dropped"]), Path(question["report"]))
    return clean_file(Path(question["file"]), files, CleaningConfig(**settings)).to_dict()


_ANSWERS: Mapping[str, Callable[[Question], Any]] = {
    "report": file_report,
    "examples": preview,
    "run": run_report,
    "clean": _clean,
}


def _exit_with_owner() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing follows the question, so this returns when standard input ends
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
