"""Cleaning: what is changed, what goes and why, in several languages; and that rows stream from file to files."""

from __future__ import annotations

import json
import random
import tracemalloc
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.config.config import ConfigError
from training.data.cleaning.clean import (
    CleaningConfig,
    CleaningFiles,
    CleaningReport,
    Dropped,
    Kept,
    SplitFractions,
    clean,
    clean_file,
)
from training.data.examples import Example, Message
from training.data.formats.read import DataError, Fault, read_examples

LONG = (
    "Photosynthesis is the process by which green plants turn sunlight, water and carbon dioxide into sugar and air. "
    "It takes place in the chloroplasts, mostly of the leaves, and feeds nearly all life on earth in the end."
)


def chat(answer: str, question: str = "Why?", line: int = 1, **extra: Any) -> Example:
    return Example(line, (Message("user", question), Message("assistant", answer, extra=extra)))


def outcomes(*examples: Example, **config: Any) -> list[Kept | Dropped]:
    return list(clean(examples, CleaningConfig(**config)))


def answer_of(outcome: Kept | Dropped) -> str:
    assert isinstance(outcome, Kept), outcome
    return outcome.example.messages[-1].content


def reasons(*examples: Example, **config: Any) -> list[str | None]:
    return [outcome.reason if isinstance(outcome, Dropped) else None for outcome in outcomes(*examples, **config)]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("Cafe\u0301", "Café"),
        ("e\u0301\u0323", "ẹ́"),
        ("Cafe\u200b\u0301", "Café"),
        ("ｆｕｌｌ x² ﬁ", "ｆｕｌｌ x² ﬁ"),  # compatibility forms carry meaning: no NFKC
        ("a\x00b\x07c\x1bd\x7fe\x9ff", "abcdef"),
        ("a\tb\nc", "a\tb\nc"),
        ("\ufeffzero\u200bwidth\u2060 here\u00ad", "zerowidth here"),
        ("safe\u202etxt.exe\u202c", "safetxt.exe"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian needs the non-joiner
        ("क्\u200dष", "क्\u200dष"),  # Devanagari half form
        ("ශ්\u200dරී", "ශ්\u200dරී"),
        ("ന്\u200d", "ന്\u200d"),  # Malayalam chillu at a word's end
        ("Auf\u200clage, jo\u200din", "Auflage, join"),
        ("👩\u200d👩\u200d👧 ❤️\u200d🔥 👋🏽", "👩\u200d👩\u200d👧 ❤️\u200d🔥 👋🏽"),
        ("👩\u200d end", "👩 end"),
        ("🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", None),  # the flag of England
        ("hi\U000e0069\U000e0067\U000e006e there", "hi there"),  # text smuggled in tags
        ("שלום\u200f (a)", "שלום\u200f (a)"),
        ("left\u200eright", "leftright"),
        ("one\r\ntwo\rthree\u2028four\x85five\x0bsix", "one\ntwo\nthree\nfour\nfive\nsix"),
        ("你好，世界。　こんにちは", "你好，世界。　こんにちは"),
        ("한국어 Ελληνικά русский", "한국어 Ελληνικά русский"),
    ],
)
def test_unicode_is_made_uniform_without_harm(given: str, wanted: str | None) -> None:
    outcome = outcomes(chat(given))[0]
    assert answer_of(outcome) == (given if wanted is None else wanted)
    assert isinstance(outcome, Kept)
    assert outcome.changes == (() if wanted in (None, given) else ("unicode",))


def test_hangul_in_letters_is_composed() -> None:
    assert answer_of(outcomes(chat("\u1112\u1161\u11ab\u1100\u116e\u11a8"))[0]) == "한국"


