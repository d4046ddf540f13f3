"""The report on the data page: errors by line, statistics, a histogram of lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ui.html.charts.histogram import histogram
from ui.html.templates import render
from ui.words.i18n import TEXTS, Language, text

FEWEST = 10
"""Minimum number of examples for training; the server's rule."""


def report(language: Language, found: Mapping[str, Any]) -> Markup:
    """Return the whole report."""
    figures, chart = (_figures(language, found), _histogram(language, found)) if found["lengths"] else (None, None)
    return render(
        "pages/data/templates/report.html", language, found=found, fewest=FEWEST, figures=figures, histogram=chart
    )


def label(language: Language, prefix: str, name: str) -> str:
    """Return the label for `name`, or the name itself if there is none."""
    key = f"{prefix}.{name}"
    return text(language, key) if key in TEXTS[language] else name.replace("_", " ")


def _figures(language: Language, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    lengths, tokens, learned, cut, longest = found["lengths"], found["tokens"], "", "", ""
    unit = text(language, f"data.unit.{lengths['unit']}")
    kinds = ", ".join(f"{count:,} {label(language, 'data.kind', kind)}" for kind, count in found["kinds"].items())
    words = text(
        language, "data.length_words", **{k: f"{lengths[k]:,}" for k in ("shortest", "median", "p95", "longest")}
    )
    if tokens:
        longest = f"{tokens['max_length']:,}"
        learned = text(language, "data.learned_words", share=f"{tokens['learned_share']:.0%}")
        cut = text(language, "data.cut_words", n=tokens["too_long"], rows=f"{tokens['rows']:,}")
    pairs = [
        ("data.examples", f"{found['examples']:,}"),
        ("data.method", label(language, "data.method", found["method"])),
        ("data.kinds", kinds),
        ("data.answers", _answers(language, found["answers_per_example"])),
        ("data.tools", f"{found['with_tools']:,}" if found["with_tools"] else ""),
        ("data.not_rendered", _not_rendered(language, tokens)),
        ("data.length", f"{words} ({unit})"),
        ("data.total", f"{lengths['total']:,} {unit}"),
        ("data.learned", learned),
        ("data.cut", cut),
        ("data.duplicates", _duplicates(language, found["duplicates"], found["duplicates_found"])),
        ("data.near", _near(language, found["near_duplicates"])),
        ("data.personal", _personal(language, found)),
    ]
    return [(text(language, key, n=longest), value) for key, value in pairs if value]


def _not_rendered(language: Language, tokens: Mapping[str, Any] | None) -> str:
    """Return what the base's chat template doesn't render, with the number of examples."""
    counts = tokens["not_rendered"] if tokens else {}
    return ", ".join(
        text(language, "data.not_rendered_in", part=label(language, "data.part", part), n=f"{count:,}")
        for part, count in counts.items()
    )


def _answers(language: Language, counts: Mapping[str, int]) -> str:
    return ", ".join(
        text(language, "data.answers_each", count=f"{count:,}", answers=answers) for answers, count in counts.items()
    )


def _duplicates(language: Language, found: Sequence[Mapping[str, int]], count: int) -> str:
    if not found:
        return text(language, "data.none")
    one = found[0]
    return text(language, "data.duplicates_words", n=f"{count:,}", line=one["line"], first=one["first_line"])


def _near(language: Language, count: int | None) -> str:
    if count is None:
        return text(language, "data.near_unknown")
    return f"{count:,}" if count else text(language, "data.none")


def _personal(language: Language, found: Mapping[str, Any]) -> str:
    if not found["personal_data"]:
        return text(language, "data.none")
    kinds = ", ".join(
        f"{count:,} {label(language, 'data.pii', kind)}" for kind, count in found["personal_data"].items()
    )
    return text(language, "data.personal_words", kinds=kinds, line=(found["personal_data_lines"] or ["?"])[0])


def _histogram(language: Language, found: Mapping[str, Any]) -> Markup:
    lengths = found["lengths"]
    name = text(language, "data.histogram", unit=text(language, f"data.unit.{lengths['unit']}"))
    bars = [(int(bound), int(count)) for bound, count in lengths["histogram"]]
    labels = [text(language, "data.histogram_bar", count=f"{count:,}", bound=f"{bound:,}") for bound, count in bars]
    return Markup(histogram(bars, name, labels))  # noqa: S704 (escaped there)
