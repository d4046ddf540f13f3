"""The rating page's state: a pair grows from events, a vote from a form, and a refresh brings back what was kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ui.pages.rate.state import Pair, RateSession, StoredVote, vote_body

SIDE = {"content": "Aye", "finish_reason": "stop", "model": None}
COMPARISON: dict[str, Any] = {
    "id": "cmp_1",
    "messages": [{"role": "user", "content": "Hi"}],
    "left": SIDE,
    "right": SIDE,
}
RATING: dict[str, Any] = {
    "id": "rating_1", "comparison_id": "cmp_1", "verdict": "left", "rater": "Ann",
    "left": {"model": "base"}, "right": {"model": "ft:x"},
}  # fmt: skip


def test_a_pair_can_be_voted_on_only_when_the_server_has_stored_it() -> None:
    pair = Pair().apply({"type": "comparison.created", "comparison_id": "cmp_1"})
    for side in ("left", "right"):
        pair = pair.apply({"type": "comparison.delta", "side": side, "delta": "Aye"})
        pair = pair.apply({"type": "comparison.side_done", "side": side, "finish_reason": "length"})
    assert (pair.left.content, pair.left.finished, pair.right.cut) == ("Aye", True, True)
    assert not pair.complete
    assert pair.apply({"type": "comparison.completed", "comparison": COMPARISON}).complete


def test_a_failed_side_tells_why_and_leaves_the_other_alone() -> None:
    error = {"message": "gone", "code": "engine_failed", "type": "server_error"}
    pair = Pair().apply({"type": "comparison.side_failed", "side": "left", "error": error})
    assert pair.left.problem is not None
    assert pair.left.problem.kind == "engine_down"
    assert pair.right.problem is None


def test_an_event_of_a_newer_server_changes_nothing() -> None:
    assert Pair().apply({"type": "comparison.sparkle", "side": "left"}) == Pair()


def test_a_pair_is_revealed_once_both_names_are_known() -> None:
    assert not Pair.of(COMPARISON).revealed
    named = COMPARISON | {"left": SIDE | {"model": "base"}, "right": SIDE | {"model": "ft:x"}}
    assert Pair.of(named).revealed


def test_a_vote_holds_what_was_filled_in_and_nothing_else() -> None:
    session = RateSession(verdict="tie")
    assert vote_body(session, {"comment": " ", "unsafe": [], "left.relevance": ""}) == {"verdict": "tie"}
    session.rater = "Ann"
    fields = {"left.relevance": "4", "right.fluency": "5", "unsafe": ["left", "right"], "comment": " clear "}
    assert vote_body(session, fields) == {
        "verdict": "tie",
        "dimensions": {"left": {"relevance": 4}, "right": {"fluency": 5}},
        "unsafe": "both",
        "comment": "clear",
        "rater": "Ann",
    }


def test_an_invited_raters_name_is_the_invitations_and_isnt_sent() -> None:
    session = RateSession(verdict="left", rater="Ann", query={"invite": "tl-invite-x"})
    assert "rater" not in vote_body(session, {})


def test_a_vote_after_an_undo_stays_in_the_name_of_the_undone_one() -> None:
    session = RateSession(verdict="left", rater="Bo", supersedes="rating_2", undone_rater="Ann")
    body = vote_body(session, {})
    assert (body["rater"], body["supersedes"]) == ("Ann", "rating_2")


def test_a_refresh_brings_back_the_vote_in_the_making_and_the_one_before() -> None:
    before = RateSession(pair=Pair.of(COMPARISON), verdict="right", supersedes="rating_0", rater="Ann")
    before.last = StoredVote.of(RATING, now_s=1000.0)
    after = RateSession()
    after.restore(json.loads(json.dumps(before.to_keep())))
    assert (after.verdict, after.supersedes, after.rater, after.last) == ("right", "rating_0", "Ann", before.last)


@pytest.mark.parametrize("kept", [{}, {"verdict": "best", "supersedes": 7, "last": {"what": 1}, "rater": None}])
def test_strange_things_in_the_browsers_store_are_dropped(kept: dict[str, Any]) -> None:
    session = RateSession()
    session.restore(kept)
    assert (session.verdict, session.supersedes, session.last, session.rater) == (None, None, None, "")


def test_a_vote_can_be_undone_for_a_minute() -> None:
    stored = StoredVote.of(RATING, now_s=1000.0)
    assert stored.undo_left_s(1012.5) == 47
    assert stored.undo_left_s(1060.0) == 0
    assert stored.undo_left_s(5000.0) == 0
