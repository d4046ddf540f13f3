"""Parses one decoded record into an `Example`: the formats and their detection. Imports no torch.

A format is an entry in `_PARSERS`: its name in `file_format`, and the function that parses a record of it. `detect`
has the rules by which `auto` chooses one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from training.config.config import FileFormat
from training.data.examples import Example, ExampleError, Message
from training.data.formats.fields import describe_kind, read_bool_field, read_text_field, read_tools
from training.data.formats.messages import check_learnable, parse_messages
from training.data.formats.sharegpt import parse_answer, parse_conversation

Record = Mapping[str, Any]
_ANSWERS = ("chosen", "rejected")
_OPENAI_ANSWERS = ("preferred_output", "non_preferred_output")
_PROMPT_KEYS = frozenset({"messages", "conversations", "prompt", "instruction"})
_SHAPES = (
    '{"messages": […]}, {"instruction": …, "output": …}, {"prompt": …, "completion": …}, {"conversations": […]}, '
    '{"prompt": …, "chosen": …, "rejected": …} or {"text": …}'
)


def parse_record(record: Any, line: int, file_format: FileFormat = "auto") -> Example:
    """Parse the decoded JSON value `record`, in `file_format` or the format that it looks like.

    Raises:
        ExampleError: no format matches, or it breaks rules of its format; all are reported.
    """
    if not isinstance(record, dict):
        raise ExampleError(f"it is {describe_kind(record)}, but must be an object, such as {_SHAPES}")
    found = detect(record) if file_format == "auto" else file_format
    if found is None:
        keys = ", ".join(f"`{key[:40]}`" for key in list(record)[:8]) or "nothing"
        raise ExampleError(f"no format has these keys: {keys}; expected {_SHAPES}")
    faults: list[str] = []
    example = _PARSERS[found](record, line, faults)
    if faults:
        raise ExampleError(*faults)
    return example


def detect(record: Record) -> FileFormat | None:
    """Return the format that `record` looks like by its keys, or None. A key whose value is null counts as absent."""
    # The first matching rule decides; a preference or a label is more specific than the chat beside it.
    keys = record.keys()
    if not keys.isdisjoint((*_ANSWERS, *_OPENAI_ANSWERS)) and _has_any(record, *_ANSWERS, *_OPENAI_ANSWERS):
        return "preference"
    if (
        not keys.isdisjoint(("label", "kto_tag"))
        and _has_any(record, "label", "kto_tag")
        and not keys.isdisjoint(_PROMPT_KEYS)
    ):
        return "kto"
    if "messages" in keys:
        return "chat"
    if "conversations" in keys:
        return "sharegpt"
    if "instruction" in keys:
        return "alpaca"
    if "completion" in keys or "prompt" in keys:
        return "prompt_completion"
    return "text" if "text" in keys else None


def _has_any(record: Record, *keys: str) -> bool:
    return any(record.get(key) is not None for key in keys)


def _parse_chat(record: Record, line: int, faults: list[str]) -> Example:
    """OpenAI: https://platform.openai.com/docs/api-reference/fine-tuning/chat-input"""
    messages = parse_messages(record.get("messages"), faults)
    tools = read_tools(record, faults)
    if not faults:
        check_learnable(messages, faults)
    return Example(line, messages, tools)


def _parse_alpaca(record: Record, line: int, faults: list[str]) -> Example:
    """Stanford Alpaca: https://github.com/tatsu-lab/stanford_alpaca#data-release"""
    messages = _parse_alpaca_prompt(record, faults)
    return Example(line, (*messages, Message("assistant", read_text_field(record, "output", faults))))


def _parse_alpaca_prompt(record: Record, faults: list[str]) -> tuple[Message, ...]:
    """Make system prompt, earlier rounds, then instruction and input as one user turn, joined by a blank line."""
    instruction = read_text_field(record, "instruction", faults)
    given = read_text_field(record, "input", faults, required=False)
    user = Message("user", f"{instruction}\n\n{given}" if given else instruction)
    if "system" not in record and not record.get("history"):
        return (user,)
    system = read_text_field(record, "system", faults, required=False)
    opening = (Message("system", system),) if system else ()
    return (*opening, *_parse_history(record.get("history") or [], faults), user)


