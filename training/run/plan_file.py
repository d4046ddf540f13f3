"""RUN_DIR/plan.json: the resolved `auto` values, so that a resumed run uses the same numbers. Imports no torch.

Free memory differs from one start to the next, and a batch of another size would be another run.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from training.config.auto import Plan
from training.config.config import TrainingConfig

PLAN_FILE = "plan.json"


def save_plan(run_dir: Path, config: TrainingConfig, plan: Plan) -> None:
    """Save `plan`, made for `config`, by way of a temporary file."""
    temporary = run_dir / f".{PLAN_FILE}"
    content = {"config": config.to_dict(), "plan": dataclasses.asdict(plan)}
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(run_dir / PLAN_FILE)


def load_plan(run_dir: Path, config: TrainingConfig) -> Plan | None:
    """Return the plan saved for exactly this `config`; None if there is none, or the settings have changed since."""
    try:
        content = json.loads((run_dir / PLAN_FILE).read_text(encoding="utf-8"))
        if content["config"] != config.to_dict():
            return None
        return Plan(**{**content["plan"], "reasons": tuple(content["plan"]["reasons"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
