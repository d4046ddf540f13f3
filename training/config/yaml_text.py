"""YAML as people write it. Imports no torch."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, fixed for `2e-4`, which by YAML 1.1 is a string: a number needs a point there."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def load_yaml(text: str) -> Any:
    """Parse the YAML `text`; `2e-4` is a number, as in YAML 1.2.

    Raises:
        yaml.YAMLError: it isn't YAML.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 — a safe loader with one more notation for numbers
