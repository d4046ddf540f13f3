"""Checks whether an adapter relies on tokens that its base lacks: the engine tokenises with the base's tokenizer.

Only JSON files are read; tokenizers in other formats are not checked.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.adapters.config import MERGE
from serving.base_model import BaseModel
from serving.errors import AdapterError, quote

MAX_TOKENIZER_BYTES = 64 * 2**20
"""Bound on one file of a tokenizer; those with 256,000 tokens have some 30 MB."""
TOKENIZER_JSON, VOCABULARY = "tokenizer.json", "vocab.json"
TOKENIZER_CONFIG, ADDED_TOKENS = "tokenizer_config.json", "added_tokens.json"


def check_tokens(name: str, files: Mapping[str, Path], base: BaseModel) -> None:
    """Raise AdapterError when the tokenizer among `files` has tokens that the base's lacks, naming one of them."""
    tokens = _tokens(name, files)
    known = _base_tokens(base) if tokens else {}
    if known:
        new = [token for token, number in tokens.items() if known.get(token) != number]
    else:
        size = _vocabulary_size(base)
        new = [token for token, number in tokens.items() if size is not None and number >= size]
    if new:
        more = f" and {len(new) - 1} more" if len(new) > 1 else ""
        raise AdapterError(
            f"{name}: its tokenizer has the token {quote(new[0])!r}{more}, which {base.name!r} doesn't have with "
            f"the id {tokens[new[0]]}. The engine uses the base model's tokenizer. If the adapter was trained with "
            f"the base model's tokens only, leave out the tokenizer files; otherwise train it that way, {MERGE}."
        )


def _base_tokens(base: BaseModel) -> dict[str, int]:
    """Return all tokens of the base; empty if its tokenizer's format isn't supported here."""
    files = {path.name: path for path in base.path.glob("*.json")}
    if TOKENIZER_JSON not in files and VOCABULARY not in files:
        return {}
    try:
        return _tokens(base.name, files)
    except AdapterError:
        return {}


def _tokens(name: str, files: Mapping[str, Path]) -> dict[str, int]:
    """Return token → number, for all tokens in a tokenizer's JSON files. Raises: AdapterError."""
    tokens: dict[str, int] = {}
    for file, read in _READERS.items():
        if file in files:
            try:
                content = _read(name, files[file])
                tokens |= read(content)
            except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
                raise AdapterError(
                    f"{name}: {file} isn't a valid tokenizer file ({type(error).__name__}). Save the tokenizer "
                    "again, or leave out its files."
                ) from error
    return tokens


def _read(name: str, path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        raise AdapterError(
            f"{name}: {path.name} is larger than {MAX_TOKENIZER_BYTES} bytes, too large for this file. Leave it out."
        )
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _from_tokenizer_json(content: dict[str, Any]) -> dict[str, int]:
    # https://huggingface.co/docs/tokenizers/api/models: BPE and WordPiece map tokens to numbers, Unigram lists them.
    vocabulary = (content.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
    added = {entry["content"]: entry["id"] for entry in content.get("added_tokens") or []}
    return _check_token_map({**vocabulary, **added})


def _from_tokenizer_config(content: dict[str, Any]) -> dict[str, int]:
    decoder = content.get("added_tokens_decoder") or {}
    return _check_token_map({entry["content"]: int(number) for number, entry in decoder.items()})


def _check_token_map(tokens: dict[Any, Any]) -> dict[str, int]:
    if not all(isinstance(token, str) and type(number) is int for token, number in tokens.items()):
        raise ValueError("not a map of tokens to ids")
    return tokens


_READERS = {
    TOKENIZER_JSON: _from_tokenizer_json,
    VOCABULARY: _check_token_map,
    TOKENIZER_CONFIG: _from_tokenizer_config,
    ADDED_TOKENS: _check_token_map,
}


def _vocabulary_size(base: BaseModel) -> int | None:
    size = base.config.get("vocab_size")
    return size if isinstance(size, int) else None
