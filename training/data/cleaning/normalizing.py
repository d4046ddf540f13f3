"""Normalises text without changing its meaning: Unicode form, invisible characters, white space. Imports no torch.

Each function returns the very object that it got if there is nothing to do.
"""

from __future__ import annotations

import re
import unicodedata

# Letters of scripts whose spelling needs joiners: Arabic to Mandaic, the scripts of India, Sinhala, Tibetan, Myanmar,
# Khmer, Mongolian (Unicode 16, chapter 23.2 "Cursive Connection and Ligatures").
_JOINING = "\u0600-\u0604\u0610-\u086f\u08a0-\u0dff\u0f00-\u109f\u1780-\u18af\ua840-\ua87f\ufb50-\ufdff\ufe70-\ufefc"
# Characters that emoji are made of (Unicode 16, emoji-data.txt, Extended_Pictographic).
_PICTURE = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u27bf\u2934\u2935\u2b05-\u2b55"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_AFTER_PICTURE = "\ufe0f\U0001f3fb-\U0001f3ff\u20e3"

_LINE_ENDS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
# C0 and C1 controls without tab and newline; soft hyphen; zero-width space, word joiner, invisible operators, byte
# order mark; overrides and isolates of the writing direction, which can make text look different from what it is;
# interlinear annotations.
_INVISIBLE = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060-\u2064\u2066-\u206f\u202a-\u202e\ufeff\ufff9-\ufffb"
)
_ASCII_SUSPECT = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_SUSPECT = re.compile(f"[{_INVISIBLE}\x0b-\x0d\x85\u2028\u2029\u200c-\u200f\u061c\U000e0000-\U000e007f]")
_UNWANTED = re.compile(
    f"[{_INVISIBLE}]"
    f"|(?<![{_JOINING}])\u200c"
    f"|(?<![{_JOINING}{_PICTURE}{_AFTER_PICTURE}])\u200d"
    f"|(?<=[{_PICTURE}{_AFTER_PICTURE}])\u200d(?![{_PICTURE}])"
)
_FLAG_OR_TAG = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)|[\U000e0000-\U000e007f]")
_DIRECTION_MARKS = re.compile("[\u200e\u200f\u061c]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")

_BLANK_END = " \t\u00a0\u3000"
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_CODE = re.compile(r"^(?:    |\t| {0,3}(?:```|~~~))", re.MULTILINE)
_MANY_NEWLINES = re.compile("\n{4,}")
_BLANK_LINES = 2
"""Blank lines in a row that are kept."""


def normalize_unicode(text: str) -> str:
    """Return `text` in NFC (Unicode Standard Annex 15), without control or zero-width characters; newlines end lines.

    Joiners are kept where spelling or an emoji needs them, direction marks with right-to-left script, tags in flags.
    NFKC is not used: it would turn `x²` into `x2`.
    """
    if text.isascii():
        return _clean_ascii(text) if _ASCII_SUSPECT.search(text) else text
    text = _to_nfc(text)
    # Again after removals: a removed character may have been between a letter and its accent.
    return _to_nfc(_remove_unwanted(text)) if _SUSPECT.search(text) else text


def _to_nfc(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def _clean_ascii(text: str) -> str:
    return _UNWANTED.sub("", _LINE_ENDS.sub("\n", text))


def _remove_unwanted(text: str) -> str:
    text = _UNWANTED.sub("", _LINE_ENDS.sub("\n", text))
    text = _FLAG_OR_TAG.sub(lambda found: found.group(1) or "", text)
    return text if _RIGHT_TO_LEFT.search(text) else _DIRECTION_MARKS.sub("", text)


def normalize_whitespace(text: str, *, keep_edges: bool = False) -> str:
    """Return `text` with newlines for line ends, no trailing blanks and at most two blank lines in a row.

    Code keeps its blanks and blank lines: fenced code, and lines that are indented by four blanks or a tab. Blank lines
    at the start and white space at the end of `text` are removed, too, unless `keep_edges`: between a prompt and a
    completion they are part of what is trained on.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _is_tidy(text, keep_edges):
        return text
    tidy = _tidy_lines(text) if _CODE.search(text) else _tidy_prose(text)
    if keep_edges:
        body = text.strip()
        start = text[: len(text) - len(text.lstrip())]
        return start + tidy.strip() + text[len(start) + len(body) :]
    return _strip_blank_start(tidy).rstrip()


def _is_tidy(text: str, keep_edges: bool) -> bool:
    if " \n" in text or "\t\n" in text or "\n\n\n\n" in text:
        return False
    if not text.isascii() and ("\u00a0\n" in text or "\u3000\n" in text):
        return False
    return keep_edges or not text or not (text[0].isspace() or text[-1].isspace())


def _strip_blank_start(text: str) -> str:
    """Remove blank lines at the start; the first line's indentation is kept, as it may be code."""
    body = text.lstrip()
    indent = text[: len(text) - len(body)].rpartition("\n")[2]
    return (indent if _is_indented(indent) else "") + body


def _tidy_prose(text: str) -> str:
    return _MANY_NEWLINES.sub("\n\n\n", "\n".join([line.rstrip(_BLANK_END) for line in text.split("\n")]))


def _tidy_lines(text: str) -> str:
    tidy: list[str] = []
    blanks: list[str] = []
    fence = ""
    was_code = False
    for line in text.split("\n"):
        if not fence and not line.strip():
            blanks.append(line)
            continue
        is_code = bool(fence) or _is_indented(line)
        tidy += blanks if was_code and is_code else [""] * min(len(blanks), _BLANK_LINES)
        blanks, was_code = [], is_code
        tidy.append(line if is_code else line.rstrip(_BLANK_END))
        fence = _update_fence(line, fence)
    return "\n".join([*tidy, *([""] * min(len(blanks), _BLANK_LINES))])


def _is_indented(line: str) -> bool:
    return line.startswith(("    ", "\t"))


def _update_fence(line: str, fence: str) -> str:
    """Return the fence that is open after `line`, empty if none is (CommonMark 0.31, "Fenced code blocks")."""
    found = _FENCE.match(line)
    if not found:
        return fence
    if not fence:
        return found.group(1)
    closes = found.group(1).startswith(fence) and not line[found.end() :].strip()
    return "" if closes else fence