CODE = "Run this:\n\n```python\ndef f():   \n\n\n\n\n    return 1  \t\n```\n\nDone."
INDENTED = "Like so:\n\n    x = 1  \n\n\n\n\n    y = 2\t\n\nDone."


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("one  \ntwo\t\nthree", "one\ntwo\nthree"),
        ("一　\n二\u00a0\n三", "一\n二\n三"),
        ("\n\n one\ntwo \n\n", "one\ntwo"),
        ("one\n\n\n\n\ntwo", "one\n\n\ntwo"),
        ("one\n\n\ntwo", "one\n\n\ntwo"),
        ("one\n  \n \t \n   \n\ntwo", "one\n\n\ntwo"),
        ("a  |  b\n- x\n  - y", "a  |  b\n- x\n  - y"),
        (CODE, CODE),
        (CODE + "  \nbye ", CODE + "\nbye"),
        (CODE.replace("```", "~~~"), CODE.replace("```", "~~~")),
        ("````\n```\na  \n````\nb  \nc", "````\n```\na  \n````\nb\nc"),
        ("```\nnever closed  \n\n\n\n\nend", "```\nnever closed  \n\n\n\n\nend"),
        (INDENTED, INDENTED),
        ("    first()  \n    second()", "    first()  \n    second()"),
    ],
)
def test_white_space_is_made_uniform_but_not_in_code(given: str, wanted: str) -> None:
    outcome = outcomes(chat(given))[0]
    assert answer_of(outcome) == wanted
    assert isinstance(outcome, Kept)
    assert outcome.changes == (("whitespace",) if given != wanted else ())


def test_a_second_cleaning_changes_nothing_and_no_visible_character_is_lost() -> None:
    draw = random.Random(3)
    pieces = [
        *"ab \t\n\r`~eé中ש",
        "\n\n\n",
        "```",
        "    ",
        "\u0301",
        "\u200b",
        "\u200d",
        "\u200e",
        "👩",
        "\u3000",
        "\x0b",
    ]
    for _ in range(3000):
        text = "".join(draw.choices(pieces, k=draw.randint(1, 14))) + "."
        once = outcomes(chat(text + "x"))[0]
        assert isinstance(once, Kept)
        assert outcomes(once.example) == [Kept(once.example)]
        assert visible(answer_of(once)) == visible(text) + "x"


def visible(text: str) -> str:
    """The characters of `text` that can be seen, in NFC."""
    seen = "".join(character for character in text if character.isprintable() and not character.isspace())
    return unicodedata.normalize("NFC", seen)


def test_edges_between_prompt_and_completion_stay() -> None:
    example = Example(1, prompt="Q: why?  \nA: ", completion=" because  \nof this\n")
    outcome = outcomes(example)[0]
    assert isinstance(outcome, Kept)
    assert (outcome.example.prompt, outcome.example.completion) == ("Q: why?\nA: ", " because\nof this\n")


def test_every_text_of_an_example_is_cleaned() -> None:
    dirty, tidy = "a\u200bb ", "ab"
    preference = Example(
        1,
        (Message("system", dirty), Message("user", dirty)),
        chosen=(Message("assistant", dirty + "1 "),),
        rejected=(Message("assistant", dirty + "2 "),),
    )
    cleaned = [outcome.example for outcome in outcomes(preference, Example(2, text=dirty)) if isinstance(outcome, Kept)]
    assert [message.content for message in cleaned[0].messages] == [tidy, tidy]
    assert (cleaned[0].chosen[0].content, cleaned[0].rejected[0].content) == ("ab 1", "ab 2")
    assert cleaned[1].text == tidy


def test_reasoning_is_cleaned_and_masked_too() -> None:
    outcome = outcomes(chat("yes", reasoning="ask\u200b jo@example.org "), personal_data="mask")[0]
    assert isinstance(outcome, Kept)
    assert outcome.example.messages[1].extra == {"reasoning": "ask [EMAIL]"}
    assert outcome.changes == ("unicode", "whitespace", "masked")


def test_nothing_is_changed_when_the_rules_are_off() -> None:
    example = chat("a\u200bb  \n")
    assert outcomes(example, normalize_unicode=False, normalize_whitespace=False) == [Kept(example)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("\u200b\ufeff", "empty_answer"),
        (" \x00\n", "empty_answer"),
        ("...", "short_answer"),
        ("—?!", "short_answer"),
        ("Yes", None),
        ("是", None),
        ("7", None),
        ("👍", None),
        ("+", None),
    ],
)
def test_empty_and_wordless_answers_go(answer: str, reason: str | None) -> None:
    assert reasons(chat(answer)) == [reason]


@pytest.mark.parametrize(
    ("answer", "words", "reason"),
    [
        ("two words", 3, "short_answer"),
        ("three words here", 3, None),
        ("好的吧", 3, None),
        ("はい", 3, "short_answer"),
        ("그래요 좋아요", 3, "short_answer"),
        ("ครับผม", 3, None),
    ],
)
def test_words_are_counted_in_every_script(answer: str, words: int, reason: str | None) -> None:
    assert reasons(chat(answer), min_answer_words=words) == [reason]


