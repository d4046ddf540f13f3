"""The rating page's HTML: foreign words stay words, a blind pair names nobody, the way back ends with its minute."""

from __future__ import annotations

from typing import Any

import pytest

from ui.pages.rate import render
from ui.pages.rate.state import Answer, Pair, RateSession, StoredVote
from ui.server_client import Problem

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> & \"quotes\" 'too'"
MESSAGES = ({"role": "user", "content": HOSTILE}, {"role": HOSTILE, "content": [{"type": "text", "text": HOSTILE}]})


def hostile_session() -> RateSession:
    answer = Answer(HOSTILE, True, model=HOSTILE, problem=Problem("rejected", HOSTILE))
    session = RateSession(query={"invite": "x"}, campaign={"id": "c", "name": HOSTILE}, rater=HOSTILE, phase="scoring")
    session.pair = Pair(HOSTILE, MESSAGES, answer, answer, True)
    session.verdict, session.trouble = "left", Problem("rejected", HOSTILE)
    session.last = StoredVote("r", "c", "left", HOSTILE, HOSTILE, "", 0.0)
    return session


@pytest.mark.parametrize("draw", ["heading", "panes", "voting", "notice", "asking"])
def test_foreign_words_are_escaped_wherever_they_stand(draw: str) -> None:
    words: Any = getattr(render, draw)(hostile_session())
    assert "<script" not in words
    assert "<img" not in words


def test_foreign_model_names_are_escaped_in_the_stored_vote() -> None:
    words = render.last_vote(hostile_session(), now_s=0.0)
    assert "&lt;script&gt;" in words
    assert "<script" not in words


def test_a_blind_pair_names_nobody() -> None:
    session = RateSession(pair=Pair("cmp_1", (), Answer("a", True), Answer("b", True), True), phase="voting")
    words = render.panes(session)
    assert words.count("Hidden until you rate") == 2
    assert "rate-model" not in words


def test_undo_is_offered_while_it_works_and_not_after() -> None:
    session = RateSession(last=StoredVote("r", "c", "tie", "base", "ft:x", "Ann", at_s=100.0))
    assert 'data-countdown="30"' in render.last_vote(session, now_s=130.0)
    late = render.last_vote(session, now_s=170.0)
    assert "rate-undo" not in late
    assert "ft:x" in late


@pytest.mark.parametrize(
    ("campaign", "remaining", "title"),
    [
        ({"status": "open"}, 0, "All done. Thank you!"),
        ({"status": "generating"}, 0, "Nothing to rate right now"),
        ({"status": "open"}, 3, "Nothing to rate right now"),
        ({"status": "closed"}, 3, "This campaign is closed"),
    ],
)
def test_a_rater_without_a_pair_is_told_why(campaign: dict[str, str], remaining: int, title: str) -> None:
    session = RateSession(campaign=campaign, remaining=remaining, phase="finished", query={"invite": "x"})
    assert title in render.panes(session)


def test_an_invitation_that_isnt_valid_any_more_is_told_in_the_raters_words() -> None:
    session = RateSession(query={"invite": "x"}, trouble=Problem("unauthorized", "The invitation is revoked."))
    assert "Ask the person who sent it" in render.notice(session)


def test_a_campaign_without_scores_asks_for_none() -> None:
    session = RateSession(phase="scoring", pair=Pair("cmp_1"), campaign={"id": "c", "dimensions": False})
    assert "data-score" not in render.voting(session)
    session.campaign = {"id": "c", "dimensions": True}
    assert render.voting(session).count("data-score") == 8
