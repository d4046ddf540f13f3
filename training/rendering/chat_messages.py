"""Prepares a chat the way vLLM passes it to a given chat template. Imports no torch.

Training must match serving, so this follows vLLM 0.32 (`vllm/renderers/chat_utils.py` and `hf.py`) in what depends on
the template: content in parts if it iterates over parts, and the role developer converted to system if it doesn't know
that role. The rest is in `Message.for_template`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from training.data.examples import Message

Conversation = list[dict[str, Any]]


def prepare_conversation(template: str, messages: Sequence[Message]) -> Conversation:
    """Return `messages` as passed to the chat template text `template`."""
    conversation = [message.for_template() for message in messages]
    if _iterates_parts(template):
        conversation = [_to_parts(turn) for turn in conversation]
    if any(message.role == "developer" for message in messages) and not _knows_developer(template):
        return _merge_system_messages(conversation)
    return conversation


def _to_parts(turn: dict[str, Any]) -> dict[str, Any]:
    """Convert the content of `turn` to a list of parts; a tool's result stays a string, as the engine flattens it."""
    if turn["role"] == "tool":
        return turn
    return turn | {"content": [{"type": "text", "text": turn["content"]}] if turn["content"] else []}


def _merge_system_messages(conversation: Conversation) -> Conversation:
    """Merge developer and system messages into one at the front if there are several or it comes later."""
    renamed = [_to_system(turn) if turn["role"] == "developer" else turn for turn in conversation]
    systems = [turn for turn in renamed if turn["role"] == "system"]
    if len(systems) == 1 and renamed[0]["role"] == "system":
        return renamed
    texts = [_content_text(turn["content"]) for turn in systems]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(turn for turn in renamed if turn["role"] != "system")]


def _to_system(turn: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in turn.items() if key != "tools"} | {"role": "system"}


def _content_text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _knows_developer(template: str) -> bool:
    return "'developer'" in template or '"developer"' in template


@lru_cache(maxsize=32)
def _iterates_parts(template: str) -> bool:
    """Return whether the template loops over the content of a message, directly or through a variable or a macro."""
    try:
        tree = Environment(extensions=[loopcontrols, _Generation]).parse(template)  # noqa: S701  (only parsed)
    except TemplateError:
        return False  # rendering will report what is wrong with it
    contents = {"content", *_find_content_names(tree)}
    return any(_is_content(loop.iter, contents) for loop in tree.find_all(nodes.For))


def _find_content_names(tree: nodes.Template) -> Iterator[str]:
    """Yield variables that hold a message's content: those assigned from it, and macro parameters that receive it."""
    for assignment in tree.find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name) and _is_content(assignment.node, {"content"}):
            yield assignment.target.name
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in macros:
            parameters = macros[call.node.name].args
            yield from (
                parameter.name
                for parameter, given in zip(parameters, call.args, strict=False)
                if _is_content(given, {"content"})
            )


def _is_content(node: nodes.Node | None, names: set[str]) -> bool:
    if isinstance(node, nodes.Filter):
        return _is_content(node.node, names)
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return isinstance(node, nodes.Name) and node.name in names


class _Generation(Extension):
    """Accepts `{% generation %}`, which plain Jinja doesn't know."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Parse the nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
