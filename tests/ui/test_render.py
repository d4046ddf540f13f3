"""The HTML that all pages share."""

from __future__ import annotations

import pytest

from ui.html import elements
from ui.server_client import Problem
from ui.words.i18n import Language


@pytest.mark.parametrize(("language", "said"), [("en", "tuneloop doctor"), ("zh", "推理引擎未运行")])
def test_a_problem_says_what_to_do_in_the_readers_language(language: Language, said: str) -> None:
    html = elements.problem_box(Problem("engine_down", "exited with 137"), language)
    assert said in html
    assert "exited with 137" in html


@pytest.mark.parametrize("page", elements.PAGES)
def test_the_top_bar_links_every_page_and_marks_this_one(page: str) -> None:
    html = elements.top("en", page)
    assert html.count("aria-current=page") == 1
    assert html.count("<a href=") == len(elements.PAGES)
    assert "http" not in html


@pytest.mark.parametrize(("language", "words"), [("en", "Upload examples"), ("zh", "上传数据集")])
def test_without_a_tuned_model_the_first_way_to_one_is_a_click(language: Language, words: str) -> None:
    html = elements.empty_state(language, has_base=True)
    assert f'href="data">{words}</a>' in html
