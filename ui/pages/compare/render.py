"""Renders the Compare page's conversation as HTML: prompts, answers with their numbers, differences, actions.

Knows nothing of Gradio and HTTP; `ui.frame.live` handles the actions (`data-do`).
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ui.html.templates import render
from ui.pages.compare.conversation import Conversation, ConversationTurn
from ui.pages.compare.difference import Piece, mark_differences
from ui.pages.compare.panes import SIDES, Pane
from ui.words.i18n import Language, text

LETTERS = "ABCD"


def introduction(language: Language) -> Markup:
    """Return the page's heading, with a link to blind rating."""
    return _render("introduction", language)


def past(conversation: Conversation, language: Language, *, differences: bool, shared: bool) -> Markup:
    """Return all turns except the last."""
    turns = [
        (
            prompt(turn, number, language, shared=shared),
            [pane(turn, place, language, 0.0, differences=differences) for place in range(len(turn.panes))],
        )
        for number, turn in enumerate(conversation.turns[:-1])
    ]
    return _render("past", language, turns=turns)


def prompt(turn: ConversationTurn, number: int, language: Language, *, shared: bool) -> Markup:
    """Return a prompt, with the button to edit it."""
    return _render("prompt", language, prompt=turn.prompt, number=number, can_edit=not shared)


def last_prompt(conversation: Conversation, language: Language, *, shared: bool) -> Markup:
    """Return the last turn's prompt; '' for an empty conversation."""
    if not conversation.turns:
        return Markup()
    number = len(conversation.turns) - 1
    return prompt(conversation.turns[-1], number, language, shared=shared or conversation.running)


def pane(turn: ConversationTurn, place: int, language: Language, now_s: float, *, differences: bool) -> Markup:
    """Return one answer, with its model above and its progress below; `now_s` is on the clock of `Pane.asked_s`."""
    shown = turn.panes[place]
    return _render(
        "pane",
        language,
        pane=shown,
        side=SIDES[place],
        letter=LETTERS[place],
        model=shown.model or shown.asked_model,
        remark=_remark(shown),
        pieces=_pieces(turn, place, differences=differences),
        status=_status(shown, language, now_s),
        numbers=_numbers(shown, language, now_s),
        is_cut=shown.phase == "done" and shown.finish_reason == "length",
    )


def _remark(shown: Pane) -> str | None:
    """Return the key of the text that is shown if there is no answer."""
    if shown.phase == "empty":
        return "pane.none"
    return "pane.no_words" if shown.phase == "done" and not shown.content else None


def _pieces(turn: ConversationTurn, place: int, *, differences: bool) -> Sequence[Piece]:
    shown = turn.panes[place]
    if shown.phase == "empty" or not shown.content:
        return ()
    if not (differences and turn.done and len(turn.panes) == 2):
        return ((shown.content, False),)
    return mark_differences(turn.panes[0].content, turn.panes[1].content)[place]


def _status(shown: Pane, language: Language, now_s: float) -> str:
    if shown.phase == "empty":
        return ""
    waited = {"seconds": f"{max(now_s - shown.asked_s, 0.0):.1f}"} if shown.phase == "waiting" else {}
    return text(language, f"pane.{shown.phase}", **waited)


def _numbers(shown: Pane, language: Language, now_s: float) -> list[str] | None:
    """Return the measured numbers; None if there are none."""
    if shown.phase == "writing":
        return _live_numbers(shown, language, now_s)
    return _final_numbers(shown, language) if shown.phase == "done" else None


def _live_numbers(shown: Pane, language: Language, now_s: float) -> list[str]:
    if shown.first_delta_s is None:
        return []
    numbers = [text(language, "pane.first_token", seconds=f"{shown.first_delta_s - shown.asked_s:.2f}")]
    writing_s = now_s - shown.first_delta_s
    if writing_s > 0.3 and shown.deltas > 1:  # before that, the estimate is unstable
        numbers.append(text(language, "pane.speed_estimate", rate=f"{(shown.deltas - 1) / writing_s:.0f}"))
    return numbers


def _final_numbers(shown: Pane, language: Language) -> list[str]:
    numbers = []
    if shown.time_to_first_token_s is not None:
        numbers.append(text(language, "pane.first_token", seconds=f"{shown.time_to_first_token_s:.2f}"))
    if shown.tokens_per_s is not None:
        numbers.append(text(language, "pane.speed", rate=f"{shown.tokens_per_s:.0f}"))
    if shown.completion_tokens is not None and shown.duration_s is not None:
        count, seconds = shown.completion_tokens, f"{shown.duration_s:.1f}"
        numbers.append(text(language, "pane.tokens", count=count, seconds=seconds))
    return numbers


def actions(conversation: Conversation, language: Language, *, differences: bool, shared: bool) -> Markup:
    """Return the actions on the conversation; '' while an answer is in progress."""
    if not conversation.turns or conversation.running:
        return Markup()
    last = conversation.turns[-1]
    return _render(
        "actions",
        language,
        shared=shared,
        differences=differences,
        can_mark=len(last.panes) == 2 and any(turn.done for turn in conversation.turns),
        comparison_id=last.comparison_id,
        problem=last.problem if last.done and not shared else None,
    )


def shared_note(conversation: Conversation, language: Language) -> Markup:
    """Return the note above a shared conversation: it is read-only, with a button to continue."""
    return _render("shared_note", language, nameless=conversation.nameless)


def editing_note(turn: int, later: int, language: Language) -> Markup:
    """Return the note above the field while an earlier prompt is edited; `later` turns follow it."""
    key = "editing.note" if later else "editing.last"
    return _render("editing_note", language, words=text(language, key, number=turn + 1, later=later))


def announcement(conversation: Conversation, language: Language) -> Markup:
    """Return what screen readers announce when answers end."""
    if not conversation.turns or conversation.running:
        return Markup()
    done = sum(pane.phase == "done" for pane in conversation.turns[-1].panes)
    return _render("announcement", language, done=done, total=len(conversation.models))


def _render(block: str, language: Language, **values: object) -> Markup:
    return render(f"pages/compare/templates/{block}.html", language, **values)
