"""Lays out the components of the Compare page.

Owns the components and their captions. Knows nothing of what they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.frame.captions import Captions, html
from ui.frame.live import live_html
from ui.frame.shell import Frame
from ui.pages.compare import render
from ui.pages.compare.panes import SIDES

DEFAULT_TEMPERATURE = 0.7
DEFAULT_TOP_P = 1.0
DEFAULT_MAX_TOKENS = 256
FEWEST, MOST = 2, len(SIDES)
"""Number of models, as `POST /v1/comparisons` accepts it."""
LETTERS = render.LETTERS
POLL_INTERVAL_S = 10.0
"""Seconds between two requests for the list of models."""
# Focus the field when a prompt is edited. The block is recreated whenever it is shown.
_FOCUS_PROMPT = "if (props.value) setTimeout(() => document.querySelector('#tl-prompt textarea')?.focus(), 50);"

# Scroll a new turn's prompt to the top of the window, with its answers below.
_SHOW_NEW_TURN = """
let shownTurn = -1;
watch('value', () => {
  const last = element.querySelector('[data-number]');
  const turn = last ? Number(last.dataset.number) : -1;
  if (shownTurn >= 0 && turn > shownTurn) element.scrollIntoView({ block: 'start' });
  shownTurn = turn;
});
"""


@dataclass(frozen=True)
class CompareControls:
    """The page's components."""

    introduction: Any
    banner: Any
    """What the user should know first: engine down, no tuned model, a shared comparison."""
    shared: Any
    models: tuple[Any, ...]
    count: Any
    """Number of models; survives a refresh like the fields next to it."""
    more: Any
    fewer: Any
    system: Any
    temperature: Any
    top_p: Any
    max_tokens: Any
    seed: Any
    asked: Any
    """Number of questions that this tab had sent when the page was last updated."""
    past: Any
    last_prompt: Any
    panes: tuple[Any, ...]
    actions: Any
    announcement: Any
    notice: Any
    """Why the last click did nothing, or what went wrong."""
    composer: Any
    editing: Any
    prompt: Any
    sent: Any
    """Number and text of the last prompt sent: the browser empties the field if it still contains that text."""
    example_row: Any
    examples: tuple[Any, ...]
    send: Any
    stop: Any
    retry: Any
    """A timer that tries again while the engine doesn't answer."""
    watch: Any
    """A slower timer that finds newly published models."""

    @property
    def fields(self) -> dict[str, Any]:
        """The inputs that survive a refresh, by name."""
        chosen = {f"model_{number}": component for number, component in enumerate(self.models)}
        sampling = {name: getattr(self, name) for name in ("temperature", "top_p", "max_tokens", "seed")}
        return {"prompt": self.prompt, "system": self.system, "count": self.count, **chosen, **sampling}


def lay_out(captions: Captions, frame: Frame) -> CompareControls:
    """Create the page's components in the current `gr.Blocks`, from top to bottom."""
    introduction = html(render.introduction(frame.language))
    banner = html(visible=False)
    shared = live_html(visible=False)
    chosen = _model_choice(captions)
    settings = _settings(captions)
    conversation = _conversation()
    notice = live_html(visible=False)
    composer = _composer(captions, frame.example_prompts)
    return CompareControls(
        introduction=introduction,
        banner=banner,
        shared=shared,
        notice=notice,
        retry=gr.Timer(3.0, active=False),
        watch=gr.Timer(POLL_INTERVAL_S),
        **chosen,
        **settings,
        **conversation,
        **composer,
    )


def _model_choice(captions: Captions) -> dict[str, Any]:
    # Any name can be typed: those of `base_model_map` are served although they aren't in the list of models.
    with gr.Row(elem_classes="compare-models"):
        models = tuple(
            captions.make(
                gr.Dropdown,
                {"label": f"models.{side}"},
                choices=[],
                allow_custom_value=True,
                visible=number < FEWEST,
                scale=1,
                min_width=200,
                elem_id=f"tl-model-{LETTERS[number].lower()}",
                elem_classes=f"tl-{side}",
            )
            for number, side in enumerate(SIDES)
        )
    with gr.Row(elem_classes="compare-count"):
        button = {"size": "sm", "scale": 0, "min_width": 120, "variant": "secondary"}
        more = captions.make(gr.Button, {"value": "models.more"}, elem_id="tl-more", **button)
        fewer = captions.make(gr.Button, {"value": "models.fewer"}, visible=False, elem_id="tl-fewer", **button)
        count = gr.Number(FEWEST, visible="hidden", show_label=False, precision=0)
    return {"models": models, "count": count, "more": more, "fewer": fewer}


