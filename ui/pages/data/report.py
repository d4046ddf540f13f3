"""The data page's check report: faults by line, figures, the histogram of lengths. Pure drawing, all words escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ui.html.charts.histogram import histogram
from ui.html.markup import coded, figures_list, said
from ui.words.i18n import TEXTS, Language, text

FEWEST = 10
"""Examples that a training takes at least; the server's rule."""


def report(language: Language, found: Mapping[str, Any]) -> str:
    """The whole report."""
    parts = [_faults(language, found["faults"], found["faults_found"])]
    if found["examples"] < FEWEST:
        parts.append(f'<p class="data-warning">⚠ {said(language, "data.too_few", n=found["examples"])}</p>')
    if found["lengths"]:
        parts.append(f'<div class="data-report">{_figures(language, found)}{_histogram(language, found)}</div>')
    return "".join(parts)


def named(language: Language, prefix: str, name: str) -> str:
    """The word for `name`, or the name itself where there is no word for it."""
    key = f"{prefix}.{name}"
    return text(language, key) if key in TEXTS[language] else name.replace("_", " ")


def _faults(language: Language, faults: Sequence[Mapping[str, Any]], count: int) -> str:
    if not count:
        return f'<p class="data-good">✓ {said(language, "data.no_faults")}</p>'
    heading = said(language, "data.fault_one" if count == 1 else "data.faults", n=f"{count:,}")
    rows = "".join(
        f'<tr><td class="live-number">{_line(language, fault["line"])}</td><td dir="auto">'
        f"{coded(fault['message'])}</td></tr>"
        for fault in faults
    )
    more = count - len(faults)
    rest = f'<p class="tl-muted">{said(language, "data.faults_more", n=f"{more:,}")}</p>' if more > 0 else ""
    return (
        f'<p class="data-bad">✗ {heading}</p><div class="data-faults" tabindex="0" role="region" '
        f'aria-label="{said(language, "data.fault")}"><table class="live-table"><thead><tr>'
        f'<th scope="col">{said(language, "data.line")}</th><th scope="col">{said(language, "data.fault")}</th></tr>'
        "</thead>"
        f"<tbody>{rows}</tbody></table></div>{rest}"
    )


def _line(language: Language, line: int | None) -> str:
    return said(language, "data.whole_file") if line is None else f"{line:,}"


def _figures(language: Language, found: Mapping[str, Any]) -> str:
    lengths = found["lengths"]
    unit = text(language, f"data.unit.{lengths['unit']}")
    kinds = ", ".join(f"{count:,} {named(language, 'data.kind', kind)}" for kind, count in found["kinds"].items())
    words = text(
        language, "data.length_words", **{k: f"{lengths[k]:,}" for k in ("shortest", "median", "p95", "longest")}
    )
    pairs = [
        ("data.examples", f"{found['examples']:,}"),
        ("data.method", named(language, "data.method", found["method"])),
        ("data.kinds", kinds),
        ("data.answers", _answers(language, found["answers_per_example"])),
        ("data.tools", f"{found['with_tools']:,}" if found["with_tools"] else ""),
        ("data.not_rendered", _not_rendered(language, found["tokens"])),
        ("data.length", f"{words} ({unit})"),
        ("data.total", f"{lengths['total']:,} {unit}"),
        *_token_figures(language, found["tokens"]),
        ("data.duplicates", _duplicates(language, found["duplicates"], found["duplicates_found"])),
        ("data.near", _near(language, found["near_duplicates"])),
        ("data.personal", _personal(language, found)),
    ]
    shown = [(said(language, key), escape(value)) for key, value in pairs if value and not key.startswith("data.cut")]
    if found["tokens"]:
        tokens = found["tokens"]
        name = said(language, "data.cut", n=f"{tokens['max_length']:,}")
        shown.insert(-3, (name, said(language, "data.cut_words", n=tokens["too_long"], rows=f"{tokens['rows']:,}")))
    return figures_list(shown)


def _token_figures(language: Language, tokens: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if tokens is None:
        return []
    return [("data.learned", text(language, "data.learned_words", share=f"{tokens['learned_share']:.0%}"))]


def _not_rendered(language: Language, tokens: Mapping[str, Any] | None) -> str:
    """What the base's chat template passes over, each with in how many examples."""
    counts = tokens["not_rendered"] if tokens else {}
    return ", ".join(
        text(language, "data.not_rendered_in", part=named(language, "data.part", part), n=f"{count:,}")
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
        f"{count:,} {named(language, 'data.pii', kind)}" for kind, count in found["personal_data"].items()
    )
    return text(language, "data.personal_words", kinds=kinds, line=(found["personal_data_lines"] or ["?"])[0])


def _histogram(language: Language, found: Mapping[str, Any]) -> str:
    lengths = found["lengths"]
    name = text(language, "data.histogram", unit=text(language, f"data.unit.{lengths['unit']}"))
    bars = [(int(bound), int(count)) for bound, count in lengths["histogram"]]
    told = [text(language, "data.histogram_bar", count=f"{count:,}", bound=f"{bound:,}") for bound, count in bars]
    return histogram(bars, name, told)
