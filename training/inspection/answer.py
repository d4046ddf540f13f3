"""`python -m training.inspection.answer`: answers one question about files of examples; JSON in, JSON out.

For callers that must not load tokenizers and torch, such as the server. The question is one line on standard input:
`{"ask": "file" | "job" | "report" | "examples" | "run" | "clean", …}`, the answer one object on standard output:
`{"answer": …}`, or `{"refused": [{"param", "message"}]}` if a setting can't be used. When standard input ends, so does
this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.config.config import ConfigError
from training.data.formats.read import FAULTS_SHOWN, DataError

Question = Mapping[str, Any]
CHECKS = ("file", "job")
"""Questions that no tokenizer is needed for. After a small upload the start of this process is all that a client waits
for, so everything is imported only where it is needed."""
CHECK_NICE = 10
NICE = 2
"""Slightly lower priority than the engine's responses; someone is waiting for this one, too."""


def main() -> int:
    """Answer the question on standard input."""
    question = json.loads(sys.stdin.buffer.readline())
    if question["ask"] in CHECKS:
        os.nice(CHECK_NICE)
    else:
        from training.process.environment import prepare_environment

        os.nice(NICE)
        prepare_environment(offline=True)
    threading.Thread(target=_exit_with_owner, daemon=True).start()
    output = json.dumps(answer(question), ensure_ascii=False).encode("utf-8", "replace")
    with contextlib.suppress(BrokenPipeError):  # the owner has just died
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
    return 0


def answer(question: Question) -> dict[str, Any]:
    """Return the object for standard output."""
    try:
        return {"answer": _answer(question)}
    except ConfigError as error:
        return {"refused": [{"param": error.param, "message": sentence} for sentence in error.faults]}
    except DataError as error:
        return {"refused": [{"param": "file", "message": str(fault)} for fault in error.faults[:FAULTS_SHOWN]]}


def _answer(question: Question) -> Any:
    match question["ask"]:
        case "file":
            from training.data.check import check_file

            return asdict(check_file(Path(question["file"])))
        case "job":
            from training.data.check import check_job

            training, validation = Path(question["training"]), question["validation"] and Path(question["validation"])
            rules = question["method"], question["file_format"], question["on_leakage"]
            return asdict(check_job(training, validation, *rules))
        case "report":
            from training.inspection.figures.file_report import file_report

            return file_report(question)
        case "examples":
            from training.inspection.show.preview import preview

            return preview(question)
        case "run":
            from training.inspection.forecast.run_report import run_report

            return run_report(question)
        case "clean":
            from training.data.cleaning.clean import CleaningConfig, CleaningFiles, clean_file

            files = CleaningFiles((Path(question["kept"]),), Path(question["dropped"]), Path(question["report"]))
            return clean_file(Path(question["file"]), files, CleaningConfig(**question["settings"])).to_dict()
        case other:
            raise ValueError(f"{other!r} isn't a question")


def _exit_with_owner() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing follows the question, so this returns when standard input ends
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
