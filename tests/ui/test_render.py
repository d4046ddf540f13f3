"""The HTML that the pages write: foreign words stay words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ui import render
from ui.client import Problem
from ui.i18n import Language
from ui.panes import Comparison, Pane

HOSTILE = "<script>alert(1)</script>\n<img src=x onerror=alert(2)> & \"quotes\" 'too'"
PARSED = ("<script", "<img")


@pytest.mark.parametrize(
    "pane",
    [
        Pane("writing", content=HOSTILE),
        Pane("done", content=HOSTILE, asked_model=HOSTILE, model=HOSTILE),
        Pane("failed", problem=Problem("rejected", HOSTILE)),
    ],
)
def test_foreign_words_are_escaped_wherever_they_stand(pane: Pane) -> None:
    html = render.pane(Comparison(left=pane), "left", "en", now_s=0.0)
    assert not any(tag in html for tag in PARSED)
    assert "&lt;script&gt;" in html


def test_line_breaks_of_an_answer_survive() -> None:
    html = render.pane(Comparison(left=Pane("done", content="one\n\n  two")), "left", "en", now_s=0.0)
    assert "one\n\n  two" in html


def test_waiting_shows_how_long() -> None:
    html = render.pane(Comparison(left=Pane("waiting", asked_s=10.0)), "left", "en", now_s=12.34)
    assert "2.3 s" in html


def test_a_finished_answer_shows_its_numbers_and_that_it_was_cut() -> None:
    done = Pane(
        "done", content="Hi", finish_reason="length", completion_tokens=21, time_to_first_token_s=0.25, duration_s=2.25
    )
    html = render.pane(Comparison(left=done), "left", "en", now_s=0.0)
    for part in ("first token 0.25 s", "10 tokens/s", "21 tokens in 2.2 s", "cut at max tokens"):
        assert part in html
    assert "cut at" not in render.pane(Comparison(left=replace(done, finish_reason="stop")), "left", "en", now_s=0.0)


def test_a_blind_pane_names_nobody() -> None:
    html = render.pane(Comparison(left=Pane("done", content="Hi"), blind=True), "left", "en", now_s=0.0)
    assert "hidden until you vote" in html
    assert "tl-model" not in html


@pytest.mark.parametrize(("language", "said"), [("en", "tuneloop doctor"), ("zh", "模型引擎没有运行")])
def test_a_problem_says_what_to_do_in_the_readers_language(language: Language, said: str) -> None:
    html = render.problem_box(Problem("engine_down", "exited with 137"), language)
    assert said in html
    assert "exited with 137" in html


def test_the_confirmation_reveals_both_names() -> None:
    rated = Comparison(Pane("done", model="base"), Pane("done", model="ft:x"), blind=True, verdict="tie")
    html = render.vote_note(rated, "en")
    assert "A was <b>base</b>" in html
    assert "B was <b>ft:x</b>" in html
