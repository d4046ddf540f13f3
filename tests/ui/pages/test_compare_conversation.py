"""A conversation with several models, event by event."""

from __future__ import annotations

import json
from functools import reduce
from typing import Any

import pytest

from ui.pages.compare.conversation import Conversation
from ui.server_client import Problem

BASE, TUNED = "base", "ft:base:personal:x:12345678"
MODELS = (BASE, TUNED)


def begin(prompt: str = "Hello?", system: str = "") -> Conversation:
    return Conversation().ask(prompt, MODELS, system, now_s=10.0)


def play(conversation: Conversation, *events: dict[str, Any]) -> Conversation:
    turn = reduce(lambda state, event: state.apply(event, now_s=11.0), events, conversation.turns[-1])
    return conversation.with_last(turn)


def delta(side: str, words: str) -> dict[str, Any]:
    return {"type": "comparison.delta", "side": side, "delta": words}


def side_done(side: str, model: str) -> dict[str, Any]:
    return {
        "type": "comparison.side_done", "side": side, "model": model, "finish_reason": "stop",
        "completion_tokens": 11, "time_to_first_token_s": 0.5, "duration_s": 2.5,
    }  # fmt: skip


def answered(conversation: Conversation, left: str, right: str, comparison_id: str = "cmp_1") -> Conversation:
    return play(
        conversation, delta("left", left), delta("right", right), side_done("left", BASE), side_done("right", TUNED),
        {"type": "comparison.completed", "comparison": {"id": comparison_id}},
    )  # fmt: skip


def user(words: str) -> dict[str, str]:
    return {"role": "user", "content": words}


def assistant(words: str) -> dict[str, str]:
    return {"role": "assistant", "content": words}


def test_deltas_grow_only_their_own_side() -> None:
    left, right = play(begin(), delta("left", "one "), delta("right", "uno"), delta("left", "two")).turns[0].panes
    assert (left.content, right.content) == ("one two", "uno")
    assert (left.phase, left.deltas, left.first_delta_s) == ("writing", 2, 11.0)


def test_speed_counts_the_tokens_after_the_first() -> None:
    assert answered(begin(), "Hi", "Aye").turns[0].panes[0].tokens_per_s == pytest.approx(10 / 2.0)


def test_words_of_another_model_than_asked_are_taken_away() -> None:
    right = play(begin(), delta("right", "not mine"), side_done("right", BASE)).turns[0].panes[1]
    assert (right.phase, right.content) == ("failed", "")
    assert right.problem == Problem("wrong_model", f"{TUNED} ≠ {BASE}")


def test_an_alias_is_answered_by_its_version() -> None:
    done = side_done("right", "ft:base::the-version") | {"requested_model": TUNED}
    right = play(begin(), delta("right", "Aye"), done).turns[0].panes[1]
    assert (right.phase, right.content, right.model) == ("done", "Aye", "ft:base::the-version")


def test_each_model_goes_on_from_its_own_answers() -> None:
    second = answered(begin(system="Be brief."), "Hi", "Aye").ask("And then?", MODELS, "Be brief.", 20.0)
    system = {"role": "system", "content": "Be brief."}
    assert second.histories() == [
        [system, user("Hello?"), assistant("Hi"), user("And then?")],
        [system, user("Hello?"), assistant("Aye"), user("And then?")],
    ]


def test_a_prompt_that_a_model_never_answered_is_not_in_its_history() -> None:
    first = play(begin(), delta("left", "Hi"), side_done("left", BASE))
    failed = first.with_last(first.turns[-1].end(Problem("cut_off")))
    second = failed.ask("And then?", MODELS, "", 20.0)
    assert second.histories() == [[user("Hello?"), assistant("Hi"), user("And then?")], [user("And then?")]]


def test_other_models_begin_a_new_conversation() -> None:
    later = answered(begin(), "Hi", "Aye").ask("And then?", (TUNED, BASE), "", 20.0)
    assert [turn.prompt for turn in later.turns] == ["And then?"]


def test_an_edited_prompt_goes_on_from_there() -> None:
    second = answered(answered(begin(), "Hi", "Aye").ask("And then?", MODELS, "", 20.0), "So", "Arr")
    edited = second.until(1).ask("What else?", MODELS, "", 30.0)
    assert [turn.prompt for turn in edited.turns] == ["Hello?", "What else?"]


def test_a_refresh_gives_everything_back_and_marks_what_was_still_written() -> None:
    running = play(answered(begin(system="S"), "Hi", "Aye").ask("And then?", MODELS, "S", 20.0), delta("left", "So"))
    back = Conversation.from_json(json.loads(json.dumps(running.to_json())))
    assert (back.models, back.system, back.turns[0]) == (MODELS, "S", running.turns[0].__class__(**vars(back.turns[0])))
    assert [pane.content for pane in back.turns[0].panes] == ["Hi", "Aye"]
    assert back.turns[0].comparison_id == "cmp_1"
    assert [(pane.phase, pane.content) for pane in back.turns[1].panes] == [("interrupted", "So"), ("interrupted", "")]
    assert not back.running


@pytest.mark.parametrize(
    "kept",
    [
        {}, {"models": ["a"]}, {"models": 3, "system": "", "turns": []}, {"models": [], "system": "", "turns": [{}]},
        {"models": ["a", "b"], "system": "", "turns": [{"prompt": "", "comparison_id": None, "panes": []}]},
    ],
)  # fmt: skip
def test_what_was_kept_by_another_version_is_an_empty_conversation(kept: dict[str, Any]) -> None:
    assert Conversation.from_json(kept) == Conversation()


def stored(**changes: Any) -> dict[str, Any]:
    sides = {
        side: {"model": model, "content": words, "finish_reason": "stop", "completion_tokens": 2,
               "time_to_first_token_s": 0.1, "duration_s": 0.2}
        for side, model, words in (("left", BASE, "So"), ("right", TUNED, "Arr"))
    }  # fmt: skip
    return {"id": "cmp_9", "blind": False, "messages": [user("Hello?")], "histories": None, **sides, **changes}


def test_a_stored_comparison_is_read_as_a_conversation() -> None:
    read = Conversation.of_comparison(stored())
    assert (read.models, read.turns[0].prompt, read.turns[0].comparison_id) == (MODELS, "Hello?", "cmp_9")
    assert [(pane.phase, pane.content) for pane in read.turns[0].panes] == [("done", "So"), ("done", "Arr")]


def test_a_stored_comparison_with_histories_shows_each_models_own_words() -> None:
    histories = [
        [{"role": "system", "content": "S"}, user("Hello?"), assistant("Hi"), user("And then?")],
        [{"role": "system", "content": "S"}, user("Hello?"), assistant("Aye"), user("And then?")],
    ]
    read = Conversation.of_comparison(stored(messages=None, histories=histories))
    assert [turn.prompt for turn in read.turns] == ["Hello?", "And then?"]
    assert [pane.content for pane in read.turns[0].panes] == ["Hi", "Aye"]
    assert read.system == "S"
    assert read.histories() == histories


def test_a_shared_history_was_every_models_own() -> None:
    read = Conversation.of_comparison(stored(messages=[user("Hello?"), assistant("Hi"), user("And then?")]))
    assert [pane.content for pane in read.turns[0].panes] == ["Hi", "Hi"]


def test_a_blind_comparison_without_names_can_not_go_on() -> None:
    nameless = stored()
    for side in ("left", "right"):
        nameless[side] = nameless[side] | {"model": None}
    read = Conversation.of_comparison(nameless)
    assert read.nameless
    assert [pane.phase for pane in read.turns[0].panes] == ["done", "done"]
