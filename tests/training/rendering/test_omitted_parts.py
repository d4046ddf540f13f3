"""What a chat template doesn't render: counted where that is harmless, refused where it changes what is learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import training.inspection.figures.data_figures as data_figures
from tests.family_models import FAMILIES, family_tokenizer
from tests.training.rendering.test_families import EXPECTED_TOOLS, TOOL, WITH_TOOLS
from training.config.config import TrainingConfig
from training.data.examples import Example, ExampleError, Message
from training.data.formats.record_formats import parse_record
from training.demo.tokenizer import train_tokenizer
from training.inspection.data_report import main
from training.inspection.figures.data_figures import compute_figures
from training.inspection.figures.file_report import file_report
from training.inspection.show.preview import preview
from training.inspection.show.show import main as show
from training.rendering.render import RenderError, find_omitted, render_all, render_labelled, render_preference

NO_TOOLS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CALLED = NO_TOOLS.replace(
    "{{ m.content }}", "{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
)
QUESTION = Message("user", "Is it warm in Oslo?")
TEXT = Message("assistant", "I can't say.")


def call(name: str = "weather", arguments: str = '{"city": "Oslo"}', number: int = 1) -> dict[str, Any]:
    return {"id": f"call0000{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any], content: str = "", weight: int = 1) -> Message:
    return Message("assistant", content, weight, {"tool_calls": list(calls or [call()])})


def result(said: str = "21 degrees") -> Message:
    return Message("tool", said, extra={"tool_call_id": "call00001", "name": "weather"})


@pytest.fixture(scope="module")
def tokenizer_of() -> Callable[[str], Any]:
    """The demo's tokenizer with another template, or a family's by its name."""
    families = {name: family_tokenizer(family) for name, family in FAMILIES.items()}
    demo = train_tokenizer(["What is the capital of France? Paris."], max_length=2048)
    own = demo.chat_template

    def tokenizer(template: str) -> Any:
        if template in families:
            return families[template]
        demo.chat_template = own if template == "demo" else template
        return demo

    return tokenizer


def refusal(example: Example, tokenizer: Any) -> RenderError:
    render = {"preference": render_preference, "labelled": render_labelled}.get(example.kind, render_all)
    with pytest.raises(RenderError) as refused:
        render(example, tokenizer, 5000)  # type: ignore[operator]
    return refused.value


@pytest.mark.parametrize(
    "example",
    [
        Example(4, (QUESTION, calling()), (TOOL,)),
        Example(4, (QUESTION, calling(weight=0), result(), TEXT), (TOOL,)),
        Example(4, (QUESTION,), (TOOL,), chosen=(TEXT,), rejected=(calling(),)),
        Example(4, (QUESTION, calling()), (TOOL,), label=True),
        Example(4, (QUESTION, calling(call(arguments="{}")))),
        parse_record({"messages": [{"role": "user", "content": "Warm?"},
                                   {"role": "assistant", "content": None, "function_call": call()["function"]}]}, 4),
    ],
    ids=["learned", "context", "rejected", "labelled", "no arguments", "function_call"],
)  # fmt: skip
def test_calls_that_are_not_rendered_are_refused_wherever_they_stand(
    example: Example, tokenizer_of: Callable[[str], Any]
) -> None:
    error = refusal(example, tokenizer_of(NO_TOOLS))
    assert 'doesn\'t render the call of "weather" in ' in error.reason
    assert "use a base model whose template renders tools" in error.reason
    assert (error.line, "tool_calls" in error.omitted, error.is_too_long) == (4, True, False)
    with pytest.raises(RenderError, match="doesn't render the call"):
        find_omitted(example, tokenizer_of(NO_TOOLS))


@pytest.mark.parametrize("name", [*EXPECTED_TOOLS, "demo"])
def test_nothing_is_missed_where_the_template_renders_tools(name: str, tokenizer_of: Callable[[str], Any]) -> None:
    thinking = tuple(Message(one.role, one.content, one.weight, {**one.extra}) for one in WITH_TOOLS)
    for messages in (
        WITH_TOOLS,
        WITH_TOOLS[:2],
        (QUESTION, TEXT, *thinking),
        (QUESTION, calling(call(arguments="{}"))),
    ):
        rows = render_all(Example(1, messages, (TOOL,)), tokenizer_of(name), 5000)
        assert {row.omitted for row in rows} == {frozenset()}


@pytest.mark.parametrize(
    ("template", "messages", "words"),
    [
        ("llama", (QUESTION, calling(call(), call("tides", number=2))), 'the call of "tides" in message 2'),
        ("llama", (QUESTION, calling(content="I will look.")), "the text of message 2"),
        (CALLED, (QUESTION, calling()), 'the tool "weather"'),
        (NO_TOOLS.replace("m.content", "m.content if m.role != 'tool' else ''"), (QUESTION, calling(), result(), TEXT),
         "the result of a tool in message 3"),
        (NO_TOOLS.replace("m.content", "m.content if m.role != 'system' else '-'"),
         (Message("system", "Be brief."), QUESTION, TEXT), "the text of message 1"),
        (CALLED.replace("| tojson", "| map(attribute='function.name') | join"), (QUESTION, calling()),
         'the arguments of the call of "weather"'),
        ("{% for m in messages %}<|user|>{{ m.content[:9] }}<|end|>{% endfor %}"
         "{% if add_generation_prompt %}<|user|>{% endif %}", (Message("system", "-"), QUESTION, TEXT), "message 2"),
        (NO_TOOLS.replace("m.content", "m.content[-9:]"), (QUESTION, TEXT), "the beginning of the text of message 1"),
    ],
    ids=["parallel", "beside a call", "tools", "result", "system", "arguments", "end of a question", "beginning"],
)  # fmt: skip
def test_what_changes_the_meaning_is_named(
    template: str, messages: tuple[Message, ...], words: str, tokenizer_of: Callable[[str], Any]
) -> None:
    assert words in refusal(Example(1, messages, (TOOL,)), tokenizer_of(template)).reason


@pytest.mark.parametrize(
    ("template", "messages", "parts"),
    [
        (NO_TOOLS, (QUESTION, TEXT), {"tools"}),
        ("qwen2", (Message("user", "Hi", extra={"name": "Ada"}), TEXT), {"names"}),
        ("qwen2", (QUESTION, Message("assistant", "No.", extra={"reasoning": "It snows."})), {"reasoning"}),
        (NO_TOOLS.replace("{{ m.content }}", "{{ m.name }}: {{ m.content }}").replace("<|user|>", ""),
         (Message("user", "Hi", extra={"name": "Ada"}), TEXT), {"tools"}),
        # As the distilled DeepSeek-R1 models' templates: an answer's reasoning is cut off wherever it stands.
        (NO_TOOLS.replace("m.content", "m.content.split('</think>')[-1]"),
         (QUESTION, Message("assistant", "<think>Oslo is cold.</think>No.")), {"reasoning", "tools"}),
    ],
)  # fmt: skip
def test_what_does_not_change_the_meaning_is_counted(
    template: str, messages: tuple[Message, ...], parts: set[str], tokenizer_of: Callable[[str], Any]
) -> None:
    (row,) = render_all(Example(1, messages, (TOOL,)), tokenizer_of(template), 5000)
    assert row.omitted == find_omitted(Example(1, messages, (TOOL,)), tokenizer_of(template)) == parts


def test_descriptions_of_tools_and_of_what_they_take_are_counted(tokenizer_of: Callable[[str], Any]) -> None:
    listed = "{{ t.function.name }}({{ t.function.parameters.properties | list }})"
    named = NO_TOOLS + "{% for t in tools %}" + listed + "{% endfor %}"
    city = {"type": "string", "description": "Where."}
    for function in (
        {"name": "weather", "description": "The weather now.", "parameters": {"type": "object", "properties": {}}},
        {"name": "weather", "parameters": {"type": "object", "properties": {"city": city}}},
    ):
        example = Example(1, (QUESTION, TEXT), ({"type": "function", "function": function},))
        assert find_omitted(example, tokenizer_of(named)) == {"descriptions"}
        assert find_omitted(example, tokenizer_of("qwen2")) == frozenset()


@pytest.mark.parametrize(
    "template",
    [
        NO_TOOLS.replace("m.content }}", "m.content | upper }}"),
        NO_TOOLS.replace("m.content }}", "m.content | tojson }}"),
        NO_TOOLS.replace(
            "{{ m.content", "{{ raise_exception('no') if 'zq' in m.content else '' }}{{ m.content | upper"
        ),
    ],
    ids=["other letters", "as JSON", "particular"],
)
def test_what_is_rendered_otherwise_is_not_taken_for_lost(template: str, tokenizer_of: Callable[[str], Any]) -> None:
    messages = (Message("system", 'Say "no"\nor "yes".'), QUESTION, TEXT)
    (row,) = render_all(Example(1, messages), tokenizer_of(template), 5000)
    assert row.omitted == frozenset()


THOUGHTLESS = NO_TOOLS.replace("m.content", "m.content.split('</think>')[-1]")
MARKED = CALLED.replace("{{ m.content }}", "{% generation %}{{ m.content }}").replace(
    "<|end|>", "<|end|>{% endgeneration %}"
)
MARKED = MARKED.replace("{% if m.tool_calls", "{% endgeneration %}{% if m.tool_calls").replace(
    "<|end|>", "{% generation %}<|end|>"
)


@pytest.mark.parametrize("label", [None, True, False])
def test_an_answer_of_which_only_the_end_token_is_left_is_refused(
    label: bool | None, tokenizer_of: Callable[[str], Any]
) -> None:
    empty = Message("assistant", "<think>Hm.</think>")
    refused = refusal(Example(1, (QUESTION, empty), label=label), tokenizer_of(THOUGHTLESS))
    assert "leave only the end of the turn" in refused.reason
    refused = refusal(Example(1, (QUESTION, calling()), label=label), tokenizer_of(MARKED))
    assert "generation marks leave out message 2" in refused.reason
    for chosen, rejected in ((TEXT, empty), (empty, TEXT)):
        pair = Example(1, (QUESTION,), chosen=(chosen,), rejected=(rejected,))
        assert "leave only the end of the turn" in refusal(pair, tokenizer_of(THOUGHTLESS)).reason


def test_a_completion_of_which_the_tokenizer_makes_no_token_is_refused(tokenizer_of: Callable[[str], Any]) -> None:
    from tokenizers.normalizers import Replace

    tokenizer = tokenizer_of(NO_TOOLS)
    tokenizer.backend_tokenizer.normalizer = Replace("\u200b", "")
    try:
        for example in (
            Example(1, prompt="Say", completion="\u200b"),
            Example(1, (QUESTION, Message("assistant", "\u200b"))),
        ):
            assert "would learn to say nothing" in refusal(example, tokenizer).reason
    finally:
        tokenizer.backend_tokenizer.normalizer = Replace("\u200b", "\u200b")


@pytest.mark.parametrize("name", ["qwen3", "glm"])
def test_a_cut_that_leaves_only_what_opens_any_answer_leaves_nothing(
    name: str, tokenizer_of: Callable[[str], Any]
) -> None:
    tokenizer = tokenizer_of(name)
    said = Message("assistant", "Certainly not.")
    whole = render_labelled(Example(1, (QUESTION, said), label=True), tokenizer, 500)
    opening = next(n for n in range(1, 30) if "C" in tokenizer.decode(whole.completion_ids[:n])) - 1
    assert opening > 0
    cut = len(whole.prompt_ids) + opening
    for example in (
        Example(1, (QUESTION, said)),
        Example(1, (QUESTION, said), label=False),
        Example(1, (QUESTION,), chosen=(said,), rejected=(Message("assistant", "Yes."),)),
    ):
        render: Any = {"preference": render_preference, "labelled": render_labelled}.get(example.kind, render_all)
        with pytest.raises(RenderError) as refused:
            render(example, tokenizer, cut)
        assert refused.value.is_too_long
        assert render(example, tokenizer, cut + 1)


def test_an_answer_of_weight_0_is_no_preference_and_has_no_label() -> None:
    said = {"role": "assistant", "content": "Good day."}
    asked = [{"role": "user", "content": "Hello."}]
    silent = said | {"weight": 0}
    for record in (
        {
            "input": {"messages": asked},
            "preferred_output": [silent],
            "non_preferred_output": [said | {"content": "Go."}],
        },
        {"prompt": asked, "chosen": [said], "rejected": [silent | {"content": "Go."}]},
        {"messages": [*asked, silent], "label": True},
    ):
        with pytest.raises(ExampleError, match="weight 0"):
            parse_record(record, 1)


def records(*messages: Message) -> str:
    return json.dumps(Example(1, messages, (TOOL,)).to_record()) + "\n"


def test_all_examples_are_looked_through_also_where_only_some_become_tokens(
    tokenizer_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_figures, "MOST_RENDERED", 2)
    examples = [Example(line, (QUESTION, TEXT), (TOOL,)) for line in range(1, 6)]
    examples[3] = Example(4, (QUESTION, calling()), (TOOL,))
    config = TrainingConfig.from_dict({"base_model": "x", "training_file": "x", "output_dir": "x"})
    tokens = compute_figures(examples, config, tokenizer_of(NO_TOOLS)).tokens
    assert tokens is not None
    assert (tokens.examples, tokens.not_rendered) == (2, {"tools": 5, "tool_calls": 1})
    assert [fault.line for fault in tokens.faults] == [4]


def test_the_report_and_the_view_say_what_is_not_rendered(
    demo_model: Path, tmp_path: Path, tokenizer_of: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    tokenizer_of(NO_TOOLS).save_pretrained(base)
    (base / "config.json").write_bytes((demo_model / "config.json").read_bytes())
    path = tmp_path / "calls.jsonl"
    path.write_text(records(QUESTION, TEXT) + records(QUESTION, calling()))
    assert main([str(path), "--base-model", str(base)]) == 2
    told = capsys.readouterr()
    assert "with tools: 2 (not rendered by this base model's chat template)\n" in told.out
    assert "not rendered by the base model's chat template: tools in 2, tool calls in 1 (of 2 examples)" in told.out
    assert "line 2: the base model's chat template doesn't render the call" in told.err
    assert show([str(path), "--base-model", str(base)]) == 2
    told = capsys.readouterr()
    assert "; not rendered: tools\n" in told.out
    assert "line 2: the base model's chat template doesn't render the call" in told.err
    question = {"file": str(path), "base_model": str(base), "config": {}, "limit": 9, "offset": 0}
    assert file_report(question)["figures"]["tokens"]["not_rendered"] == {"tools": 2, "tool_calls": 1}
    assert [one["not_rendered"] for one in preview(question)["data"]] == [["tools"], ["tool_calls", "tools"]]
