"""Callbacks of a registry for metrics: loads, evictions, refusals."""

from collections.abc import Callable
from dataclasses import dataclass


def _ignored(*_event: object) -> None:
    """Ignore the event."""


@dataclass(frozen=True)
class RegistryObserver:
    """Callbacks on the engines' event loop; they must be quick and not raise."""

    loaded: Callable[[str, str, float], None] = _ignored
    """(model, engine's id, seconds that the load took)"""
    evicted: Callable[[str, str], None] = _ignored
    """(model, engine's id): unloaded to make room for another."""
    refused: Callable[[str, str], None] = _ignored
    """(model, reason)"""
    parity: Callable[[str, bool], None] = _ignored
    """(model, whether it passed the gate)"""
    removed: Callable[[str], None] = _ignored
    """(model): no more requests for it will come."""
