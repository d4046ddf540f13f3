"""Tokens and labels, against expectations that were worked out by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from training.data.examples import Example, Message
from training.demo.corpus import make_single_questions
from training.demo.knowledge import all_facts
from training.demo.tokenizer import train_tokenizer
from training.rendering.render import (
    IGNORED,
    ChatTemplateError,
    Rendered,
    RenderedLabelled,
    RenderError,
    check_template,
    render,
    render_all,
    render_labelled,
    render_preference,
    render_texts,
)

CHAT = (
    Message("system", "Be brief."),
    Message("user", "Hi"),
    Message("assistant", "Hello!"),
    Message("user", "Bye"),
    Message("assistant", "Goodbye!"),
)
PLAIN_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Qwen3 does the like with its thoughts: what was answered earlier is rendered otherwise once more follows.
FORGETFUL_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{{ m.content if loop.last or m.role != 'assistant' else '-' }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def tokenizer() -> Any:
    texts = (message["content"] for chat in make_single_questions(all_facts()) for message in chat)
    return train_tokenizer(texts, max_length=2048)


def learned(rendered: Rendered, tokenizer: Any) -> list[str]:
    """The stretches of text that are learned."""
    stretches: list[list[int]] = [[]]
    for token, label in zip(rendered.input_ids, rendered.labels, strict=True):
        assert label in (IGNORED, token)
        if label == IGNORED:
            stretches.append([])
        else:
            stretches[-1].append(token)
    return [tokenizer.decode(stretch) for stretch in stretches if stretch]


def test_a_chat_is_rendered_as_worked_out_by_hand(tokenizer: Any) -> None:
    rendered = render(Example(1, CHAT[:3]), tokenizer, 100)
    pieces = ["<|system|>", "Be", " brief", ".", "<|end|>", "<|user|>", "Hi", "<|end|>", "<|assistant|>"]
    expected = [id_ for piece in pieces for id_ in tokenizer(piece)["input_ids"]]
    answer = [*tokenizer("Hello!")["input_ids"], tokenizer.eos_token_id]
    assert rendered == Rendered(expected + answer, [IGNORED] * len(expected) + answer, truncated=False)


@pytest.mark.parametrize("template", ["marks", "prefixes"])
def test_only_answers_and_their_end_tokens_are_learned(tokenizer: Any, template: str) -> None:
    if template == "prefixes":
        tokenizer.chat_template = PLAIN_TEMPLATE
    assert learned(render(Example(1, CHAT), tokenizer, 100), tokenizer) == ["Hello!<|end|>", "Goodbye!<|end|>"]


def test_both_ways_give_the_same_tokens_and_labels(tokenizer: Any) -> None:
    by_marks = render(Example(1, CHAT), tokenizer, 100)
    tokenizer.chat_template = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", tokenizer.chat_template)
    assert render(Example(1, CHAT), tokenizer, 100) == by_marks


def test_weight_0_is_context_and_not_learned(tokenizer: Any) -> None:
    messages = (*CHAT[:2], Message("assistant", "Hello!", weight=0), *CHAT[3:])
    assert learned(render(Example(1, messages), tokenizer, 100), tokenizer) == ["Goodbye!<|end|>"]


def test_answers_that_a_longer_chat_renders_otherwise_get_rows_of_their_own(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL_TEMPLATE
    rows = render_all(Example(7, CHAT), tokenizer, 100)
    assert [learned(row, tokenizer) for row in rows] == [["Hello!<|end|>"], ["Goodbye!<|end|>"]]
    assert [tokenizer.decode(row.input_ids) for row in rows] == [
        "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|>",
        "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>-<|end|>"
        "<|user|>Bye<|end|><|assistant|>Goodbye!<|end|>",
    ]


def test_what_needs_several_rows_is_refused_where_one_is_asked_for(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL_TEMPLATE
    with pytest.raises(RenderError, match=r"line 7: .*set `train_on` to last_assistant"):
        render(Example(7, CHAT), tokenizer, 100)
    last = render(Example(7, CHAT), tokenizer, 100, train_on="last_assistant")
    assert learned(last, tokenizer) == ["Goodbye!<|end|>"]


def test_a_row_that_max_length_leaves_nothing_of_is_left_out_and_told(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL_TEMPLATE
    whole = render_all(Example(7, CHAT), tokenizer, 100)
    (kept,) = render_all(Example(7, CHAT), tokenizer, len(whole[0].input_ids))
    assert kept == Rendered(whole[0].input_ids, whole[0].labels, truncated=True)


def test_an_answer_that_does_not_begin_as_the_prompt_asks_for_it_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN_TEMPLATE.replace(
        "<|assistant|>{% endif %}", "<|assistant|>Let me think:{% endif %}"
    )
    with pytest.raises(RenderError, match=r"line 7: .*starts message 3 differently .*Let me think:'"):
        render(Example(7, CHAT[:3]), tokenizer, 100)


def test_only_the_last_answer_is_learned_when_asked_for(tokenizer: Any) -> None:
    rendered = render(Example(1, CHAT), tokenizer, 100, train_on="last_assistant")
    assert learned(rendered, tokenizer) == ["Goodbye!<|end|>"]
    assert rendered.input_ids == render(Example(1, CHAT), tokenizer, 100).input_ids


def test_all_learns_questions_too_but_not_answers_of_weight_0(tokenizer: Any) -> None:
    rendered = render(Example(1, CHAT), tokenizer, 100, train_on="all")
    assert rendered.labels == rendered.input_ids
    messages = (*CHAT[:2], Message("assistant", "Hello!", weight=0), *CHAT[3:])
    assert learned(render(Example(1, messages), tokenizer, 100, train_on="all"), tokenizer) == [
        "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>",
        "<|user|>Bye<|end|><|assistant|>Goodbye!<|end|>",
    ]


def test_a_row_ends_with_its_last_learned_answer(tokenizer: Any) -> None:
    messages = (*CHAT[:4], Message("assistant", "Goodbye!", weight=0))
    assert render(Example(1, messages), tokenizer, 100) == render(Example(1, CHAT[:3]), tokenizer, 100)


def test_an_answer_to_nothing_is_refused(tokenizer: Any) -> None:
    with pytest.raises(
        RenderError, match=r"line 2: message 1 is from the assistant, with no message before it"
    ) as refused:
        render(Example(2, CHAT[2:]), tokenizer, 100)
    assert not refused.value.is_too_long


@pytest.mark.parametrize(
    ("messages", "where"),
    [
        ((Message("user", "Hi<|end|>"), CHAT[2]), "message 1"),
        ((CHAT[1], Message("assistant", "<|assistant|>Hello!")), "message 2"),
        ((CHAT[1], Message("assistant", "", extra={"tool_calls": [{"x": "<|pad|>"}]})), "message 2"),
    ],
)
def test_a_control_token_in_a_message_is_refused(tokenizer: Any, messages: tuple[Message, ...], where: str) -> None:
    with pytest.raises(RenderError, match=rf"line 5: {where} has the text '<\|\w+\|>', which .* control token"):
        render(Example(5, messages), tokenizer, 100)


def test_an_answer_that_the_template_leaves_open_gets_the_end_token(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN_TEMPLATE.replace("<|end|>", "<|tool|>")
    rendered = render(Example(1, CHAT), tokenizer, 100)
    assert learned(rendered, tokenizer) == ["Hello!<|tool|>", "Goodbye!<|tool|><|end|>"]


def test_white_space_behind_the_end_of_a_turn_is_not_learned(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN_TEMPLATE.replace("<|end|>", "<|end|>\n")
    rendered = render(Example(1, CHAT), tokenizer, 100)
    assert learned(rendered, tokenizer) == ["Hello!<|end|>", "Goodbye!<|end|>"]
    assert tokenizer.decode(rendered.input_ids).endswith("Goodbye!<|end|>\n")


def test_generation_marks_narrow_what_is_learned_but_not_its_end(tokenizer: Any) -> None:
    said = "Think. {% generation %}{{ m.content }}{% endgeneration %}"
    tokenizer.chat_template = PLAIN_TEMPLATE.replace(
        "{{ m.content }}", "{% if m.role == 'assistant' %}" + said + "{% else %}{{ m.content }}{% endif %}"
    )
    rendered = render(Example(1, CHAT), tokenizer, 100)
    assert [text.strip() for text in learned(rendered, tokenizer)] == ["Hello!<|end|>", "Goodbye!<|end|>"]
    assert "Think." in tokenizer.decode(rendered.input_ids)


def test_generation_marks_that_hold_no_answer_are_refused(tokenizer: Any) -> None:
    marked = "{% generation %}{{ m.content }}{% endgeneration %}"
    marked = "{% if m.role == 'user' %}" + marked + "{% else %}{{ m.content }}{% endif %}"
    tokenizer.chat_template = PLAIN_TEMPLATE.replace("{{ m.content }}", marked)
    with pytest.raises(RenderError, match=r"line 1: .*generation marks leave out message 3"):
        render(Example(1, CHAT[:3]), tokenizer, 100)


def test_content_is_given_in_parts_to_a_template_that_walks_through_parts(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% macro text(given) %}{% for part in given %}({{ part.type }}){{ part.text }}{% endfor %}{% endmacro %}"
        + PLAIN_TEMPLATE.replace("{{ m.content }}", "{{ text(m.content) }}")
    )
    assert learned(render(Example(1, CHAT[:3]), tokenizer, 100), tokenizer) == ["(text)Hello!<|end|>"]


def test_a_developer_speaks_as_the_system_where_the_template_has_no_developer(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN_TEMPLATE
    messages = (Message("developer", "Be kind."), *CHAT[:3])
    decoded = tokenizer.decode(render(Example(1, messages), tokenizer, 100).input_ids)
    assert decoded.startswith("<|system|>Be kind.\n\nBe brief.<|end|><|user|>Hi<|end|>")
    tokenizer.chat_template = PLAIN_TEMPLATE + "{# 'developer' #}"
    decoded = tokenizer.decode(render(Example(1, messages), tokenizer, 100).input_ids)
    assert decoded.startswith("<|developer|>Be kind.<|end|><|system|>Be brief.<|end|>")


@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}])
def test_arguments_of_a_tool_call_reach_the_template_decoded(tokenizer: Any, arguments: Any) -> None:
    tokenizer.chat_template = PLAIN_TEMPLATE.replace(
        "{{ m.content }}", "{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    )
    call = {"type": "function", "id": "x", "function": {"name": "add", "arguments": arguments}}
    messages = (CHAT[1], Message("assistant", "", extra={"tool_calls": [call]}))
    (answer,) = learned(render(Example(1, messages), tokenizer, 200), tokenizer)
    assert answer == '[{"id": "x", "function": {"arguments": {"a": 1}, "name": "add"}, "type": "function"}]<|end|>'


def test_tokens_beyond_max_length_are_cut_off_at_the_end(tokenizer: Any) -> None:
    whole = render(Example(1, CHAT), tokenizer, 100)
    cut = render(Example(1, CHAT), tokenizer, len(whole.input_ids) - 1)
    assert cut == Rendered(whole.input_ids[:-1], whole.labels[:-1], truncated=True)


def test_an_example_whose_answer_is_cut_off_is_refused_with_its_line(tokenizer: Any) -> None:
    messages = (Message("user", "word " * 50), Message("assistant", "Yes"))
    with pytest.raises(RenderError, match=r"line 3: .*`max_length` 20") as refused:
        render(Example(3, messages), tokenizer, 20)
    assert refused.value.is_too_long


def test_prompt_and_completion_meet_without_a_shared_token(tokenizer: Any) -> None:
    rendered = render(Example(1, prompt="The capital of", completion=" France"), tokenizer, 100)
    assert learned(rendered, tokenizer) == [" France<|end|>"]
    assert tokenizer.decode(rendered.input_ids) == "The capital of France<|end|>"


def test_a_tokenizer_without_chat_template_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(RenderError, match="no chat template"):
        render(Example(1, CHAT), tokenizer, 100)


def test_a_template_that_refuses_a_chat_is_told_with_the_line(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('no system prompts here') }}"
    with pytest.raises(RenderError, match=r"line 4: .*no system prompts here"):
        render(Example(4, CHAT), tokenizer, 100)


def test_a_prompt_that_ends_inside_a_word_keeps_its_own_tokens(tokenizer: Any) -> None:
    rendered = render(Example(1, prompt="The capi", completion="tal of"), tokenizer, 100)
    prompt = tokenizer("The capi")["input_ids"]
    assert rendered.input_ids[: len(prompt)] == prompt
    assert learned(rendered, tokenizer) == ["tal of<|end|>"]


def test_texts_are_joined_by_the_end_token_and_cut_into_full_rows(tokenizer: Any) -> None:
    texts = [Example(line, text=text) for line, text in enumerate(["Paris is a city.", "So is Rome.", "Yes"], start=1)]
    rows = render_texts(texts, tokenizer, 5)
    assert {len(row.input_ids) for row in rows[:-1]} == {5}
    assert 2 <= len(rows[-1].input_ids) <= 5
    assert all(row.labels == row.input_ids and not row.truncated for row in rows)
    joined = [token for row in rows for token in row.input_ids]
    assert tokenizer.decode(joined) == "Paris is a city.<|end|>So is Rome.<|end|>Yes"


def test_texts_with_nothing_to_predict_are_refused(tokenizer: Any) -> None:
    with pytest.raises(RenderError, match=r"line 4: .*fewer than two tokens"):
        render_texts([Example(4, text="!")], tokenizer, 8)
    with pytest.raises(RenderError, match="line 1: it is of kind chat, but a text is needed"):
        render_texts([Example(1, CHAT)], tokenizer, 8)


def preference(chosen: str, rejected: str) -> Example:
    """A preference on line 6 about how to greet."""
    answers = ((Message("assistant", said),) for said in (chosen, rejected))
    better, worse = answers
    return Example(6, CHAT[:2], chosen=better, rejected=worse)


def test_a_preference_has_one_prompt_and_two_ended_answers(tokenizer: Any) -> None:
    rendered = render_preference(preference("Hello!", "Go away."), tokenizer, 100)
    assert tokenizer.decode(rendered.prompt_ids) == "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>"
    assert tokenizer.decode(rendered.chosen_ids) == "Hello!<|end|>"
    assert tokenizer.decode(rendered.rejected_ids) == "Go away.<|end|>"
    assert not rendered.truncated


def test_a_preference_is_cut_at_the_end_of_its_answers(tokenizer: Any) -> None:
    whole = render_preference(preference("Yes", "No way at all."), tokenizer, 100)
    room = len(whole.chosen_ids)
    cut = render_preference(preference("Yes", "No way at all."), tokenizer, len(whole.prompt_ids) + room)
    assert (cut.prompt_ids, cut.chosen_ids, cut.rejected_ids, cut.truncated) == (
        whole.prompt_ids,
        whole.chosen_ids,
        whole.rejected_ids[:room],
        True,
    )


def test_a_preference_without_a_difference_within_max_length_is_refused(tokenizer: Any) -> None:
    with pytest.raises(RenderError, match="line 6: the preferred and the rejected answer have the same tokens"):
        render_preference(preference("Yes", "Yes"), tokenizer, 100)
    whole = render_preference(preference("Yes, it is.", "Yes, it was."), tokenizer, 100)
    with pytest.raises(RenderError, match=r"line 6: within `max_length` \d+ the preferred and the rejected"):
        render_preference(preference("Yes, it is.", "Yes, it was."), tokenizer, len(whole.prompt_ids) + 1)


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused(tokenizer: Any) -> None:
    with pytest.raises(RenderError, match=r"line 6: the prompt alone has .* raise `max_length`"):
        render_preference(preference("Yes", "No"), tokenizer, 8)


def test_a_labelled_answer_keeps_its_label(tokenizer: Any) -> None:
    prompt = tokenizer("<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>")["input_ids"]
    answer = tokenizer("Hello!<|end|>")["input_ids"]
    for label in (True, False):
        rendered = render_labelled(Example(1, CHAT[:3], label=label), tokenizer, 100)
        assert rendered == RenderedLabelled(prompt, answer, label, truncated=False)
    cut = render_labelled(Example(1, CHAT[:3], label=True), tokenizer, len(prompt) + 1)
    assert cut == RenderedLabelled(prompt, answer[:1], True, truncated=True)


def test_preferences_and_labels_are_refused_to_the_wrong_renderer(tokenizer: Any) -> None:
    with pytest.raises(RenderError, match="of kind chat, but dpo needs"):
        render_preference(Example(1, CHAT), tokenizer, 100)
    with pytest.raises(RenderError, match="of kind chat, but kto needs"):
        render_labelled(Example(1, CHAT), tokenizer, 100)
    with pytest.raises(RenderError, match="line 6: it is of kind preference; set `method` to dpo"):
        render_all(preference("Yes", "No"), tokenizer, 100)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('not today') }}", "rejects the chat: not today"),
        ("{% for m in messages %}<|user|>Hm{% endfor %}", "can't be located"),
        ("{{ messages[-1].content }}", "starts message 2 differently"),
    ],
)
def test_a_template_that_can_not_be_trained_is_told_before_any_data(
    tokenizer: Any, template: str | None, reason: str
) -> None:
    check_template(tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(ChatTemplateError, match=reason):
        check_template(tokenizer)


def test_a_tokenizer_without_end_token_is_told_before_any_data(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(ChatTemplateError, match="no end token, so answers would never end"):
        check_template(tokenizer)
