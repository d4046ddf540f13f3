"""The HTML of answers: foreign words stay words, and the numbers are those that the server told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ui.pages.compare import render
from ui.pages.compare.conversation import Conversation, ConversationTurn
from ui.pages.compare.panes import Pane
from ui.server_client import Problem

HOSTILE = "<script>alert(1)</script>\n<img src=x onerror=alert(2)> & \"quotes\" 'too'"
PARSED = ("<script", "<img")


def draw(pane: Pane, other: Pane | None = None, *, now_s: float = 0.0, differences: bool = False) -> str:
    turn = ConversationTurn("Hello?", (pane, other or Pane()))
    return render.pane(turn, 0, "en", now_s, differences=differences)


@pytest.mark.parametrize(
    "pane",
    [
        Pane("writing", content=HOSTILE),
        Pane("done", content=HOSTILE, asked_model=HOSTILE, model=HOSTILE),
        Pane("failed", problem=Problem("rejected", HOSTILE)),
    ],
)
def test_foreign_words_are_escaped_wherever_they_stand(pane: Pane) -> None:
    html = draw(pane, Pane("done", content="other"), differences=True)
    assert not any(tag in html for tag in PARSED)
    assert "&lt;script&gt;" in html


def test_a_prompt_is_escaped_too() -> None:
    turn = ConversationTurn(HOSTILE, (Pane(), Pane()), comparison_id='"><img>')
    conversation = Conversation(("a", "b"), "", (turn, turn))
    html = render.past(conversation, "en", differences=False, shared=False)
    html += render.last_prompt(conversation, "en", shared=False)
    html += render.actions(conversation, "en", differences=False, shared=False)
    assert not any(tag in html for tag in PARSED)


def test_line_breaks_of_an_answer_survive() -> None:
    assert "one\n\n  two" in draw(Pane("done", content="one\n\n  two"))


def test_waiting_shows_how_long() -> None:
    assert "2.3 s" in draw(Pane("waiting", asked_s=10.0), now_s=12.34)


def test_a_finished_answer_shows_its_numbers_and_that_it_was_cut() -> None:
    done = Pane(
        "done", content="Hi", finish_reason="length", completion_tokens=21, time_to_first_token_s=0.25, duration_s=2.25
    )
    html = draw(done)
    for part in ("first token 0.25 s", "10 tokens/s", "21 tokens in 2.2 s", "Max tokens reached"):
        assert part in html
    assert "Max tokens" not in draw(replace(done, finish_reason="stop"))


def test_an_answer_without_a_word_says_so() -> None:
    assert "returned an empty answer" in draw(Pane("done"))


def test_differences_are_marked_only_when_both_answers_are_finished() -> None:
    left = Pane("done", content="The cat sat")
    assert '<mark class="compare-differs">cat</mark>' in draw(
        left, Pane("done", content="The dog sat"), differences=True
    )
    assert "<mark" not in draw(left, Pane("writing", content="The dog sat"), differences=True)
    assert "<mark" not in draw(left, Pane("done", content="The dog sat"))


def test_only_a_stored_comparison_has_a_link() -> None:
    turn = ConversationTurn("Hello?", (Pane("done"), Pane("done")))
    stored = Conversation(("a", "b"), "", (replace(turn, comparison_id="cmp_1"),))
    assert "./?comparison=cmp_1" in render.actions(stored, "en", differences=False, shared=False)
    unstored = Conversation(("a", "b"), "", (turn,))
    assert "?comparison=" not in render.actions(unstored, "en", differences=False, shared=False)
