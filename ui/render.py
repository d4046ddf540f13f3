"""Draws panes, notices and the vote's confirmation as HTML.

The one place that writes HTML: whatever a model, a reader or the server wrote goes through `escape` and is shown as
text, line breaks kept. Knows nothing of Gradio and HTTP.
"""

from __future__ import annotations

import re
from html import escape

from ui.client import Problem, Readiness
from ui.i18n import Language, text
from ui.panes import SIDES, Comparison, Pane, Side

LETTERS: dict[Side, str] = {"left": "A", "right": "B"}


def header(language: Language) -> str:
    """The product's name and what it does."""
    return (
        '<div class="tl-brand"><span class="tl-logo" aria-hidden="true">∞</span><span class="tl-name">tuneloop</span>'
        f'<span class="tl-tagline">{escape(text(language, "header.tagline"))}</span></div>'
    )


def introduction(language: Language) -> str:
    """The compare page's heading."""
    title, intro = text(language, "compare.title"), text(language, "compare.intro")
    return f'<h1 class="tl-title">{escape(title)}</h1><p class="tl-muted">{escape(intro)}</p>'


def pane(comparison: Comparison, side: Side, language: Language, now_s: float) -> str:
    """One answer with its heading above and its progress below; `now_s` on the clock that `Pane.asked_s` is from."""
    shown = comparison.left if side == "left" else comparison.right
    preferred = comparison.verdict == side
    classes = f"tl-pane tl-{side} tl-{shown.phase}" + (" tl-preferred" if preferred else "")
    answer = escape(shown.content)
    if shown.phase == "empty":
        answer = f'<span class="tl-muted">{escape(text(language, "pane.empty"))}</span>'
    bare = shown.phase == "failed" and not answer
    scroll = "" if bare else f'<div class="tl-scroll"><div class="tl-answer">{answer}</div></div>'
    problem = problem_box(shown.problem, language) if shown.problem else ""
    return (
        f'<section class="{classes}" aria-busy="{str(shown.running).lower()}">'
        f"{_pane_heading(comparison, side, shown, language)}"
        f"{scroll}{problem}"
        f'<footer class="tl-status">{_status(shown, language, now_s)}</footer></section>'
    )


def _pane_heading(comparison: Comparison, side: Side, shown: Pane, language: Language) -> str:
    name = shown.model or shown.asked_model
    label = ""
    if name is not None:
        label = f'<span class="tl-model" title="{escape(name)}">{escape(name)}</span>'
    elif comparison.blind and shown.phase in ("waiting", "writing", "done"):
        label = f'<span class="tl-muted">{escape(text(language, "pane.hidden"))}</span>'
    badge = f'<span class="tl-chip">✓ {escape(text(language, "pane.preferred"))}</span>'
    return (
        f'<header><span class="tl-letter">{LETTERS[side]}</span>{label}'
        f"{badge if comparison.verdict == side else ''}</header>"
    )


def _status(shown: Pane, language: Language, now_s: float) -> str:
    match shown.phase:
        case "empty":
            return ""
        case "waiting":
            waited = text(language, "pane.waiting", seconds=f"{now_s - shown.asked_s:.1f}")
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


def problem_box(problem: Problem, language: Language) -> str:
    """What went wrong and what to do, with the server's own words under it."""
    friendly = _with_code(text(language, f"error.{problem.kind}"))
    said = f"{escape(text(language, 'error.detail'))} {escape(problem.detail)}"
    detail = f'<p class="tl-detail">{said}</p>' if problem.detail else ""
    return f'<div class="tl-problem" role="alert"><p>{friendly}</p>{detail}</div>'


def notice(key: str, language: Language) -> str:
    """One sentence that the reader should act on."""
    return f'<div class="tl-notice" role="status">{_with_code(text(language, key))}</div>'


def readiness(state: Readiness, language: Language) -> str:
    """The banner while the engine doesn't answer; empty when it does."""
    if state == "ready":
        return ""
    dot = '<span class="tl-dot"></span>' if state == "starting" else ""
    command = "" if state == "starting" else "<pre>tuneloop up</pre>"
    words = escape(text(language, f"notice.{state}"))
    return f'<div class="tl-notice tl-{state}" role="status"><p>{dot}{words}</p>{command}</div>'


def empty_state(language: Language, *, has_base: bool) -> str:
    """How to get a tuned model, for a server that has none yet."""
    steps = (
        ("train", "tuneloop train CONFIG.yaml"),
        ("add", "tuneloop adapters add ADAPTER_DIR"),
        ("demo", "make demo"),
    )
    rows = "".join(
        f"<li><p>{escape(text(language, f'empty.{key}'))}</p><pre>{escape(command)}</pre></li>"
        for key, command in steps
    )
    title = text(language, "empty.title" if has_base else "empty.no_models")
    return (
        f'<div class="tl-empty-state"><h2>{escape(title)}</h2><p>{escape(text(language, "empty.intro"))}</p>'
        f'<ol>{rows}</ol><p class="tl-muted">{escape(text(language, "empty.after"))}</p></div>'
    )


def vote_note(comparison: Comparison, language: Language) -> str:
    """The line over the vote buttons: what to wait for, or what was stored and who was who."""
    if comparison.verdict is not None:
        return _confirmation(comparison, language)
    if comparison.problem is not None and all(shown.phase == "done" for shown in comparison.panes):
        return problem_box(comparison.problem, language)  # else the pane that failed says it
    if comparison.can_be_rated:
        key = "vote.ready"
    elif any(shown.phase == "stopped" for shown in comparison.panes):
        key = "vote.stopped"
    elif any(shown.phase == "failed" for shown in comparison.panes):
        key = "vote.failed"
    else:
        key = "vote.before"
    return f'<p class="tl-vote-note tl-{key.split(".")[1]}" role="status">{escape(text(language, key))}</p>'


def _confirmation(comparison: Comparison, language: Language) -> str:
    said = f"{text(language, 'vote.stored')} {text(language, f'vote.said.{comparison.verdict}')}"
    names = "".join(
        f"<li>{escape(text(language, 'vote.revealed', side=LETTERS[side]))} <b>{escape(shown.model or '?')}</b></li>"
        for side, shown in zip(SIDES, comparison.panes, strict=True)
    )
    return f'<div class="tl-confirmation" role="status"><p>✓ {escape(said)}</p><ul>{names}</ul></div>'


def _with_code(words: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))
