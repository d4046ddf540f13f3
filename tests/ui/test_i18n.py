"""Both languages say everything, ask for the same values, and keep to the terms of docs/style.md."""

from __future__ import annotations

import json
import re
import string
import typing

import pytest

from server.settings import Settings
from ui.frame import style
from ui.html.elements import PAGES
from ui.pages.keys.chinese_settings import SETTINGS_IN_CHINESE
from ui.server_client import ProblemKind
from ui.words.i18n import TEXTS, Language, text

# What the pages don't say, as patterns: a dialect of our own, and words that docs/style.md has another term for.
BANNED: dict[Language, tuple[str, ...]] = {
    "en": (
        "told", "tells", "whoever", "shall", "anew", "mend", "nobody", "perhaps", "for good", "all the same", "at once",
        "be read", "so many", "go(es)? on", "take[sn]? (in|back)", "look(s|ed)? (again|through)", "much alike",
        "foreseen", "said before", "not there any more", "br(eak|oke)s? off", "held up", "wants? an", "by heart",
        "learned", "votes?", "voted", "judged?", "judgements?", "faults?", "drawn?", "draws", "h[oe]ld back",
        "stands? for", "labelled", "model engine",
    ),
    "zh": (
        "您", "基础模型", "投票", "[张这]票", "模型引擎", "起点模型", "学习部分", "遮盖", "去掉", "死记硬背",
        "可见分晓", "抽取", "会发生什么", "再看一次", "还没有", "那里为准",
    ),
}  # fmt: skip


def fields(words: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name}


def test_both_languages_have_the_same_keys() -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()


@pytest.mark.parametrize("key", TEXTS["en"])
def test_each_text_is_translated_and_takes_the_same_values(key: str) -> None:
    assert TEXTS["en"][key].strip()
    # Signs and names, such as α and LoRA, are the same everywhere.
    assert TEXTS["zh"][key] != TEXTS["en"][key] or not re.search("[a-z]{3}", TEXTS["en"][key])
    assert fields(TEXTS["zh"][key]) == fields(TEXTS["en"][key])


def test_each_setting_is_described_in_chinese() -> None:
    assert SETTINGS_IN_CHINESE.keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("kind", typing.get_args(ProblemKind))
def test_each_kind_of_problem_has_friendly_words(kind: str) -> None:
    assert f"error.{kind}" in TEXTS["en"]


@pytest.mark.parametrize(
    ("language", "word"), [(language, word) for language, words in BANNED.items() for word in words]
)
def test_no_text_uses_a_word_that_was_dropped(language: Language, word: str) -> None:
    pattern = re.compile(rf"\b(?:{word})\b" if language == "en" else word, re.IGNORECASE)
    texts = dict(TEXTS[language], **SETTINGS_IN_CHINESE) if language == "zh" else TEXTS[language]
    spoken = {key: re.sub(r"\{\w+\}", "", words) for key, words in texts.items()}
    assert [key for key, words in spoken.items() if pattern.search(words)] == []


@pytest.mark.parametrize("language", typing.get_args(Language))
def test_percents_and_ellipses_are_set_alike(language: Language) -> None:
    odd = re.compile(r"[\d}] %|\.\.\.|……")
    assert [key for key, words in TEXTS[language].items() if odd.search(words)] == []


@pytest.mark.parametrize("language", typing.get_args(Language))
def test_each_page_names_itself_in_the_browsers_title(language: Language) -> None:
    titles = [style.title(page, language) for page in PAGES]
    assert len(set(titles)) == len(PAGES)
    for page, title in zip(PAGES, titles, strict=True):
        assert title == f"{TEXTS[language][f'{page}.title']} · tuneloop"
        assert all(json.dumps(title) in js for js in (style.open_js(page), style.language_js(page)))


def test_values_are_put_in() -> None:
    assert text("en", "pane.tokens", count=12, seconds="0.5") == "12 tokens in 0.5 s"


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError):
        text("en", "no.such.key")