def test_one_long_answer_is_enough_and_only_learned_ones_count() -> None:
    turns = (Message("user", "a"), Message("assistant", "Ok"), Message("user", "b"), Message("assistant", LONG))
    unlearned = (*turns[:3], replace(turns[3], weight=0))
    assert reasons(Example(1, turns), Example(2, unlearned), min_answer_chars=10) == [None, "short_answer"]


def test_answer_that_only_calls_a_tool_is_not_empty() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert reasons(chat("", tool_calls=[call])) == [None]


def test_bad_answers_may_be_short() -> None:
    good, bad = (replace(chat("no"), label=label) for label in (True, False))
    preference = Example(
        3, (Message("user", "q"),), chosen=(Message("assistant", LONG),), rejected=(Message("assistant", "no"),)
    )
    assert reasons(good, bad, preference, min_answer_words=2) == ["short_answer", None, None]


def test_preference_between_equal_answers_goes() -> None:
    answers = [(Message("assistant", text),) for text in ("the same", "the same ")]
    example = Example(1, (Message("user", "q"),), chosen=answers[0], rejected=answers[1])
    assert reasons(example) == ["same_answers"]


def test_length_is_that_of_the_whole_row() -> None:
    found = reasons(chat("a" * 5), chat("b" * 10), chat("c" * 20), min_chars=10, max_chars=20)
    assert found == ["too_short", None, "too_long"]


def test_exact_duplicates_go_and_name_the_first_line() -> None:
    rows = [chat(LONG, line=3), chat(LONG.replace(" ", "  "), line=4), chat(LONG, "Who?", line=5), chat(LONG, line=9)]
    found = outcomes(*rows, near_duplicates=None)
    assert [outcome.detail for outcome in found if isinstance(outcome, Dropped)] == ["it is the same as line 3"] * 2


def test_rows_that_differ_in_roles_tools_calls_or_label_are_not_duplicates() -> None:
    def call(city: str) -> dict[str, Any]:
        return {"id": "1", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}

    plain = chat("yes")
    rows = [
        plain,
        replace(plain, messages=(replace(plain.messages[0], role="system"), plain.messages[1])),
        replace(plain, tools=({"type": "function", "function": {"name": "f"}},)),
        replace(plain, label=True),
        replace(plain, label=False),
        chat("", tool_calls=[call("Oslo")]),
        chat("", tool_calls=[call("Rome")]),
    ]
    assert reasons(*rows, near_duplicates=None) == [None] * 7


def test_nearly_equal_answers_of_which_one_is_good_and_one_bad_both_stay() -> None:
    rows = [replace(chat(answer), label=label) for answer, label in ((LONG, True), (LONG + " x", False), (LONG, True))]
    assert reasons(*rows) == [None, None, "exact_duplicate"]


def test_near_duplicates_go_where_asked() -> None:
    rows = [chat(LONG, line=1), chat(LONG.upper().replace(",", ""), line=2), chat(LONG[:90], line=3)]
    assert reasons(*rows) == [None, "near_duplicate", None]
    assert reasons(*rows, near_duplicates=None) == [None, None, None]


def test_near_duplicates_ignore_the_system_message() -> None:
    rows = [
        Example(line, (Message("system", LONG), Message("user", f"ask {line}"), Message("assistant", f"say {-line}")))
        for line in range(5)
    ]
    assert reasons(*rows) == [None] * 5


def test_many_rows_are_told_apart() -> None:
    rows = [chat(f"answer {number % 3000}", line=number) for number in range(6000)]
    found = outcomes(*rows, near_duplicates=None)
    assert all(isinstance(outcome, Kept) for outcome in found[:3000])
    details = [outcome.detail for outcome in found[3000:] if isinstance(outcome, Dropped)]
    assert details == [f"it is the same as line {number}" for number in range(3000)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (LONG, None),
        ("Die Photosynthese ist ein Vorgang, bei dem grüne Pflanzen Licht in Zucker verwandeln.", "language"),
        ("光合作用是绿色植物利用阳光、水和二氧化碳制造糖类的过程。", "language"),
        ("これは植物が太陽の光を使って糖を作る過程です。", "language"),
        ("Ja.", None),  # too short to tell
        ("```python\nfor wort in liste:\n    print(wort, nicht_dabei)\n```", None),
    ],
)
def test_rows_in_other_languages_go(answer: str, reason: str | None) -> None:
    assert reasons(chat(answer), languages=["en"]) == [reason]