def _settings(captions: Captions) -> dict[str, Any]:
    with captions.make(gr.Accordion, {"label": "settings.title"}, open=False, elem_id="tl-settings"):
        system = captions.make(
            gr.Textbox,
            {"label": "settings.system", "placeholder": "settings.system_placeholder"},
            lines=2,
            max_lines=8,
            elem_id="tl-system",
        )
        with gr.Row():
            temperature = _slider(captions, "temperature", 0.0, 2.0, 0.1, DEFAULT_TEMPERATURE)
            top_p = _slider(captions, "top_p", 0.05, 1.0, 0.05, DEFAULT_TOP_P)
        with gr.Row():
            max_tokens = _slider(captions, "max_tokens", 16, 4096, 16, DEFAULT_MAX_TOKENS)
            seed = captions.make(
                gr.Number, {"label": "sampling.seed", "info": "sampling.seed_info"}, value=None, precision=0,
                elem_id="tl-seed",
            )  # fmt: skip
    return {"system": system, "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": seed}


def _slider(captions: Captions, name: str, least: float, most: float, step: float, value: float) -> Any:
    keys = {"label": f"sampling.{name}", "info": f"sampling.{name}_info"}
    return captions.make(
        gr.Slider, keys, minimum=least, maximum=most, step=step, value=value, elem_id=f"tl-{name.replace('_', '-')}"
    )


def _conversation() -> dict[str, Any]:
    # Not in the composer: a component is shown again when its parent is redrawn.
    asked = gr.Number(0, visible="hidden", show_label=False, precision=0)
    sent = gr.Textbox(visible="hidden", show_label=False, elem_id="tl-sent")
    past = live_html(elem_id="tl-past")
    last_prompt = live_html(elem_id="tl-last-prompt", script=_SHOW_NEW_TURN)
    with gr.Row(equal_height=True, elem_classes="tl-panes"):
        panes = tuple(html(visible=False, min_width=240) for _ in SIDES)
    actions = live_html(elem_id="tl-turn-actions")
    announcement = live_html(spoken=True, elem_id="tl-announcement")
    return {
        "asked": asked, "sent": sent, "past": past, "last_prompt": last_prompt, "panes": panes, "actions": actions,
        "announcement": announcement,
    }  # fmt: skip


def _composer(captions: Captions, example_prompts: Sequence[str]) -> dict[str, Any]:
    with gr.Column(elem_classes="compare-composer") as composer:
        editing = live_html(visible=False, script=_FOCUS_PROMPT)
        # One line makes Enter send and Shift+Enter break the line; the style sheet gives the box its height.
        keys = {"label": "prompt.label", "placeholder": "prompt.placeholder", "info": "prompt.hint"}
        prompt = captions.make(
            gr.Textbox, keys, lines=1, max_lines=10, autofocus=True, elem_id="tl-prompt", elem_classes="tl-prompt"
        )
        with gr.Row(elem_classes="tl-actions"):
            with gr.Row(elem_classes="tl-examples", visible=bool(example_prompts)) as example_row:
                examples = tuple(gr.Button(example, size="sm", variant="secondary") for example in example_prompts)
            button = {"size": "md", "scale": 0, "min_width": 150}
            send = captions.make(gr.Button, {"value": "prompt.send"}, variant="primary", elem_id="tl-send", **button)
            stop = captions.make(
                gr.Button, {"value": "prompt.stop"}, variant="stop", visible=False, elem_id="tl-stop", **button
            )
    return {
        "composer": composer, "editing": editing, "prompt": prompt, "example_row": example_row, "examples": examples,
        "send": send, "stop": stop,
    }  # fmt: skip
