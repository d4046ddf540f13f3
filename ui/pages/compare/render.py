"""Draws the Compare page's conversation as HTML: prompts, answers with their numbers, marked differences, actions.

Whatever a model, a reader or the server wrote goes through `escape` and is shown as text, line breaks kept. Knows
nothing of Gradio and HTTP; the actions (`data-do`) are those that `ui.frame.live` passes on.
"""

from __future__ import annotations

from html import escape

from ui.html.elements import problem_box
from ui.pages.compare.conversation import Conversation, Turn
from ui.pages.compare.difference import differing
from ui.pages.compare.panes import SIDES, Pane
from ui.words.i18n import Language, text

LETTERS = "ABCD"


def introduction(language: Language) -> str:
    """The page's heading, and the way to blind voting."""
    title, intro, rate = (text(language, f"compare.{key}") for key in ("title", "intro", "rate"))
    return (
        f'<h1 class="tl-title">{escape(title)}</h1>'
        f'<p class="tl-muted">{escape(intro)} <a class="tl-link" href="rate">{escape(rate)}</a></p>'
    )


def past(conversation: Conversation, language: Language, *, differences: bool, shared: bool) -> str:
    """All turns but the last, as they stand."""
    turns = []
    for number, turn in enumerate(conversation.turns[:-1]):
        panes = "".join(
            f'<div class="compare-cell">{pane(turn, place, language, 0.0, differences=differences)}</div>'
            for place in range(len(turn.panes))
        )
        turns.append(f'{prompt(turn, number, language, shared=shared)}<div class="compare-grid">{panes}</div>')
    return "".join(turns)


def prompt(turn: Turn, number: int, language: Language, *, shared: bool) -> str:
    """What the reader asked, with the button to edit it."""
    edit = "" if shared else _action("edit", text(language, "turn.edit"), turn=str(number))
    label = escape(text(language, "turn.prompt", number=number + 1))
    return (
        f'<div class="compare-prompt" role="group" aria-label="{label}" data-number="{number}">'
        f'<div class="compare-words" dir="auto" tabindex="0">{escape(turn.prompt)}</div>{edit}</div>'
    )


def last_prompt(conversation: Conversation, language: Language, *, shared: bool) -> str:
    """The last turn's prompt; nothing in an empty conversation."""
    if not conversation.turns:
        return ""
    number = len(conversation.turns) - 1
    return prompt(conversation.turns[-1], number, language, shared=shared or conversation.running)


def pane(turn: Turn, place: int, language: Language, now_s: float, *, differences: bool) -> str:
    """One answer with its model above and its progress below; `now_s` on the clock that `Pane.asked_s` is from."""
    shown = turn.panes[place]
    problem = problem_box(shown.problem, language) if shown.problem else ""
    answer = _answer(turn, place, language, differences=differences)
    label = escape(text(language, "pane.answer", letter=LETTERS[place]))
    scroll = (
        f'<div class="tl-scroll" tabindex="0" role="region" aria-label="{label}">'
        f'<div class="tl-answer" dir="auto">{answer}</div></div>'
    )
    return (
        f'<section class="tl-pane tl-{SIDES[place]} tl-{shown.phase}" aria-busy="{str(shown.running).lower()}">'
        f"{_heading(place, shown, language)}{scroll if answer else ''}{problem}"
        f'<footer class="tl-status">{_status(shown, language, now_s)}</footer></section>'
    )


def _answer(turn: Turn, place: int, language: Language, *, differences: bool) -> str:
    shown = turn.panes[place]
    if shown.phase == "empty":
        return f'<span class="tl-muted">{escape(text(language, "pane.none"))}</span>'
    if shown.phase == "done" and not shown.content:
        return f'<span class="tl-muted">{escape(text(language, "pane.no_words"))}</span>'
    if not (differences and turn.done and len(turn.panes) == 2):
        return escape(shown.content)
    pieces = differing(turn.panes[0].content, turn.panes[1].content)[place]
    return "".join(
        f'<mark class="compare-differs">{escape(words)}</mark>' if differs else escape(words)
        for words, differs in pieces
    )


def _heading(place: int, shown: Pane, language: Language) -> str:
    name = shown.model or shown.asked_model
    label = (
        f'<span class="tl-model" title="{escape(name)}">{escape(name)}</span>'
        if name
        else f'<span class="tl-muted">{escape(text(language, "pane.hidden"))}</span>'
    )
    return f'<header><span class="tl-letter">{LETTERS[place]}</span>{label}</header>'


