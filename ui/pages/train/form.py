"""The training page's form: what may be chosen, the request that it means, and what would become of it.

Every foreign word is escaped. Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ui.frame.live import Action
from ui.html import elements
from ui.html.markup import bytes_words, coded, duration_words, figures_list, options, said, working
from ui.pages.train.state import TrainSession
from ui.words.i18n import Language, text

METHODS = ("auto", "supervised", "dpo", "kto", "text")


@dataclass(frozen=True)
class Field:
    """One setting of the form."""

    name: str
    """As the request spells it."""
    place: str
    """`hyperparameters`, `tuneloop`, or `top` of the request."""
    default: str = ""
    """What stands in it; empty: the server's own choice."""
    choices: tuple[str, ...] = ()
    """Values of a select, the first being the default."""


HYPERPARAMETERS = (
    Field("n_epochs", "hyperparameters"),
    Field("batch_size", "hyperparameters"),
    Field("learning_rate_multiplier", "hyperparameters"),
    Field("beta", "hyperparameters"),
    Field("validation_fraction", "tuneloop", "0.1"),
    Field("max_length", "tuneloop"),
    Field("lr_scheduler_type", "tuneloop", "", ("", "cosine", "linear", "constant", "constant_with_warmup")),
    Field("seed", "top"),
)
QLORA = (
    Field("quantization", "tuneloop", "", ("", "nf4", "none")),
    Field("r", "tuneloop"),
    Field("lora_alpha", "tuneloop"),
    Field("lora_dropout", "tuneloop"),
    Field("gradient_checkpointing", "tuneloop", "", ("", "true", "false")),
    Field("packing", "tuneloop", "", ("", "true", "false")),
    Field("max_memory_gb", "tuneloop"),
)


def request_of(action: Action, method: str) -> dict[str, Any]:
    """The body of `POST /v1/fine_tuning/jobs` that the form's fields mean; empty fields are left out.

    method: what `auto` was found to be. What isn't a number goes as it is: the server says what is wrong.
    """
    body: dict[str, Any] = {"model": action.text("model"), "training_file": action.text("training_file")}
    for name in ("validation_file", "suffix"):
        if action.text(name):
            body[name] = action.text(name)
    hyperparameters: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    targets = {"hyperparameters": hyperparameters, "tuneloop": settings, "top": body}
    for field in (*HYPERPARAMETERS, *QLORA):
        if action.text(field.name) and _applies(field.name, method, body):
            targets[field.place][field.name] = _value(action.text(field.name))
    body["method"] = {"type": method, method: {"hyperparameters": hyperparameters}}
    return body | ({"tuneloop": settings} if settings else {})


def _applies(name: str, method: str, body: Mapping[str, Any]) -> bool:
    if name == "beta":
        return method in ("dpo", "kto")
    return not (name == "validation_fraction" and "validation_file" in body)


def _value(words: str) -> Any:
    if words in ("true", "false"):
        return words == "true"
    for kind in (int, float):
        try:
            return kind(words)
        except ValueError:
            continue
    return words


def form(session: TrainSession) -> str:
    """The form; with no file that can be used, how to get one."""
    language = session.language
    usable = sorted((file for file in session.files if file["status"] != "error"), key=_is_held_back)
    heading = f'<h2 class="live-h2">{said(language, "train.new")}</h2>'
    if not usable:
        return (
            f'<section class="live-card">{heading}<div class="tl-empty-state"><h3>'
            f"{said(language, 'train.no_files')}</h3>"
            f'<p>{said(language, "train.no_files_hint")}</p><p><a class="live-button live-primary" href="data">'
            f"{said(language, 'train.to_data')}</a></p></div></section>"
        )
    # Another file or model in the address is another form: what was kept of the one before must not overrule it.
    kept = escape(f"train.form.{session.file_id}.{session.model}")
    return (
        f'<section class="live-card">{heading}<form data-do="check" data-keep="{kept}">'
        f"{_first_fields(session, usable)}{_more(language, 'hyperparameters', HYPERPARAMETERS)}"
        f'{_more(language, "qlora", QLORA)}<div class="live-row train-send">'
        f'<button class="live-button live-primary" id="train-check">{said(language, "train.check")}</button></div>'
        f"</form></section>"
    )


def _is_held_back(file: Mapping[str, Any]) -> bool:
    """Whether votes' prompts were held back in it: what measures a model mustn't be the first choice to train it on."""
    return str(file["filename"]).startswith("ratings-") and str(file["filename"]).endswith("-holdout.jsonl")


def _first_fields(session: TrainSession, usable: Sequence[Mapping[str, Any]]) -> str:
    language = session.language
    files = [(str(file["id"]), str(file["filename"])) for file in usable]
    chosen = session.file_id or files[0][0]
    models = [(model.name, model.name) for model in session.models]
    none = ("", text(language, "train.no_validation"))
    methods = [(method, text(language, f"train.method.{method}")) for method in METHODS]
    return (
        '<div class="data-fields">'
        f"{_select(language, 'training_file', files, chosen)}{_select(language, 'model', models, session.model)}"
        f"{_select(language, 'method', methods, 'auto')}{_select(language, 'validation_file', [none, *files], '')}"
        f"{_input(language, Field('suffix', 'top'), most=64)}</div>"
    )


def _more(language: Language, title: str, fields: Sequence[Field]) -> str:
    shown = "".join(
        _select(
            language, field.name, [(choice, choice or text(language, "train.auto")) for choice in field.choices], ""
        )
        if field.choices
        else _input(language, field)
        for field in fields
    )
    return (
        f'<details class="train-more" id="train-{title}"><summary>{said(language, f"train.{title}")}</summary>'
        f'<div class="data-fields">{shown}</div></details>'
    )


