"""The rules by which a row is dropped or changed. Works on one row at a time."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, fields
from itertools import islice
from typing import Annotated, Literal, get_args

from training.config.config import ConfigError
from training.data.cleaning.language import identify_language, known_languages
from training.data.cleaning.normalizing import normalize_unicode, normalize_whitespace
from training.data.cleaning.personal_data import PersonalDataKind, find_personal_data, mask_personal_data
from training.data.duplicates.exact import ExactDuplicates
from training.data.duplicates.example_texts import all_texts, answers, identity, map_arguments, map_texts, whole_text
from training.data.duplicates.near import NearDuplicates, compute_signature
from training.data.examples import Example

Reason = Literal[
    "fault",
    "empty_answer",
    "short_answer",
    "too_short",
    "too_long",
    "same_answers",
    "language",
    "personal_data",
    "exact_duplicate",
    "near_duplicate",
]
Change = Literal["unicode", "whitespace", "masked"]
PersonalDataPolicy = Literal["flag", "mask", "drop", "ignore"]

_LANGUAGE_CONFIDENCE = 0.5
"""Confidence in another language at which a row is dropped; rows in doubt are kept."""

# Characters of scripts that are written without blanks count as words of their own.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


@dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """The settings of a cleaning, each with its help on the command line. Wrong values raise `ConfigError`, which names
    every fault at once."""

    normalize_unicode: Annotated[bool, "Normalize to NFC; remove control and zero-width characters."] = True
    """Turn it off only to train on such characters."""
    normalize_whitespace: Annotated[
        bool, "Remove trailing whitespace, and blank lines beyond two in a row; code is left unchanged."
    ] = True
    min_answer_words: Annotated[int, "Minimum words in an answer; a Chinese or Japanese character counts as one."] = 1
    """At least one answer of a row. 0: nothing goes for it. More drops rows that teach little, and with them the right
    one-word answers of classification."""
    min_answer_chars: Annotated[int, "Minimum characters in an answer."] = 1
    """As `min_answer_words`."""
    min_chars: Annotated[int, "Minimum characters in a row."] = 0
    max_chars: Annotated[int | None, "Maximum characters in a row. Default: no limit."] = None
    """Longer rows are cut in training, or cost memory."""
    exact_duplicates: Annotated[bool, "Drop exact duplicates."] = True
    """To the letter, white space aside. 40 to 70 bytes of memory a row."""
    near_duplicates: Annotated[
        float | None, "Drop rows at least this similar to an earlier one, 0.3 to 1; 0 turns this off, which is faster."
    ] = 0.8
    """Jaccard similarity of three-word shingles. Here None keeps them. Lower drops more, and in the end different rows
    of one pattern. Up to 1 kB of memory a row."""
    languages: Annotated[tuple[str, ...], "Keep only answers in this language, such as en or zh; repeat for more."] = ()
    """ISO 639-1 codes; empty: all. Rows too short to tell stay."""
    personal_data: Annotated[
        PersonalDataPolicy, f"What to do with emails, phone and ID numbers: {', '.join(get_args(PersonalDataPolicy))}."
    ] = "flag"
    """`flag` counts rows with emails, telephone, card, bank account and id numbers, `mask` puts [EMAIL] and the like in
    their place, `drop` drops the row, `ignore` saves the time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "languages", tuple(self.languages))
        faults = [f"`{name}` is {getattr(self, name)}, but must be 0 or more." for name in self._negative_settings()]
        if self.near_duplicates is not None and not 0.3 <= self.near_duplicates <= 1:
            faults.append(
                f"`near_duplicates` is {self.near_duplicates}, but must be 0.3 to 1. To keep near-duplicates, use 0 on "
                "the command line, null over HTTP."
            )
        if self.max_chars is not None and self.max_chars < self.min_chars:
            faults.append(
                f"`max_chars` is {self.max_chars}, less than `min_chars` {self.min_chars}, so every row would "
                "be dropped. Raise `max_chars`."
            )
        if self.personal_data not in get_args(PersonalDataPolicy):
            faults.append(f"`personal_data` is {self.personal_data!r}, but must be flag, mask, drop or ignore.")
        faults += self._unknown_languages()
        if faults:
            raise ConfigError(faults)

    def _negative_settings(self) -> list[str]:
        numbers = {item.name: getattr(self, item.name) for item in fields(self) if item.name.startswith(("min", "max"))}
        return [name for name, value in numbers.items() if value is not None and value < 0]

    def _unknown_languages(self) -> list[str]:
        unknown = sorted(set(self.languages) - known_languages()) if self.languages else []
        return (
            [f"`languages` has {', '.join(map(repr, unknown))}; use ISO 639-1 codes such as en, zh, de."]
            if unknown
            else []
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that is kept."""

    example: Example
    """The row to write, with changes."""
    changes: tuple[Change, ...] = ()
    """The changes made."""
    personal_data: tuple[PersonalDataKind, ...] = ()
    """The kinds found in it."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that is dropped."""

    line: int | None
    """Its position, as `Example.line`; None for a fault of the file as a whole."""
    reason: Reason
    """The rule that it broke."""
    detail: str
    """What was found and what was expected."""
    example: Example | None = None
    """The row as it was read; None if it couldn't be."""


class Cleaner:
    """Applies the rules to one row after another, and keeps what is needed to find duplicates."""

    def __init__(self, config: CleaningConfig) -> None:
        self._config = config
        self._exact = ExactDuplicates()
        # Good and bad answers that are nearly the same are the most useful for KTO: they are no duplicates.
        labels = (None, True, False) if config.near_duplicates else ()
        self._near = {label: NearDuplicates(config.near_duplicates or 1.0) for label in labels}
        self._languages = frozenset(config.languages)

    def clean(self, example: Example) -> Kept | Dropped:
        """Return `example`, changed, or why it is dropped; the first rule that it breaks is the reason."""
        cleaned, changes = self._normalize(example)
        texts = all_texts(cleaned)
        fault = self._check_size(cleaned, texts) or self._check_language(cleaned)
        if fault:
            return Dropped(example.line, *fault, example)
        personal = self._find_kinds(texts)
        if personal and self._config.personal_data == "drop":
            return Dropped(example.line, "personal_data", f"it has {', '.join(personal)}", example)
        if personal and self._config.personal_data == "mask":
            cleaned, changes = _mask_example(cleaned), (*changes, "masked")
        duplicate = self._check_duplicate(cleaned)
        return Dropped(example.line, *duplicate, example) if duplicate else Kept(cleaned, changes, personal)

    def _normalize(self, example: Example) -> tuple[Example, tuple[Change, ...]]:
        changes: dict[Change, None] = {}
        in_unicode, in_whitespace = self._config.normalize_unicode, self._config.normalize_whitespace
        keep_edges = example.prompt is not None

        def change(text: str) -> str:
            if in_unicode and (new := normalize_unicode(text)) is not text:
                text, changes["unicode"] = new, None
            if in_whitespace and (new := normalize_whitespace(text, keep_edges=keep_edges)) != text:
                text, changes["whitespace"] = new, None
            return text

        return map_texts(example, change), tuple(changes)

    def _check_size(self, example: Example, texts: list[str]) -> tuple[Reason, str] | None:
        config, learned = self._config, answers(example)
        judged = [*learned, *(turn.content for turn in example.rejected)]
        if not all(text and not text.isspace() for text in judged):
            return "empty_answer", "an answer is empty"
        if learned and example.label is not False:
            if (longest := max(map(len, learned))) < config.min_answer_chars:
                return (
                    "short_answer",
                    f"the longest answer has {longest} characters, fewer than {config.min_answer_chars}",
                )
            if (most := max(_count_words(text, config.min_answer_words) for text in learned)) < config.min_answer_words:
                return "short_answer", f"the longest answer has {most} words, fewer than {config.min_answer_words}"
        size = sum(map(len, texts))
        if size < config.min_chars:
            return "too_short", f"it has {size} characters, fewer than {config.min_chars}"
        if config.max_chars is not None and size > config.max_chars:
            return "too_long", f"it has {size} characters, more than {config.max_chars}"
        if example.chosen and example.chosen == example.rejected:
            return "same_answers", "the preferred and the rejected answer are the same, so there is nothing to learn"
        return None

    def _check_language(self, example: Example) -> tuple[Reason, str] | None:
        if not self._languages:
            return None
        found = identify_language("\n".join(answers(example))) or identify_language(whole_text(example))
        if found is None or found[0] in self._languages or found[0] == "zxx" or found[1] < _LANGUAGE_CONFIDENCE:
            return None
        wanted = ", ".join(sorted(self._languages))
        return "language", f"it is in {found[0]} (confidence {found[1]:.2f}), not in {wanted}"

    def _find_kinds(self, texts: list[str]) -> tuple[PersonalDataKind, ...]:
        if self._config.personal_data == "ignore":
            return ()
        return tuple(dict.fromkeys(found.kind for text in texts for found in find_personal_data(text)))

    def _check_duplicate(self, example: Example) -> tuple[Reason, str] | None:
        if self._config.exact_duplicates:
            line = self._exact.find_or_add(identity(example), example.line)
            if line is not None:
                return "exact_duplicate", f"it is the same as line {line}"
        found = compute_signature(whole_text(example)) if self._near else None
        alike = self._near[example.label].find_or_add(found, example.line) if found is not None else None
        return ("near_duplicate", f"it is {alike[1]:.0%} similar to line {alike[0]}") if alike else None


def _mask_example(example: Example) -> Example:
    return map_arguments(map_texts(example, _mask), _mask)


def _mask(text: str) -> str:
    return mask_personal_data(text)[0]


def _count_words(text: str, enough: int) -> int:
    """Count the words of `text` up to `enough`; emoji and signs such as + count if there are few words."""
    words = sum(1 for _ in islice(_WORD.finditer(text), enough))
    if words >= enough:
        return words
    return words + sum(unicodedata.category(character).startswith("S") for character in text)
