"""The best weights of a run so far, and early stopping."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from adapter_format.disk import write_aside

WEIGHTS = "trained.safetensors"
STATE = "best.json"


@dataclass(frozen=True)
class Validation:
    """The result of one validation."""

    step: int
    """Optimizer steps done at that point."""
    loss: float
    """Validation loss."""


class BestWeights:
    """Keeps the trained weights of the best validation in a folder, where a resumed run finds them.

    A run that resumes from an earlier checkpoint repeats the validations after it; their records are dropped first, but
    the weights stay until better ones come: they were measured, and so they count.
    """

    def __init__(self, directory: Path, model: Any, *, patience: int | None, threshold: float) -> None:
        """patience: validations without a loss lower by `threshold` until `is_exhausted`; None: never."""
        self._directory, self._model = directory, model
        self._patience, self._threshold = patience, threshold
        self._seen: list[Validation] = []
        self.best: Validation | None = None
        """The validation whose weights are kept."""
        self._read()

    def record(self, step: int, loss: float) -> bool:
        """Record the validation after `step`; keep the current weights if it is the best. Return whether it is."""
        self._seen = [seen for seen in self._seen if seen.step < step] + [Validation(step, loss)]
        is_best = self.best is None or loss < self.best.loss
        if is_best:
            self.best = Validation(step, loss)
            self._save_weights()
        self._write()
        return is_best

    def drop_after(self, step: int) -> None:
        """Drop the validations after `step`, which will be repeated."""
        self._seen = [seen for seen in self._seen if seen.step <= step]

    @property
    def is_exhausted(self) -> bool:
        """Whether the last `patience` validations brought no progress."""
        if self._patience is None or not self._seen:
            return False
        reached, since = self._seen[0].loss, 0
        for seen in self._seen[1:]:
            if seen.loss < reached - self._threshold:
                reached, since = seen.loss, 0
            else:
                since += 1
        return since >= self._patience

    def restore(self) -> None:
        """Load the kept weights into the model."""
        weights = load_file(self._directory / WEIGHTS)
        with torch.no_grad():
            for name, parameter in _trained_parameters(self._model).items():
                parameter.copy_(weights[name])

    def _save_weights(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        weights = {
            name: parameter.detach().cpu().contiguous() for name, parameter in _trained_parameters(self._model).items()
        }
        with write_aside(self._directory / WEIGHTS, aside=self._directory / f".{WEIGHTS}.part") as file:
            save_file(weights, file)

    def _write(self) -> None:
        state = {"best": asdict(self.best) if self.best else None, "seen": [asdict(seen) for seen in self._seen]}
        with write_aside(self._directory / STATE, aside=self._directory / f".{STATE}.part") as file:
            file.write_text(json.dumps(state), encoding="utf-8")

    def _read(self) -> None:
        if not (self._directory / STATE).exists() or not (self._directory / WEIGHTS).exists():
            return
        state = json.loads((self._directory / STATE).read_text())
        self.best = Validation(**state["best"]) if state["best"] else None
        self._seen = [Validation(**seen) for seen in state["seen"]]


def _trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