def _select(language: Language, name: str, choices: Sequence[tuple[str, str]], chosen: str) -> str:
    return (
        f'<div>{_label(language, name)}<select class="live-select" id="train-{name}" name="{name}" data-tell="changed" '
        f'aria-describedby="train-{name}-hint">{options(choices, chosen)}</select>{_hint(language, name)}</div>'
    )


def _input(language: Language, field: Field, most: int = 24) -> str:
    name = field.name
    mode = "text" if name == "suffix" else "decimal"
    placeholder = said(language, "train.suffix_example" if name == "suffix" else "train.auto")
    return (
        f'<div>{_label(language, name)}<input class="live-field" id="train-{name}" name="{name}" data-tell="changed" '
        f'value="{escape(field.default)}" maxlength="{most}" inputmode="{mode}" autocomplete="off" '
        f'placeholder="{placeholder}" aria-describedby="train-{name}-hint">{_hint(language, name)}</div>'
    )


def _label(language: Language, name: str) -> str:
    return f'<label class="live-label" for="train-{name}">{said(language, f"train.{name}")}</label>'


def _hint(language: Language, name: str) -> str:
    return f'<p class="live-hint" id="train-{name}-hint">{said(language, f"train.{name}_hint")}</p>'


def foreseen(session: TrainSession) -> str:
    """The preflight: fits? servable? how long? And the button that starts."""
    language, found = session.language, session.preflight
    if session.form_problem:
        return elements.problem_box(session.form_problem, language)
    if session.checking:
        return f'<section class="live-card" aria-busy="true">{working(language, "train.checking")}</section>'
    if found is None:
        return ""
    answers = "".join(_answer(language, name, found[name]) for name in ("fits", "servable"))
    ready = found["ready"] and not session.outdated
    start = said(language, "train.start")
    busy = " disabled" if session.starting or not ready else ""
    told = said(language, "train.outdated") if session.outdated else ""
    kind = "data-good" if found["ready"] else "data-bad"
    verdict = said(language, "train.ready" if found["ready"] else "train.not_ready")
    return (
        f'<section class="live-card train-foreseen{" train-outdated" if session.outdated else ""}" '
        f'aria-label="{said(language, "train.preflight")}"><h2 class="live-h2" id="train-preflight" tabindex="-1">'
        f'{said(language, "train.preflight")}</h2><p class="{kind}">{"✓" if found["ready"] else "✗"} {verdict}</p>'
        f'{_problems(language, found["problems"])}<div class="live-row train-answers">'
        f"{answers}{_time(language, found)}</div>"
        f'{_figures(language, found)}{_notes(language, found["notes"])}<div class="live-row train-send">'
        f'<button type="button" class="live-button live-primary" id="train-start" data-do="start"{busy}>'
        f"{start}</button>"
        f'<span class="tl-muted">{told}</span></div></section>'
    )


def _answer(language: Language, name: str, value: bool | None) -> str:
    word = {True: "yes", False: "no", None: "unknown"}[value]
    kind = {True: "data-good", False: "data-bad", None: ""}[value]
    sign = {True: "✓", False: "✗", None: "?"}[value]
    return f'<span class="data-chip {kind}">{sign} {said(language, f"train.{name}.{word}")}</span>'


def _time(language: Language, found: Mapping[str, Any]) -> str:
    if found["seconds"] is None:
        return ""
    about = escape(duration_words(language, found["seconds"]))
    ahead = found["jobs_ahead"]
    queue = f" · {said(language, 'train.ahead', n=ahead)}" if ahead else ""
    return f'<span class="data-chip">≈ {about}{queue}</span>'


def _problems(language: Language, problems: Sequence[Mapping[str, Any]]) -> str:
    rows = ""
    for one in problems:
        at = f"<code>{escape(str(one['param']))}</code> " if one["param"] else ""
        rows += f'<li dir="auto">{at}{coded(one["message"])}</li>'
    return f'<div class="tl-problem" role="alert"><ul class="train-problems">{rows}</ul></div>' if rows else ""


def _figures(language: Language, found: Mapping[str, Any]) -> str:
    if not found["memory"]:
        return ""
    free = found["free_bytes"]
    memory = bytes_words(found["memory"]["total"])
    if free is not None:
        memory = text(language, "train.memory_of", need=memory, free=bytes_words(free))
    chosen = found["hyperparameters"] or {}
    schedule = text(
        language, "train.schedule_words", epochs=chosen.get("n_epochs"), steps=f"{found['steps']:,}",
        batch=chosen.get("batch_size"),
    )  # fmt: skip
    pairs = [
        ("train.memory", memory),
        ("train.schedule", schedule),
        (
            "train.learning_rate",
            f"{chosen.get('learning_rate', 0):g} (× {chosen.get('learning_rate_multiplier', 1):g})",
        ),
        ("train.rows", f"{found['training_rows']:,}"),
        ("train.tokens", f"{found['trained_tokens']:,}"),
    ]
    return figures_list((said(language, key), escape(value)) for key, value in pairs)


def _notes(language: Language, notes: Sequence[str]) -> str:
    if not notes:
        return ""
    rows = "".join(f"<li>{coded(note)}</li>" for note in notes)
    return (
        f'<details class="train-more" id="train-notes"><summary>{said(language, "train.notes")}</summary><ul '
        f'class="train-notes">{rows}</ul></details>'
    )