def test_several_languages_can_stay() -> None:
    rows = [
        chat(LONG),
        chat("光合作用是绿色植物利用阳光、水和二氧化碳制造糖类的过程。"),
        chat("Это длинный русский текст о растениях."),
    ]
    assert reasons(*rows, languages=("en", "zh")) == [None, None, "language"]


def test_personal_data_is_flagged_masked_dropped_or_ignored() -> None:
    example = chat("Write to jo@example.org or +49 30 123456.")
    flagged, masked, dropped, ignored = (
        outcomes(example, personal_data=policy)[0] for policy in ("flag", "mask", "drop", "ignore")
    )
    assert flagged == Kept(example, (), ("email", "phone"))
    assert answer_of(masked) == "Write to [EMAIL] or [PHONE]."
    assert isinstance(masked, Kept)
    assert masked.changes == ("masked",)
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "personal_data"
    assert ignored == Kept(example)


def test_arguments_of_tool_calls_are_masked_and_stay_json() -> None:
    arguments = json.dumps({"to": ["jo@example.org"], "phone": 13812345678, "n": 2})
    call = {"id": "1", "type": "function", "function": {"name": "send", "arguments": arguments}}
    outcome = outcomes(chat("", tool_calls=[call]), personal_data="mask")[0]
    assert isinstance(outcome, Kept)
    written = outcome.example.messages[1].extra["tool_calls"][0]
    assert json.loads(written["function"]["arguments"]) == {"to": ["[EMAIL]"], "phone": "[PHONE]", "n": 2}
    assert written["id"] == "1"


def test_every_fault_of_a_config_is_told() -> None:
    with pytest.raises(ConfigError) as raised:
        CleaningConfig(
            min_chars=-1,
            near_duplicates=2.0,
            languages=("xx", "en"),
            personal_data="hide",
            max_chars=-5,  # type: ignore[arg-type]
        )
    text = str(raised.value)
    assert len(raised.value.faults) == 6
    for name in ("min_chars", "max_chars", "near_duplicates", "languages` has 'xx';", "hide"):
        assert name in text


def test_rows_are_cleaned_as_they_come() -> None:
    taken: list[int] = []

    def rows() -> Iterator[Example]:
        for line in range(1, 100):
            taken.append(line)
            yield chat(f"answer {line}", line=line)

    stream = clean(rows(), CleaningConfig())
    next(stream)
    next(stream)
    assert taken == [1, 2]


def test_memory_holds_digests_not_rows() -> None:
    rows = (chat(f"{number} {LONG * 8}", line=number) for number in range(4000))
    tracemalloc.start()
    try:
        for _ in clean(rows, CleaningConfig(near_duplicates=None, personal_data="ignore")):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4000 * 150


def test_a_faulty_row_is_set_aside_once_with_all_its_faults() -> None:
    rows = [Fault(7, "no `a`"), Fault(7, "no `b`"), Fault(8, "no `c`"), chat("yes"), Fault(9, "no `d`")]
    found = [outcome for outcome in clean(rows, CleaningConfig()) if isinstance(outcome, Dropped)]
    assert [(outcome.line, outcome.reason, outcome.detail) for outcome in found] == [
        (7, "fault", "no `a`; no `b`"),
        (8, "fault", "no `c`"),
        (9, "fault", "no `d`"),
    ]


def test_the_report_counts_and_shows_without_personal_data() -> None:
    report = CleaningReport()
    rows = [chat("Write to jo@example.org. ", line=4), chat("...", line=5), chat(LONG, line=6), chat(LONG, line=8)]
    for outcome in clean(rows, CleaningConfig()):
        report.count(outcome)
    assert (report.read, report.kept) == (4, 2)
    assert report.dropped == {"short_answer": 1, "exact_duplicate": 1}
    assert report.changed == {"whitespace": 1}
    assert report.personal_data == {"email": 1}
    text = report.to_text()
    assert "4 rows read, 2 kept, 2 dropped (50.0%)" in text
    assert "line 8: it is the same as line 6" in text
    assert "jo@example.org" not in text + json.dumps(report.to_dict())
    assert json.loads(json.dumps(report.to_dict()))["samples"]["email"][0]["line"] == 4


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def alpaca(instruction: str, output: str) -> dict[str, str]:
    return {"instruction": instruction, "output": output}


