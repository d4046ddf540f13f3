"""Special tokens of tokenizer and engine: those that end an answer, and those that text must not contain."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

_GENERATION_CONFIG = "generation_config.json"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def find_stop_token_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids at which the engine ends an answer: the tokenizer's end token and those in generation_config.json.

    Source: vLLM reads the same file, https://docs.vllm.ai/en/stable/cli/serve.html, `--generation-config`.
    """
    own = {int(tokenizer.eos_token_id)} if tokenizer.eos_token_id is not None else set()
    return frozenset(own) | _read_configured_ends(str(tokenizer.name_or_path or ""))


def find_special_token(text: str, tokenizer: Any) -> str | None:
    """Return a control token that `text` contains as text, or None.

    The tokenizer, and so the engine, would read it as the control token, such as the end of a turn.
    """
    pattern = _special_tokens(tokenizer, len(tokenizer))
    found = pattern.search(text) if pattern else None
    return found.group() if found else None


def special_token_ids(tokenizer: Any) -> frozenset[int]:
    """Return ids of the control tokens, which plain text doesn't produce unless it contains their text."""
    return _special_ids(tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _special_ids(tokenizer: Any, size: int) -> frozenset[int]:
    """`size` is part of the key, so that tokens added later are noticed."""
    added = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added) | frozenset(tokenizer.all_special_ids)


@lru_cache(maxsize=8)
def _special_tokens(tokenizer: Any, size: int) -> re.Pattern[str] | None:
    spellings = {str(tokenizer.convert_ids_to_tokens(token_id)) for token_id in _special_ids(tokenizer, size)}
    longest_first = sorted(filter(None, spellings), key=lambda spelling: (-len(spelling), spelling))
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


@lru_cache(maxsize=32)
def _read_configured_ends(name_or_path: str) -> frozenset[int]:
    """Return the end tokens in generation_config.json; none if there is no such file."""
    is_folder = bool(name_or_path) and Path(name_or_path).is_dir()
    if not is_folder and not _HUB_ID.fullmatch(name_or_path):
        return frozenset()  # created in memory, or its folder is gone
    from transformers.utils.hub import cached_file  # slow to import

    path = cached_file(
        name_or_path,
        _GENERATION_CONFIG,
        local_files_only=is_folder,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return frozenset()
    ends = json.loads(Path(path).read_text(encoding="utf-8")).get("eos_token_id")
    return frozenset([ends] if isinstance(ends, int) else ends or ())
