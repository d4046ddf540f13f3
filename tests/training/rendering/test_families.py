"""Each family's tokens and what of them is learned, against what was worked out by hand from its wire format.

In the expectations ⟦…⟧ holds what is learned; a row that isn't learned in one piece has several.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.family_models import FAMILIES, family_tokenizer
from training.data.examples import Example, Message
from training.rendering.render import IGNORED, Rendered, check_template, render, render_all, render_preference

TOOL = {
    "type": "function",
    "function": {"parameters": {"type": "object", "properties": {}}, "name": "weather", "extra": "not passed on"},
}
TOOL_JSON = (
    '{"type": "function", "function": {"name": "weather", "description": null, '
    '"parameters": {"type": "object", "properties": {}}}}'
)
CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
CHAT = (
    Message("system", "Be brief."),
    Message("user", "Hi"),
    Message("assistant", "Hello!"),
    Message("user", "Bye"),
    Message("assistant", "Goodbye!"),
)
WITH_TOOLS = (
    Message("user", "Warm?"),
    Message("assistant", "", extra={"tool_calls": [CALL]}),
    Message("tool", "21", extra={"tool_call_id": "abcdefghi"}),
    Message("assistant", "Yes."),
)
THINKING = (
    Message("user", "Hi"),
    Message("assistant", "<think>\nA greeting.\n</think>\n\nHello!"),
    Message("user", "Bye"),
    Message("assistant", "<think>\nHe leaves.\n</think>\n\nGoodbye!"),
)

EXPECTED_CHAT = {
    "llama": [
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Hello!<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Goodbye!<|eot_id|>⟧"
    ],
    "qwen2": [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n⟦Hello!<|im_end|>⟧\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n⟦Goodbye!<|im_end|>⟧\n"
    ],
    # The last answer always has a block of thoughts, an earlier one none, so each answer needs a row.
    "qwen3": [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nHello!<|im_end|>⟧\n",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nGoodbye!<|im_end|>⟧\n",
    ],
    # The token that opens the next turn is the one that ends an answer, the last one's too.
    "glm": [
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>⟦\nHello!<|user|>⟧\nBye"
        "<|assistant|>⟦\nGoodbye!<|user|>⟧"
    ],
    # The system prompt stands in the last question: the first answer's prompt isn't how the longer chat begins.
    "mistral": [
        "<s>[INST] Be brief.\n\nHi[/INST]⟦ Hello!</s>⟧",
        "<s>[INST] Hi[/INST] Hello!</s>[INST] Be brief.\n\nBye[/INST]⟦ Goodbye!</s>⟧",
    ],
    "mixtral": [
        "<s> [INST] Be brief.\n\nHi [/INST]⟦ Hello!</s>⟧ [INST] Bye [/INST]⟦ Goodbye!</s>⟧",
    ],
}
EXPECTED_TOOLS = {
    "llama": [
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n\n\nFunctions: [" + TOOL_JSON + "]"
        '\nCall: {"name": NAME, "parameters": OBJECT}<|eot_id|>'
        "<|start_header_id|>user<|end_header_id|>\n\nWarm?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '⟦{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>⟧'
        '<|start_header_id|>ipython<|end_header_id|>\n\n"21"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Yes.<|eot_id|>⟧"
    ],
    "qwen2": [
        "<|im_start|>system\nYou help.\n\n# Tools\n\n<tools>\n" + TOOL_JSON + "\n</tools><|im_end|>\n"
        "<|im_start|>user\nWarm?<|im_end|>\n<|im_start|>assistant\n"
        '⟦<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>⟧\n'
        "<|im_start|>user\n<tool_response>\n21\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n"
    ],
    "qwen3": [
        "<|im_start|>system\n\n\n# Tools\n\n<tools>\n" + TOOL_JSON + "\n</tools><|im_end|>\n"
        "<|im_start|>user\nWarm?<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>⟧\n',
        "<|im_start|>system\n\n\n# Tools\n\n<tools>\n" + TOOL_JSON + "\n</tools><|im_end|>\n"
        "<|im_start|>user\nWarm?<|im_end|>\n<|im_start|>assistant\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n21\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nYes.<|im_end|>⟧\n",
    ],
    "glm": [
        '[gMASK]<sop><|system|>\n# Tools\n\n## weather\n\n{"name": "weather", "description": null, '
        '"parameters": {"type": "object", "properties": {}}}<|user|>\nWarm?'
        '<|assistant|>⟦weather\n{"city": "Oslo"}<|observation|>⟧\n21<|assistant|>⟦\nYes.<|user|>⟧'
    ],
    "mistral": [
        "<s>[AVAILABLE_TOOLS] [" + TOOL_JSON + "][/AVAILABLE_TOOLS][INST] Warm?[/INST]"
        '⟦[TOOL_CALLS] [{"arguments": {"city": "Oslo"}, "name": "weather", "id": "abcdefghi"}]</s>⟧'
        '[TOOL_RESULTS] {"content": "21", "call_id": "abcdefghi"}[/TOOL_RESULTS]⟦ Yes.</s>⟧'
    ],
}
EXPECTED_THINKING = [
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦<think>\nA greeting.\n</think>\n\nHello!<|im_end|>⟧\n",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
    "<|im_start|>assistant\n⟦<think>\nHe leaves.\n</think>\n\nGoodbye!<|im_end|>⟧\n",
]
LAST_ANSWER = {
    "llama": "Goodbye!<|eot_id|>",
    "qwen2": "Goodbye!<|im_end|>",
    "qwen3": "<think>\n\n</think>\n\nGoodbye!<|im_end|>",
    "glm": "\nGoodbye!<|user|>",
    "mistral": " Goodbye!</s>",
    "mixtral": " Goodbye!</s>",
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each family's tokenizer as it is loaded from a model's folder, where generation_config.json says what ends."""
    from transformers import AutoTokenizer, GenerationConfig

    loaded = {}
    for name, family in FAMILIES.items():
        folder: Path = tmp_path_factory.mktemp(name)
        tokenizer = family_tokenizer(family)
        tokenizer.save_pretrained(folder)
        ends = tokenizer.convert_tokens_to_ids([family.eos, *family.more_ends])
        GenerationConfig(eos_token_id=ends).save_pretrained(folder)
        loaded[name] = AutoTokenizer.from_pretrained(folder)
    return loaded


