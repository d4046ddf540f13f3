"""What a registry tells whoever counts: loads, evictions, refusals. It refuses to know how they are counted."""

from collections.abc import Callable
from dataclasses import dataclass


def _ignored(*_told: object) -> None:
    """For those who don't count."""


@dataclass(frozen=True)
class RegistryObserver:
    """Functions that are called at once, from the engine's event loop; they must be quick and not raise."""

    loaded: Callable[[str, str, float], None] = _ignored
    """(model, engine's id, seconds that the load took)"""
    evicted: Callable[[str, str], None] = _ignored
    """(model, engine's id): unloaded to make room for another."""
    refused: Callable[[str, str], None] = _ignored
    """(model, reason)"""
    parity: Callable[[str, bool], None] = _ignored
    """(model, whether it passed the gate)"""
    removed: Callable[[str], None] = _ignored
    """(model): nobody will ask for it again."""
