"""Lays out the compare page: which components there are and where they stand.

Owns components and their captions. Knows nothing of what happens when one is clicked.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui import render
from ui.captions import Captions, html
from ui.client import Verdict
from ui.i18n import Language
from ui.panes import Comparison

DEFAULT_TEMPERATURE = 0.7
DEFAULT_MAX_TOKENS = 256
VOTES: tuple[Verdict, ...] = ("left", "tie", "both_bad", "right")
"""The vote buttons in the order of the panes: A outermost left, B outermost right."""


@dataclass(frozen=True)
class CompareControls:
    """The compare page's components."""

    introduction: Any
    banner: Any
    """What the reader should know before asking: engine down, no tuned model."""
    key_group: Any
    api_key: Any
    use_key: Any
    first_model: Any
    second_model: Any
    refresh: Any
    prompt: Any
    examples: tuple[Any, ...]
    send: Any
    stop: Any
    blind: Any
    temperature: Any
    max_tokens: Any
    notice: Any
    """Why the last click did nothing, or what went wrong with it."""
    panes: tuple[Any, Any]
    vote_note: Any
    comment: Any
    votes: dict[Verdict, Any]
    retry: Any
    """A timer that asks again while the engine doesn't answer."""


def lay_out(captions: Captions, language: Language, example_prompts: Sequence[str]) -> CompareControls:
    """The page's components, created in the current `gr.Blocks`, from top to bottom."""
    introduction = html(render.introduction(language))
    banner = html(visible=False)
    key = _key_form(captions)
    models = _model_choice(captions)
    prompt = _prompt_form(captions, example_prompts)
    notice = html(visible=False)
    with gr.Row(equal_height=True, elem_classes="tl-panes"):
        now_s, empty = time.monotonic(), Comparison()
        panes = (
            html(render.pane(empty, "left", language, now_s), min_width=300),
            html(render.pane(empty, "right", language, now_s), min_width=300),
        )
    vote = _vote_form(captions, language)
    retry = gr.Timer(3.0, active=False)
    return CompareControls(
        introduction=introduction,
        banner=banner,
        notice=notice,
        panes=panes,
        retry=retry,
        **key,
        **models,
        **prompt,
        **vote,
    )


def _key_form(captions: Captions) -> dict[str, Any]:
    with gr.Row(visible=False, elem_classes="tl-key") as key_group:
        api_key = captions.make(
            gr.Textbox, {"label": "key.title", "info": "key.info"}, type="password", elem_id="tl-api-key", scale=1
        )
        use_key = captions.make(
            gr.Button, {"value": "key.use"}, variant="primary", size="md", scale=0, min_width=150, elem_id="tl-use-key"
        )
    return {"key_group": key_group, "api_key": api_key, "use_key": use_key}


def _model_choice(captions: Captions) -> dict[str, Any]:
    # Any name may be typed too: an alias is served without standing in the list of models.
    shared = {"choices": [], "allow_custom_value": True, "scale": 5, "min_width": 260}
    with gr.Row(elem_classes="tl-models"):
        first = captions.make(gr.Dropdown, {"label": "models.first"}, elem_id="tl-first-model", **shared)
        second = captions.make(gr.Dropdown, {"label": "models.second"}, elem_id="tl-second-model", **shared)
        refresh = gr.Button("↻", elem_classes="tl-icon", elem_id="tl-refresh", size="md", scale=0)
    return {"first_model": first, "second_model": second, "refresh": refresh}


def _prompt_form(captions: Captions, example_prompts: Sequence[str]) -> dict[str, Any]:
    # One line makes Enter send and Shift+Enter break the line; the style sheet gives the box its height.
    keys = {"label": "prompt.label", "placeholder": "prompt.placeholder", "info": "prompt.hint"}
    prompt = captions.make(
        gr.Textbox, keys, lines=1, max_lines=10, autofocus=True, elem_id="tl-prompt", elem_classes="tl-prompt"
    )
    with gr.Row(elem_classes="tl-examples", visible=bool(example_prompts)):
        examples = tuple(gr.Button(example, size="sm", variant="secondary") for example in example_prompts)
    with gr.Row(elem_classes="tl-actions"):
        blind = captions.make(
            gr.Checkbox,
            {"label": "blind.label", "info": "blind.info"},
            value=True,
            container=False,
            elem_id="tl-blind",
            elem_classes="tl-blind",
            scale=1,
        )
        button = {"size": "md", "scale": 0, "min_width": 150}
        send = captions.make(gr.Button, {"value": "prompt.send"}, variant="primary", elem_id="tl-send", **button)
        stop = captions.make(
            gr.Button, {"value": "prompt.stop"}, variant="stop", visible=False, elem_id="tl-stop", **button
        )
    return {"prompt": prompt, "examples": examples, "send": send, "stop": stop, "blind": blind, **_sampling(captions)}


def _sampling(captions: Captions) -> dict[str, Any]:
    with captions.make(gr.Accordion, {"label": "sampling.title"}, open=False), gr.Row():
        temperature = captions.make(
            gr.Slider,
            {"label": "sampling.temperature", "info": "sampling.temperature_info"},
            minimum=0.0,
            maximum=2.0,
            step=0.1,
            value=DEFAULT_TEMPERATURE,
        )
        max_tokens = captions.make(
            gr.Slider,
            {"label": "sampling.max_tokens", "info": "sampling.max_tokens_info"},
            minimum=16,
            maximum=4096,
            step=16,
            value=DEFAULT_MAX_TOKENS,
        )
    return {"temperature": temperature, "max_tokens": max_tokens}


def _vote_form(captions: Captions, language: Language) -> dict[str, Any]:
    vote_note = html(render.vote_note(Comparison(), language))
    comment = captions.make(
        gr.Textbox,
        {"label": "vote.comment", "placeholder": "vote.comment_placeholder"},
        max_lines=4,
        max_length=4000,  # the API's own limit
        interactive=False,
        elem_id="tl-comment",
    )
    with gr.Row(elem_classes="tl-votes"):
        votes = {verdict: _vote_button(captions, verdict) for verdict in VOTES}
    return {"vote_note": vote_note, "comment": comment, "votes": votes}


def _vote_button(captions: Captions, verdict: Verdict) -> Any:
    elem_id = f"tl-vote-{verdict.replace('_', '-')}"
    return captions.make(gr.Button, {"value": f"vote.{verdict}"}, interactive=False, size="md", elem_id=elem_id)
