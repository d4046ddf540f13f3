"""The training page's form: its fields, its request, and the preflight.

Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ui.frame.live import Action
from ui.html.elements import bytes_words, duration_words
from ui.html.templates import render
from ui.pages.data.render import problem_box
from ui.pages.train.state import TrainSession
from ui.words.i18n import Language, text

METHODS = ("auto", "supervised", "dpo", "kto", "text")
FieldView = tuple[str, Sequence[tuple[str, str]] | None, str]
"""A field of the form: name; values and labels of a select, None for an input; current value."""


@dataclass(frozen=True)
class Field:
    """One setting of the form."""

    name: str
    """Name in the request."""
    place: str
    """`hyperparameters`, `tuneloop`, or `top` of the request."""
    default: str = ""
    """Initial value; '' leaves the choice to the server."""
    choices: tuple[str, ...] = ()
    """Values of a select; the first is the default."""


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
    """Return the form's body for `POST /v1/fine_tuning/jobs`; empty fields are left out.

    method: the method that `auto` stands for. Values that aren't numbers are sent as they are: the server reports them.
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
    """Return the form; without a usable file, how to get one."""
    language = session.language
    usable = sorted((file for file in session.files if file["status"] != "error"), key=_is_held_back)
    return render(
        "pages/train/templates/form.html",
        language,
        # Another file or model in the address is another form: the kept values must not override it.
        kept=f"train.form.{session.file_id}.{session.model}",
        first_fields=_first_fields(session, usable) if usable else None,
        more_fields={
            title: [_describe(language, field) for field in fields]
            for title, fields in (("hyperparameters", HYPERPARAMETERS), ("qlora", QLORA))
        },
    )


def _is_held_back(file: Mapping[str, Any]) -> bool:
    """Whether it is a holdout of ratings: a file for evaluation mustn't be the default for training."""
    return str(file["filename"]).startswith("ratings-") and str(file["filename"]).endswith("-holdout.jsonl")


def _first_fields(session: TrainSession, usable: Sequence[Mapping[str, Any]]) -> list[FieldView]:
    language = session.language
    files = [(str(file["id"]), str(file["filename"])) for file in usable]
    models = [(model.name, model.name) for model in session.models]
    none = ("", text(language, "train.no_validation"))
    return [
        ("training_file", files, session.file_id or files[0][0]),
        ("model", models, session.model),
        ("method", [(method, text(language, f"train.method.{method}")) for method in METHODS], "auto"),
        ("validation_file", [none, *files], ""),
        ("suffix", None, ""),
    ]


def _describe(language: Language, field: Field) -> FieldView:
    choices = [(choice, choice or text(language, "train.auto")) for choice in field.choices]
    return field.name, choices or None, field.default


def preflight(session: TrainSession) -> str:
    """Return the preflight: memory, servability, time; and the start button."""
    language, found = session.language, session.preflight
    if session.form_problem:
        return problem_box(language, session.form_problem)
    if found is None and not session.checking:
        return ""
    answers, figures = (_answers(language, found), _figures(language, found)) if found else ([], [])
    return render(
        "pages/train/templates/preflight.html", language, session=session, found=found, answers=answers, figures=figures
    )


def _answers(language: Language, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return text and kind of each chip."""
    words = {True: ("✓", "yes", "good"), False: ("✗", "no", "bad"), None: ("?", "unknown", "")}
    answers = []
    for name in ("fits", "servable"):
        sign, word, kind = words[found[name]]
        answers.append((f"{sign} {text(language, f'train.{name}.{word}')}", kind))
    if found["seconds"] is not None:
        queue = f" · {text(language, 'train.ahead', n=found['jobs_ahead'])}" if found["jobs_ahead"] else ""
        answers.append((f"≈ {duration_words(language, found['seconds'])}{queue}", ""))
    return answers


def _figures(language: Language, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not found["memory"]:
        return []
    memory, free = bytes_words(found["memory"]["total"]), found["free_bytes"]
    if free is not None:
        memory = text(language, "train.memory_of", need=memory, free=bytes_words(free))
    chosen = found["hyperparameters"] or {}
    schedule = text(
        language, "train.schedule_words", epochs=chosen.get("n_epochs"), steps=f"{found['steps']:,}",
        batch=chosen.get("batch_size"),
    )  # fmt: skip
    rate, multiplier = chosen.get("learning_rate", 0), chosen.get("learning_rate_multiplier", 1)
    pairs = [
        ("train.memory", memory),
        ("train.schedule", schedule),
        ("train.learning_rate", f"{rate:g} (× {multiplier:g})"),
        ("train.rows", f"{found['training_rows']:,}"),
        ("train.tokens", f"{found['trained_tokens']:,}"),
    ]
    return [(text(language, key), value) for key, value in pairs]