def spelled(rendered: Rendered, tokenizer: Any) -> str:
    """The tokens one by one, with ⟦…⟧ around the learned ones."""
    parts, inside = [], False
    for token, label in zip(rendered.input_ids, rendered.labels, strict=True):
        assert label in (IGNORED, token)
        if inside != (label != IGNORED):
            parts.append("⟧" if inside else "⟦")
            inside = not inside
        parts.append(_text(tokenizer.convert_ids_to_tokens(token)))
    return "".join(parts) + ("⟧" if inside else "")


def _text(token: str) -> str:
    """What one token of ASCII text spells; pieces write a space as ▁ and what they don't know as bytes."""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
        return chr(int(byte[1], 16))
    return token.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")


@pytest.mark.parametrize("name", FAMILIES)
def test_chat_of_each_family_is_as_worked_out_by_hand(name: str, tokenizers: dict[str, Any]) -> None:
    rows = render_all(Example(1, CHAT), tokenizers[name], 500)
    assert [spelled(row, tokenizers[name]) for row in rows] == EXPECTED_CHAT[name]


@pytest.mark.parametrize("name", EXPECTED_TOOLS)
def test_tools_of_each_family_are_as_worked_out_by_hand(name: str, tokenizers: dict[str, Any]) -> None:
    rows = render_all(Example(1, WITH_TOOLS, (TOOL,)), tokenizers[name], 500)
    assert [spelled(row, tokenizers[name]) for row in rows] == EXPECTED_TOOLS[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_of_each_family_are_those_of_the_text_as_a_whole(name: str, tokenizers: dict[str, Any]) -> None:
    for row, expected in zip(render_all(Example(1, CHAT), tokenizers[name], 500), EXPECTED_CHAT[name], strict=True):
        text = re.sub("[⟦⟧]", "", expected)
        assert row.input_ids == tokenizers[name](text, add_special_tokens=False)["input_ids"]


def test_thoughts_are_learned_where_they_are_kept(tokenizers: dict[str, Any]) -> None:
    rows = render_all(Example(1, THINKING), tokenizers["qwen3"], 500)
    assert [spelled(row, tokenizers["qwen3"]) for row in rows] == EXPECTED_THINKING


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_answer_alone_fits_one_row_in_each_family(name: str, tokenizers: dict[str, Any]) -> None:
    row = render(Example(1, CHAT), tokenizers[name], 500, train_on="last_assistant")
    assert spelled(row, tokenizers[name]) == re.sub("[⟦⟧]", "", EXPECTED_CHAT[name][-1]).replace(
        LAST_ANSWER[name], f"⟦{LAST_ANSWER[name]}⟧"
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_preference_of_each_family_shares_its_prompt(name: str, tokenizers: dict[str, Any]) -> None:
    better, worse = (Message("assistant", "Goodbye!"),), (Message("assistant", "No."),)
    tokenizer = tokenizers[name]
    rendered = render_preference(Example(1, CHAT[:4], chosen=better, rejected=worse), tokenizer, 500)
    prompt, chosen, rejected = (
        "".join(_text(token) for token in tokenizer.convert_ids_to_tokens(ids))
        for ids in (rendered.prompt_ids, rendered.chosen_ids, rendered.rejected_ids)
    )
    assert prompt == re.sub("[⟦⟧]", "", EXPECTED_CHAT[name][-1]).partition(LAST_ANSWER[name])[0]
    assert (chosen, rejected) == (LAST_ANSWER[name], LAST_ANSWER[name].replace("Goodbye!", "No."))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_passes_the_check_of_its_template(name: str, tokenizers: dict[str, Any]) -> None:
    check_template(tokenizers[name])