def _parse_history(rounds: Any, faults: list[str]) -> list[Message]:
    if not isinstance(rounds, list):
        faults.append(f"`history` is {describe_kind(rounds)}, but must be a list of [question, answer] pairs")
        return []
    messages: list[Message] = []
    for place, pair in enumerate(rounds, start=1):
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and text.strip() for text in pair):
            messages += [Message("user", pair[0]), Message("assistant", pair[1])]
        else:
            faults.append(f"`history` round {place} must be a pair of non-empty strings: [question, answer]")
    return messages


def _parse_prompt_completion(record: Record, line: int, faults: list[str]) -> Example:
    """Parse two texts; or two lists of messages, a chat in which only the completion is trained on."""
    if not isinstance(record.get("prompt"), list):
        prompt = read_text_field(record, "prompt", faults)
        return Example(line, prompt=prompt, completion=read_text_field(record, "completion", faults))
    messages = _as_context(parse_messages(record["prompt"], faults, "prompt"))
    answer = parse_messages(record.get("completion"), faults, "completion")
    if not faults:
        check_learnable(answer, faults)
    return Example(line, messages + answer, read_tools(record, faults))


def _as_context(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return `messages` with none of them trained on."""
    return tuple(
        Message(message.role, message.content, 0, message.extra) if message.role == "assistant" else message
        for message in messages
    )


def _parse_sharegpt(record: Record, line: int, faults: list[str]) -> Example:
    """ShareGPT: `conversations` with `from` and `value`; with `chosen` a preference, with `kto_tag` a labelled chat."""
    if _has_any(record, *_ANSWERS):
        return _parse_preference(record, line, faults)
    if _has_any(record, "kto_tag"):
        return _parse_labelled(record, line, faults)
    messages = parse_conversation(record, faults)
    if not faults:
        check_learnable(messages, faults)
    return Example(line, messages, read_tools(record, faults, bare=True))


def _parse_preference(record: Record, line: int, faults: list[str]) -> Example:
    """Parse a pair in OpenAI's, ShareGPT's, TRL's or Alpaca's form."""
    if _has_any(record, *_OPENAI_ANSWERS):
        example = _parse_openai_pair(record, line, faults)
    elif "conversations" in record:
        messages = parse_conversation(record, faults)
        chosen, rejected = (parse_answer(record, key, faults) for key in _ANSWERS)
        example = Example(line, messages, read_tools(record, faults, bare=True), chosen=chosen, rejected=rejected)
    else:
        example = _parse_trl_pair(record, line, faults)
    if not faults:
        _check_pair(example, faults)
    return example


def _parse_openai_pair(record: Record, line: int, faults: list[str]) -> Example:
    """https://platform.openai.com/docs/api-reference/fine-tuning/preference-input"""
    source = record.get("input")
    if not isinstance(source, dict):
        given = "missing" if source is None else describe_kind(source)
        faults.append(f'`input` is {given}, but must be an object such as {{"messages": […]}}')
        source = {"messages": [{"role": "user", "content": "?"}]}  # so that its absence isn't reported twice
    messages = parse_messages(source.get("messages"), faults)
    chosen, rejected = (_parse_answer(record, key, faults) for key in _OPENAI_ANSWERS)
    return Example(line, messages, read_tools(source, faults), chosen=chosen, rejected=rejected)


def _parse_trl_pair(record: Record, line: int, faults: list[str]) -> Example:
    """TRL's: https://huggingface.co/docs/trl/dataset_formats#preference; the prompt may be part of both answers."""
    shared = _shared_start(record)
    if shared and (record.get("prompt") is None or isinstance(record["prompt"], str)):
        chosen, rejected = ({key: record[key][len(shared) :]} for key in _ANSWERS)
        record = {**record, "prompt": shared, **chosen, **rejected}
    messages = _parse_prompt(record, faults)
    better, worse = (_parse_answer(record, key, faults) for key in _ANSWERS)
    return Example(line, messages, read_tools(record, faults), chosen=better, rejected=worse)


def _shared_start(record: Record) -> list[Any]:
    """Return the messages that `chosen` and `rejected` share at the start, before their last."""
    chosen, rejected = record.get("chosen"), record.get("rejected")
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        return []
    return chosen[:-1] if len(chosen) == len(rejected) and chosen[:-1] == rejected[:-1] else []


def _parse_prompt(record: Record, faults: list[str]) -> tuple[Message, ...]:
    """Parse the prompt: `messages`, `prompt` as a text or messages, or Alpaca's fields."""
    if "instruction" in record:
        return _parse_alpaca_prompt(record, faults)
    if "messages" in record:
        return parse_messages(record["messages"], faults)
    if isinstance(record.get("prompt"), list):
        return parse_messages(record["prompt"], faults, "prompt")
    return (Message("user", read_text_field(record, "prompt", faults)),)


def _parse_answer(record: Record, key: str, faults: list[str]) -> tuple[Message, ...]:
    """Parse one assistant turn under `key`: a text, a message, or a list of one message."""
    given = record.get(key)
    if given is None or isinstance(given, str):
        return (Message("assistant", read_text_field(record, key, faults)),)
    before = len(faults)
    messages = parse_messages([given] if isinstance(given, dict) else given, faults, key)
    if len(faults) == before and [message.role for message in messages] != ["assistant"]:
        roles = ", ".join(message.role for message in messages)
        faults.append(f"`{key}` must be one message with the role assistant; it has the roles: {roles}")
    return messages


def _check_pair(example: Example, faults: list[str]) -> None:
    _check_open(example.messages, faults)
    better, worse = example.chosen[0], example.rejected[0]
    if better.content == worse.content and better.extra == worse.extra:
        faults.append("both answers are the same, so there is no preference to learn")
    if not (better.weight and worse.weight):
        faults.append("an answer has weight 0, but both are trained on; remove the weight, or the record")


def _check_open(messages: tuple[Message, ...], faults: list[str]) -> None:
    if messages[-1].role == "assistant":
        faults.append(
            "the chat before the answers ends with an assistant message; it must end with a user or tool message"
        )


def _parse_labelled(record: Record, line: int, faults: list[str]) -> Example:
    """KTO: a chat whose last answer is good or bad. https://huggingface.co/docs/trl/dataset_formats#unpaired-preference"""
    label = read_bool_field(
        record, "kto_tag" if record.get("label") is None and "kto_tag" in record else "label", faults
    )
    if "conversations" in record:
        messages = parse_conversation(record, faults)
        tools = read_tools(record, faults, bare=True)
    else:
        messages, tools = _parse_labelled_messages(record, faults), read_tools(record, faults)
    if not faults and messages[-1].role != "assistant":
        faults.append(f"the last message has the role {messages[-1].role}; a label needs an assistant message there")
    if not faults and not messages[-1].weight:
        faults.append("the answer has weight 0, but its label is trained on; remove the weight, or the record")
    if not faults and len(messages) == 1:
        faults.append("there is no message before the answer; a label needs the question")
    return Example(line, messages, tools, label=label)


def _parse_labelled_messages(record: Record, faults: list[str]) -> tuple[Message, ...]:
    if "instruction" in record:
        return _parse_alpaca(record, 0, faults).messages
    if "messages" in record or "prompt" not in record:
        return parse_messages(record.get("messages"), faults)
    return _parse_prompt(record, faults) + _parse_answer(record, "completion", faults)


def _parse_text(record: Record, line: int, faults: list[str]) -> Example:
    return Example(line, text=read_text_field(record, "text", faults))


_PARSERS: Mapping[FileFormat, Callable[[Record, int, list[str]], Example]] = {
    "chat": _parse_chat,
    "alpaca": _parse_alpaca,
    "prompt_completion": _parse_prompt_completion,
    "sharegpt": _parse_sharegpt,
    "preference": _parse_preference,
    "kto": _parse_labelled,
    "text": _parse_text,
}
