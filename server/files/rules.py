"""What a file must be to be taken: its purpose, its name and, for fine-tuning, its lines. Opens no database.

The rules and the words are those of https://platform.openai.com/docs/api-reference/files/create
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from server.wire.errors import BadRequest
from training.data.formats.json_files import read_lines
from training.data.formats.json_records import Broken, decode
from training.data.formats.read import FAULTS_SHOWN

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data"]
"""What a client may upload for. OpenAI's `evals` isn't among them: there are no evals here."""
PURPOSES: tuple[str, ...] = get_args(Purpose)
FINE_TUNE: Purpose = "fine-tune"
MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 30 * 24 * 3600
BATCH_EXPIRY_S = MAX_EXPIRY_S
"""Files for batches expire after 30 days where nothing else is said, as they do at OpenAI."""
MAX_LINE_BYTES = 10 * 10**6
"""Longest line of a training file."""
MAX_FILENAME_CHARACTERS = 255

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Characters that no name may have: control characters, and those that turn around what follows them."""


def purpose_of(value: str | None) -> str:
    """The purpose that was asked for.

    Raises:
        BadRequest: there is none, or none of that name.
    """
    if value is None:
        raise BadRequest(
            f"The field `purpose` is missing. Give one of {', '.join(PURPOSES)}.",
            code="missing_required_parameter",
            param="purpose",
        )
    if value not in PURPOSES:
        why = " There are no evals on this server." if value == "evals" else ""
        raise BadRequest(
            f"{value[:100]!r} is not a purpose that files are taken for.{why} Give one of {', '.join(PURPOSES)}.",
            code="invalid_value",
            param="purpose",
        )
    return value


def clean_filename(given: str) -> str:
    """The last part of the name without control characters, at most 255 characters; `upload` where nothing is left."""
    name = _CONTROL.sub("", given).replace("\\", "/").rstrip("/ ").rpartition("/")[2].strip()
    if name in ("", ".", ".."):
        return "upload"
    suffix = PurePosixPath(name).suffix[:16]
    return name if len(name) <= MAX_FILENAME_CHARACTERS else name[: MAX_FILENAME_CHARACTERS - len(suffix)] + suffix


def refuse_wrong_extension(filename: str, purpose: str, *, param: str = "file") -> None:
    """Looks whether the name fits the purpose. A name without extension does: that of bytes in the SDK is `upload`.

    Raises:
        BadRequest: it doesn't.
    """
    suffix = PurePosixPath(filename).suffix
    if purpose == FINE_TUNE and suffix.lower() not in ("", ".jsonl"):
        raise BadRequest(
            f"The file {filename!r} ends in {suffix!r}, but files for fine-tune are JSONL. Write one JSON object per "
            "line and name it .jsonl; `tuneloop data prepare` turns other formats into it.",
            code="invalid_file_format",
            param=param,
        )


def expiry_s(purpose: str, asked_s: int | None) -> int | None:
    """Seconds that a new file is kept; None where it is kept until it is deleted."""
    return asked_s or (BATCH_EXPIRY_S if purpose == "batch" else None)


def refuse_wrong_content(path: Path, purpose: str) -> None:
    """Looks whether the content fits the purpose, line by line; blocks for as long as reading takes.

    Raises:
        BadRequest: it is empty, or it should be JSONL and isn't; the faults are listed with their lines.
    """
    if purpose != FINE_TUNE:
        if not path.stat().st_size:
            raise BadRequest("The file is empty. Give one with a content.", code="empty_file", param="file")
        return
    faults, found = line_faults(path)
    if found:
        shown = "".join(f"\n{fault}" for fault in faults)
        more = f"\nand {found - len(faults)} more" if found > len(faults) else ""
        raise BadRequest(
            "Expected file to have JSONL format, where every line is a valid JSON dictionary. "
            f"Found {found} fault(s):{shown}{more}",
            code="invalid_jsonl",
        )


def line_faults(path: Path) -> tuple[list[str], int]:
    """The first faults of a file that should be JSONL, and how many there are. A line at a time is in memory."""
    faults: list[str] = []
    found, seen, encoding_told = 0, False, False
    with path.open("rb") as file:
        for line, text in read_lines(file):
            if isinstance(text, bytes) and not text.strip():
                continue
            reason = _line_fault(text)
            if reason is None or (reason.encoding and encoding_told):
                seen = True
                continue
            encoding_told = encoding_told or reason.encoding
            found, seen = found + 1, True
            if len(faults) < FAULTS_SHOWN:
                faults.append(f"line {line}: {reason.reason}")
    if not seen:
        return ["it is empty; give at least one example"], 1
    return faults, found


def _line_fault(text: bytes | Broken) -> Broken | None:
    if isinstance(text, Broken):
        return text
    if len(text) > MAX_LINE_BYTES:
        return Broken(f"the line has {len(text)} bytes, more than {MAX_LINE_BYTES}; split the record")
    value = decode(text)
    if isinstance(value, Broken):
        return value
    if not isinstance(value, dict):
        names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
        return Broken(f"it is {names.get(type(value), 'a number')}, not an object; write one {{…}} per line")
    return None
