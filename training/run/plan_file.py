"""RUN_DIR/plan.json: what `auto` came to, so that a run that goes on does so with the same numbers. Imports no torch.

What is free in memory differs from one start to the next, and a batch of another size would be another run.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from training.config.auto import Plan
from training.config.config import TrainingConfig

PLAN_FILE = "plan.json"


def save_plan(run_dir: Path, config: TrainingConfig, plan: Plan) -> None:
    """Notes `plan`, made for `config`; written aside and renamed."""
    aside = run_dir / f".{PLAN_FILE}"
    content = {"config": config.to_dict(), "plan": dataclasses.asdict(plan)}
    aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(run_dir / PLAN_FILE)


def saved_plan(run_dir: Path, config: TrainingConfig) -> Plan | None:
    """The plan that was noted for just this `config`; None when there is none, or the settings changed since."""
    try:
        content = json.loads((run_dir / PLAN_FILE).read_text(encoding="utf-8"))
        if content["config"] != config.to_dict():
            return None
        return Plan(**{**content["plan"], "reasons": tuple(content["plan"]["reasons"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
