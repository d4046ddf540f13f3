"""The prompts of a campaign, from a list or from a file of examples, whose final answers are dropped.

The error lists the first faults with their places, and counts the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from server.wire.errors import BadRequest
from server.wire.storable_json import find_storage_fault
from training.data.formats.json_files import read_jsonl
from training.data.formats.json_records import Broken
from training.data.formats.read import FAULTS_SHOWN

MAX_PROMPTS = 1000
"""More than people rate, and few enough to insert all their pairs at once."""
MOST_FAULTS = 10_000
"""Counting stops here: it must be another kind of file."""
ROLES = ("system", "developer", "user", "assistant", "tool", "function")

Messages = list[Any]


def read_prompt_list(prompts: Sequence[str | Messages], limit: int | None) -> list[Messages]:
    """Return the messages of each prompt; a plain text becomes a user message.

    Raises:
        BadRequest: a prompt is invalid, or there are too many.
    """
    parsed = ((f"prompt {number}", _read_prompt(prompt)) for number, prompt in enumerate(prompts, start=1))
    return _collect(parsed, limit, param="prompts")


def read_prompt_file(path: Path, limit: int | None) -> list[Messages]:
    """Return the messages of each line, without a final answer. Blocks while it reads the file.

    Lines are `{"messages": […]}`, `{"prompt": …}` or preference pairs with an `input`.

    Raises:
        BadRequest: a line has no prompt, or there are too many.
    """
    with path.open("rb") as file:
        parsed = ((f"line {place}", _read_record(record)) for _, place, record in read_jsonl(file))
        return _collect(parsed, limit, param="prompts_file")


def _collect(parsed: Iterable[tuple[str, Messages | Broken]], limit: int | None, *, param: str) -> list[Messages]:
    prompts: list[Messages] = []
    shown: list[str] = []  # a file may have a fault on each of a million lines
    faults = 0
    for place, prompt in parsed:
        if isinstance(prompt, Broken):
            faults += 1
            if faults <= FAULTS_SHOWN:
                shown.append(f"{place}: {prompt.reason}")
            if faults == MOST_FAULTS:
                break
            continue
        prompts.append(prompt)
        if len(prompts) == limit:
            break
        if len(prompts) > MAX_PROMPTS:
            raise BadRequest(
                f"There are more than {MAX_PROMPTS} prompts, the maximum for a campaign. Send fewer, or set `limit` "
                "to use only the first ones.",
                param=param,
                code="too_many_prompts",
            )
    if faults:
        raise BadRequest(_format_faults(shown, faults), param=param, code="invalid_prompts")
    if not prompts:
        raise BadRequest("There are no prompts. Send at least one.", param=param, code="empty_array")
    return prompts


def _format_faults(shown: Sequence[str], faults: int) -> str:
    at_least = "at least " if faults == MOST_FAULTS else ""
    more = [f"and {at_least}{faults - len(shown)} more"] if faults > len(shown) else []
    return "\n".join([f"The prompts have {at_least}{faults} error(s):", *shown, *more])


def _read_record(record: Any) -> Messages | Broken:
    if isinstance(record, Broken):
        return record
    if not isinstance(record, dict):
        return Broken("it isn't an object; write one {…} per line")
    if isinstance(record.get("input"), dict) and "messages" in record["input"]:
        return _read_prompt(record["input"]["messages"])
    for key in ("messages", "prompt"):
        if key in record:
            return _read_prompt(record[key])
    return Broken('it has none of the keys "messages", "prompt" and "input"; add one of them')


def _read_prompt(prompt: Any) -> Messages | Broken:
    if fault := find_storage_fault(prompt):
        return Broken(f"it {fault}")
    if isinstance(prompt, str):
        return (
            [{"role": "user", "content": prompt}] if prompt.strip() else Broken("the prompt is empty; write some text")
        )
    if not isinstance(prompt, list):
        return Broken("the prompt is neither a string nor a list of messages; use one of them")
    if fault := next(_find_faults(prompt), None):
        return Broken(fault)
    question = prompt[:-1] if prompt and prompt[-1]["role"] == "assistant" else prompt
    if not question or question[-1]["role"] not in ("user", "tool", "function"):
        return Broken("there is no question: the last message before the answer must be from the user (or a tool)")
    return question


def _find_faults(messages: Messages) -> Iterator[str]:
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            yield f"message {number} isn't an object; write {{'role': …, 'content': …}}"
        elif message.get("role") not in ROLES:
            yield f"message {number} has the role {message.get('role')!r:.100}; use one of {', '.join(ROLES)}"
        elif message["role"] == "user" and not message.get("content"):
            yield f"message {number} is from the user but has no content; add some"
        elif not isinstance(message.get("content"), str | list | None):
            yield f"message {number} has content that is neither a string nor a list of parts"
