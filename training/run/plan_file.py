"""RUN_DIR/plan.json: the resolved `auto` values, so that a resumed run uses the same numbers. Imports no torch.

Free memory differs from one start to the next, and a batch of another size would be another run.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from adapter_format.disk import write_aside
from training.config.auto import Plan
from training.config.config import TrainingConfig

PLAN_FILE = "plan.json"


def save_plan(run_dir: Path, config: TrainingConfig, plan: Plan) -> None:
    """Save `plan`, made for `config`."""
    content = {"config": config.to_dict(), "plan": dataclasses.asdict(plan)}
    with write_aside(run_dir / PLAN_FILE) as file:
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_plan(run_dir: Path, config: TrainingConfig) -> Plan | None:
    """Return the plan saved for exactly this `config`; None if there is none, or the settings have changed since."""
    try:
        content = json.loads((run_dir / PLAN_FILE).read_text(encoding="utf-8"))
        if content["config"] != config.to_dict():
            return None
        return Plan(**{**content["plan"], "reasons": tuple(content["plan"]["reasons"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
