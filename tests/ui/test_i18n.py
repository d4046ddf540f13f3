"""Both languages say everything, and ask for the same values."""

from __future__ import annotations

import re
import string
import typing

import pytest

from ui.server_client import ProblemKind
from ui.words.i18n import TEXTS, text


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


@pytest.mark.parametrize("kind", typing.get_args(ProblemKind))
def test_each_kind_of_problem_has_friendly_words(kind: str) -> None:
    assert f"error.{kind}" in TEXTS["en"]


def test_values_are_put_in() -> None:
    assert text("en", "pane.tokens", count=12, seconds="0.5") == "12 tokens in 0.5 s"


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError):
        text("en", "no.such.key")
