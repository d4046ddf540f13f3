"""rank_pattern and alpha_pattern: which layers have a rank or a scale of their own.

PEFT and vLLM match the keys as regular expressions, vLLM in the loop of the engine: one that goes back and forth for
hours would stop every model's answers. It refuses to know the values.
"""

import re
from collections.abc import Mapping
from typing import Any

from serving.errors import AdapterError
from serving.shown import shown_value

MAX_PATTERNS = 240
"""Most entries of rank_pattern and of alpha_pattern. vLLM matches each module against each key with a library that
keeps 500 compiled patterns: 480 keys for 480 modules took 0.8 s here, 560 for 560 took 9 s, while no model answers."""
MAX_WILD_PATTERNS = 16
"""Most of those that are more than a module's name or the end of one."""
_PLAIN_KEY = re.compile(r"\^?(?:[\w.-]|\\\.)+\$?", re.ASCII)


def check_pattern(name: str, config: Mapping[str, Any], parameter: str, kind: str) -> None:
    """Raises AdapterError unless `parameter` of adapter `name` maps modules to something; kind: what, in the plural."""
    pattern = config.get(parameter) or {}
    if not isinstance(pattern, dict):
        raise AdapterError(f"{name}: {parameter} is {shown_value(pattern)}, but must map module names to {kind}.")
    if len(pattern) > MAX_PATTERNS:
        raise AdapterError(
            f"{name}: {parameter} has {len(pattern)} entries, but may have {MAX_PATTERNS}. Name the ends of modules."
        )
    wild = [key for key in pattern if not _PLAIN_KEY.fullmatch(key)]
    if len(wild) > MAX_WILD_PATTERNS or not all(map(_is_quickly_matched, wild)):
        raise AdapterError(
            f"{name}: {parameter} has the key {shown_value(wild[0])}, but a key must be a module's name, the end "
            f"of one, or one of at most {MAX_WILD_PATTERNS} simple patterns. Write the modules out."
        )


def _is_quickly_matched(key: str) -> bool:
    """Whether a key that is no plain name can be matched without going back and forth for long."""
    pattern = key.replace("(?:", "(")
    repeated = len(re.findall(r"[*+?{]", pattern))
    if len(key) > 200 or repeated > 2 or pattern.count("(") > 2 or "(?" in pattern or re.search(r"\)[*+?{]", pattern):
        return False
    try:
        re.compile(key)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """The rank that a checked config gives to a module of the base, by PEFT's rule: the first key that fits its end."""
    for key, rank in (config.get("rank_pattern") or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return int(rank)
    return int(config["r"])
