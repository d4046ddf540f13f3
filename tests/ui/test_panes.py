"""One comparison's state, event by event."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from ui.client import Problem, Question
from ui.panes import Comparison

MODELS = ("base", "ft:base:personal:x:12345678")


def ask(*, blind: bool = False) -> Comparison:
    return Comparison.ask(Question("Hello?", MODELS, blind, 0.7, 64), now_s=10.0)


def play(comparison: Comparison, *events: dict[str, Any]) -> Comparison:
    return reduce(lambda state, event: state.apply(event, now_s=11.0), events, comparison)


def delta(side: str, words: str) -> dict[str, Any]:
    return {"type": "comparison.delta", "side": side, "delta": words}


def side_done(side: str, model: str | None) -> dict[str, Any]:
    return {
        "type": "comparison.side_done", "side": side, "model": model, "finish_reason": "stop",
        "completion_tokens": 11, "time_to_first_token_s": 0.5, "duration_s": 2.5,
    }  # fmt: skip


CREATED = {"type": "comparison.created", "comparison_id": "cmp_1"}
COMPLETED = {"type": "comparison.completed", "comparison": {"id": "cmp_1"}}


def finished(*, blind: bool = False) -> Comparison:
    left, right = (None, None) if blind else MODELS
    return play(
        ask(blind=blind), CREATED, delta("left", "Hi"), delta("right", "Aye"), side_done("left", left),
        side_done("right", right), COMPLETED,
    )  # fmt: skip


def test_deltas_grow_only_their_own_side() -> None:
    state = play(ask(), delta("left", "one "), delta("right", "uno"), delta("left", "two"))
    assert (state.left.content, state.right.content) == ("one two", "uno")
    assert (state.left.phase, state.left.deltas, state.left.first_delta_s) == ("writing", 2, 11.0)


def test_a_vote_is_possible_only_when_both_are_finished_and_stored() -> None:
    steps = [CREATED, delta("left", "Hi"), side_done("left", MODELS[0]), side_done("right", MODELS[1])]
    state = ask()
    for step in steps:
        state = play(state, step)
        assert not state.can_be_rated
    assert play(state, COMPLETED).can_be_rated


def test_speed_counts_the_tokens_after_the_first() -> None:
    assert finished().left.tokens_per_s == pytest.approx(10 / 2.0)


def test_words_of_another_model_than_asked_are_taken_away() -> None:
    state = play(
        ask(), CREATED, delta("right", "not mine"), side_done("left", MODELS[0]), side_done("right", MODELS[0])
    )
    assert (state.right.phase, state.right.content) == ("failed", "")
    assert state.right.problem == Problem("wrong_model", f"{MODELS[1]} ≠ {MODELS[0]}")
    assert not play(state, COMPLETED).can_be_rated


def test_a_blind_comparison_names_nobody_before_the_vote_and_both_after() -> None:
    state = finished(blind=True)
    assert [pane.asked_model or pane.model for pane in state.panes] == [None, None]
    rated = state.rate("right", {"left": {"model": MODELS[1]}, "right": {"model": MODELS[0]}})
    assert [pane.model for pane in rated.panes] == [MODELS[1], MODELS[0]]
    assert not rated.can_be_rated


def test_one_failed_side_leaves_the_other_writing() -> None:
    error = {"message": "gone", "type": "server_error", "param": None, "code": "engine_unavailable"}
    state = play(
        ask(),
        delta("left", "Hi"),
        delta("right", "A"),
        {"type": "comparison.side_failed", "side": "right", "error": error},
    )
    assert (state.left.phase, state.right.phase, state.right.content) == ("writing", "failed", "A")
    assert state.right.problem == Problem("engine_down", "gone")


def test_a_cut_connection_fails_only_what_was_unfinished() -> None:
    state = play(ask(), side_done("left", MODELS[0])).fail(Problem("cut_off"))
    assert (state.left.phase, state.right.phase) == ("done", "failed")


def test_stopping_keeps_the_text_and_refuses_later_words() -> None:
    state = play(play(ask(), CREATED, delta("left", "half")).stop(), delta("left", " more"))
    assert (state.left.phase, state.left.content, state.can_be_rated) == ("stopped", "half", False)


def test_a_comparison_that_the_server_did_not_store_says_why() -> None:
    error = {"message": "Both answers are empty", "type": "invalid_request_error", "code": "empty_answers"}
    state = play(
        ask(),
        side_done("left", MODELS[0]),
        side_done("right", MODELS[1]),
        {"type": "comparison.failed", "error": error},
    )
    assert state.problem == Problem("empty_answers", "Both answers are empty")
    assert not state.can_be_rated


def test_events_of_a_newer_server_are_passed_over() -> None:
    state = ask()
    assert play(state, {"type": "comparison.weather", "side": "left"}) == state


def test_speed_of_an_answer_that_came_all_at_once_is_not_told() -> None:
    burst = side_done("left", MODELS[0]) | {"time_to_first_token_s": 0.3, "duration_s": 0.3002, "completion_tokens": 23}
    assert play(ask(), CREATED, delta("left", "Hi"), burst).left.tokens_per_s is None