ROWS = [alpaca("a?", "one "), alpaca("b?", "…"), '{"instruction": \n', alpaca("a?", "one"), alpaca("c?", "Größe 你好")]


def test_a_file_becomes_kept_dropped_and_report(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "raw.jsonl", ROWS)
    files = CleaningFiles.at(tmp_path / "out", split=False)
    seen: list[int | None] = []
    report = clean_file(source, files, CleaningConfig(), on_row=seen.append)
    assert [example.messages[1].content for example in read_examples(files.kept[0])] == ["one", "Größe 你好"]
    assert json.loads(files.kept[0].read_text(encoding="utf-8").splitlines()[0])["messages"][0]["role"] == "user"
    dropped = [json.loads(line) for line in files.dropped.read_text(encoding="utf-8").splitlines()]
    assert [(row["line"], row["reason"]) for row in dropped] == [
        (2, "short_answer"),
        (3, "fault"),
        (4, "exact_duplicate"),
    ]
    assert dropped[0]["record"]["messages"][1]["content"] == "…"
    assert dropped[1]["record"] is None
    assert json.loads(files.report.read_text(encoding="utf-8")) == json.loads(json.dumps(report.to_dict()))
    assert seen == [1, 2, 3, 4, 5]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dropped.jsonl", "kept.jsonl", "report.json"]


def test_a_named_file_has_the_others_beside_it(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "raw.jsonl", ROWS)
    clean_file(source, CleaningFiles.at(tmp_path / "clean.jsonl", split=False), CleaningConfig())
    assert {path.name for path in tmp_path.glob("clean*")} == {
        "clean.jsonl",
        "clean.dropped.jsonl",
        "clean.report.json",
    }


def test_kept_rows_are_split(tmp_path: Path) -> None:
    rows = [alpaca(f"question {n} x{n} y{n} z{n}", f"answer a{n} b{n} c{n}") for n in range(50)]
    source = write_rows(tmp_path / "raw.jsonl", [*rows, rows[0]])
    files = CleaningFiles.at(tmp_path / "out", split=True)
    report = clean_file(source, files, CleaningConfig(), split=SplitFractions(0.2, 0.1, seed=3))
    parts = [read_examples(path) for path in files.kept]
    assert [path.name for path in files.kept] == ["train.jsonl", "validation.jsonl", "holdout.jsonl"]
    assert [len(part) for part in parts] == [35, 10, 5]
    assert report.parts == {"training": 35, "validation": 10, "holdout": 5}
    questions = {example.messages[0].content for part in parts for example in part}
    assert questions == {row["instruction"] for row in rows}
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "raw.jsonl", ROWS)
    files = CleaningFiles.at(tmp_path / "out", split=False)
    files.dropped.parent.mkdir()
    files.dropped.write_text("mine")
    with pytest.raises(ConfigError, match=r"dropped\.jsonl already exists"):
        clean_file(source, files, CleaningConfig())
    assert files.dropped.read_text() == "mine"
    assert not files.kept[0].exists()


def test_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "raw.jsonl", ROWS)
    with pytest.raises(ConfigError, match=r"Can't write to .*raw\.jsonl.*--output"):
        clean_file(source, CleaningFiles.at(source / "out", split=False), CleaningConfig())


@pytest.mark.parametrize("content", [None, ""])
def test_a_cleaning_that_fails_leaves_no_files(tmp_path: Path, content: str | None) -> None:
    source = tmp_path / "raw.jsonl"
    if content is not None:
        source.write_text(content)
    files = CleaningFiles.at(tmp_path / "out", split=True)
    with pytest.raises(DataError, match=r"raw\.jsonl"):
        clean_file(source, files, CleaningConfig(), split=SplitFractions(0.1, 0.1))
    assert not files.kept[0].parent.exists() or list(files.kept[0].parent.iterdir()) == []


def test_fractions_beyond_a_half_are_refused() -> None:
    with pytest.raises(ConfigError, match="holdout_fraction"):
        SplitFractions(0.1, 0.6)