def _status(shown: Pane, language: Language, now_s: float) -> str:
    match shown.phase:
        case "empty":
            return ""
        case "waiting":
            waited = text(language, "pane.waiting", seconds=f"{max(now_s - shown.asked_s, 0.0):.1f}")
            return f'<span class="tl-dot"></span>{escape(waited)}'
        case "writing":
            parts = [text(language, "pane.writing"), *_live_numbers(shown, language, now_s)]
            return f'<span class="tl-dot"></span>{_joined(parts)}'
        case "done":
            cut = shown.finish_reason == "length"
            chip = f'<span class="tl-chip tl-warn">{escape(text(language, "pane.cut"))}</span>' if cut else ""
            return _joined([text(language, "pane.done"), *_final_numbers(shown, language)]) + chip
    return escape(text(language, f"pane.{shown.phase}"))


def _live_numbers(shown: Pane, language: Language, now_s: float) -> list[str]:
    if shown.first_delta_s is None:
        return []
    numbers = [text(language, "pane.first_token", seconds=f"{shown.first_delta_s - shown.asked_s:.2f}")]
    writing_s = now_s - shown.first_delta_s
    if writing_s > 0.3 and shown.deltas > 1:  # sooner, the estimate jumps
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


def _joined(parts: list[str]) -> str:
    return " · ".join(f"<span>{escape(part)}</span>" for part in parts)


def actions(conversation: Conversation, language: Language, *, differences: bool, shared: bool) -> str:
    """What can be done with the conversation as it stands; nothing while it is written."""
    if not conversation.turns or conversation.running:
        return ""
    last, buttons = conversation.turns[-1], []
    if len(last.panes) == 2 and any(turn.done for turn in conversation.turns):
        pressed = str(differences).lower()
        buttons.append(_action("differences", text(language, "turn.differences"), pressed=pressed))
    if shared:
        return f'<div class="live-row compare-actions">{"".join(buttons)}</div>'
    buttons.insert(0, _action("again", text(language, "turn.again")))
    if last.comparison_id:
        copied = escape(text(language, "turn.copied"))
        buttons.append(
            f'<button type="button" class="live-button live-small" data-copied="{copied}" '
            f'data-copy="./?comparison={escape(last.comparison_id)}">{escape(text(language, "turn.share"))}</button>'
        )
    buttons.append(_action("new", text(language, "turn.new")))
    failed = problem_box(last.problem, language) if last.problem and last.done else ""
    return f'{failed}<div class="live-row compare-actions">{"".join(buttons)}</div>'


def shared_note(conversation: Conversation, language: Language) -> str:
    """Over a conversation opened by a share link: it is to be read; the way to go on."""
    words = escape(text(language, "shared.hidden" if conversation.nameless else "shared.note"))
    on = "" if conversation.nameless else _action("go_on", text(language, "shared.go_on"), primary=True)
    new = _action("new", text(language, "shared.new"))
    return (
        f'<div class="tl-notice compare-shared" role="status"><p>{words}</p><div class="live-row">{on}{new}</div></div>'
    )


def editing_note(turn: int, later: int, language: Language) -> str:
    """Over the prompt while an earlier one is edited; `later` turns follow it."""
    key = "editing.note" if later else "editing.last"
    words = escape(text(language, key, number=turn + 1, later=later))
    cancel = _action("cancel", text(language, "editing.cancel"))
    return f'<div class="compare-editing live-row" role="status"><span>{words}</span>{cancel}</div>'


def announcement(conversation: Conversation, language: Language) -> str:
    """What a screen reader says when answers end."""
    if not conversation.turns or conversation.running:
        return ""
    done = sum(pane.phase == "done" for pane in conversation.turns[-1].panes)
    words = text(language, "turn.ended", done=done, total=len(conversation.models))
    return f'<p class="live-hidden">{escape(words)}</p>'


def _action(name: str, words: str, *, turn: str = "", pressed: str = "", primary: bool = False) -> str:
    more = (f' data-turn="{escape(turn)}"' if turn else "") + (f' aria-pressed="{pressed}"' if pressed else "")
    look = " live-primary" if primary else ""
    return f'<button type="button" class="live-button live-small{look}" data-do="{name}"{more}>{escape(words)}</button>'
