"""Callbacks of a registry for metrics: loads, evictions, refusals."""

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(*_event: object) -> None:
    """Ignore the event."""


@dataclass(frozen=True)
class RegistryObserver:
    """Callbacks on the engines' event loop; they must be quick and not raise."""

    loaded: Callable[[str, str, float], None] = _ignore
    """(model, engine's id, seconds that the load took)"""
    evicted: Callable[[str, str], None] = _ignore
    """(model, engine's id): unloaded to make room for another."""
    refused: Callable[[str, str], None] = _ignore
    """(model, reason)"""
    parity: Callable[[str, bool], None] = _ignore
    """(model, whether it passed the gate)"""
    removed: Callable[[str], None] = _ignore
    """(model): no more requests for it will come."""
