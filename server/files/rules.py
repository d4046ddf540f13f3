"""Rules for uploaded files: the purpose, the name and, for fine-tuning, the lines.

The rules and messages follow https://platform.openai.com/docs/api-reference/files/create
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
"""The purposes that a client may upload for. OpenAI's `evals` is missing: there are no evals here."""
PURPOSES: tuple[str, ...] = get_args(Purpose)
FINE_TUNE: Purpose = "fine-tune"
MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 30 * 24 * 3600
BATCH_EXPIRY_S = MAX_EXPIRY_S
"""By default, files for batches expire after 30 days, as with OpenAI."""
MAX_LINE_BYTES = 10 * 10**6
"""Longest line of a training file, in bytes."""
MAX_FILENAME_CHARACTERS = 255

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Characters not allowed in names: control characters, and those that change the text direction."""


def parse_purpose(value: str | None) -> str:
    """Return the requested purpose.

    Raises:
        BadRequest: it is missing or unknown.
    """
    if value is None:
        raise BadRequest(
            f"The field `purpose` is missing. Use one of {', '.join(PURPOSES)}.",
            code="missing_required_parameter",
            param="purpose",
        )
    if value not in PURPOSES:
        why = " This server doesn't support evals." if value == "evals" else ""
        raise BadRequest(
            f"{value[:100]!r} isn't a supported purpose.{why} Use one of {', '.join(PURPOSES)}.",
            code="invalid_value",
            param="purpose",
        )
    return value


def clean_filename(filename: str) -> str:
    """Return the last part of the path without control characters, at most 255 characters; `upload` if nothing is
    left."""
    name = _CONTROL.sub("", filename).replace("\\", "/").rstrip("/ ").rpartition("/")[2].strip()
    if name in ("", ".", ".."):
        return "upload"
    suffix = PurePosixPath(name).suffix[:16]
    return name if len(name) <= MAX_FILENAME_CHARACTERS else name[: MAX_FILENAME_CHARACTERS - len(suffix)] + suffix


def refuse_wrong_extension(filename: str, purpose: str, *, param: str = "file") -> None:
    """Check that the name fits the purpose. One without an extension does: the SDK names bytes `upload`.

    Raises:
        BadRequest: it doesn't fit.
    """
    suffix = PurePosixPath(filename).suffix
    if purpose == FINE_TUNE and suffix.lower() not in ("", ".jsonl"):
        raise BadRequest(
            f"The file {filename!r} ends in {suffix!r}, but files for fine-tune must be JSONL. Write one JSON "
            "object per line and name it .jsonl; `tuneloop data prepare` converts other formats.",
            code="invalid_file_format",
            param=param,
        )


def choose_expiry_s(purpose: str, requested_s: int | None) -> int | None:
    """Return how many seconds a new file is kept; None if until it is deleted."""
    return requested_s or (BATCH_EXPIRY_S if purpose == "batch" else None)


def refuse_wrong_content(path: Path, purpose: str) -> None:
    """Check line by line that the content fits the purpose. Blocks while it reads the file.

    Raises:
        BadRequest: it is empty, or should be JSONL and isn't; the message lists the faults with their lines.
    """
    if purpose != FINE_TUNE:
        if not path.stat().st_size:
            raise BadRequest("The file is empty. Upload a file with content.", code="empty_file", param="file")
        return
    faults, found = find_line_faults(path)
    if found:
        shown = "".join(f"\n{fault}" for fault in faults)
        more = f"\nand {found - len(faults)} more" if found > len(faults) else ""
        raise BadRequest(
            f"Expected file to have JSONL format, where every line is a valid JSON dictionary. Found {found} "
            f"error(s):{shown}{more}",
            code="invalid_jsonl",
        )


def find_line_faults(path: Path) -> tuple[list[str], int]:
    """Return the first faults of a JSONL file, and how many there are. Holds one line in memory at a time."""
    faults: list[str] = []
    found, has_lines, encoding_reported = 0, False, False
    with path.open("rb") as file:
        for line, text in read_lines(file):
            if isinstance(text, bytes) and not text.strip():
                continue
            reason = _check_line(text)
            if reason is None or (reason.encoding and encoding_reported):
                has_lines = True
                continue
            encoding_reported = encoding_reported or reason.encoding
            found, has_lines = found + 1, True
            if len(faults) < FAULTS_SHOWN:
                faults.append(f"line {line}: {reason.reason}")
    if not has_lines:
        return ["it is empty; add at least one example"], 1
    return faults, found


def _check_line(text: bytes | Broken) -> Broken | None:
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
