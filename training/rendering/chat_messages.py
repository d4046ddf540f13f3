"""A chat in the shape in which vLLM hands it to a given chat template. Knows no tokens; imports no torch.

What is trained must be what is served, so this follows vLLM 0.32 (`vllm/renderers/chat_utils.py` and `hf.py`) in what
depends on the template: content in parts where it walks through parts, and the developer's role turned into the
system's where it doesn't know that role. The rest is in `Message.for_template`.
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


def conversation_for(template: str, messages: Sequence[Message]) -> Conversation:
    """`messages` as the chat template text `template` is given them."""
    conversation = [message.for_template() for message in messages]
    if _walks_through_parts(template):
        conversation = [_in_parts(turn) for turn in conversation]
    if any(message.role == "developer" for message in messages) and not _knows_developer(template):
        return _one_system_message(conversation)
    return conversation


def _in_parts(turn: dict[str, Any]) -> dict[str, Any]:
    """`turn` with its content as a list of parts; what a tool said stays a text, as the engine flattens that."""
    if turn["role"] == "tool":
        return turn
    return turn | {"content": [{"type": "text", "text": turn["content"]}] if turn["content"] else []}


def _one_system_message(conversation: Conversation) -> Conversation:
    """What developers and systems said, in one system message at the front if there is more than one or it is late."""
    renamed = [_as_system(turn) if turn["role"] == "developer" else turn for turn in conversation]
    systems = [turn for turn in renamed if turn["role"] == "system"]
    if len(systems) == 1 and renamed[0]["role"] == "system":
        return renamed
    texts = [_text(turn["content"]) for turn in systems]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(turn for turn in renamed if turn["role"] != "system")]


def _as_system(turn: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in turn.items() if key != "tools"} | {"role": "system"}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _knows_developer(template: str) -> bool:
    return "'developer'" in template or '"developer"' in template


@lru_cache(maxsize=32)
def _walks_through_parts(template: str) -> bool:
    """Whether the template has a loop over the content of a message, itself or through a variable or a macro."""
    try:
        tree = Environment(extensions=[loopcontrols, _Generation]).parse(template)  # noqa: S701  (only parsed)
    except TemplateError:
        return False  # rendering will say what is wrong with it
    contents = {"content", *_names_of_content(tree)}
    return any(_is_content(loop.iter, contents) for loop in tree.find_all(nodes.For))


def _names_of_content(tree: nodes.Template) -> Iterator[str]:
    """Variables that hold a message's content: what it is assigned to, and macros' parameters that it is passed as."""
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
    """Lets `{% generation %}` through, which plain Jinja doesn't know."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """The nodes between the marks."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
